"""Chromium, driven by a test: what a page looks like to it, and what it complains of."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

import programs

DEADLINE_S = 60
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"),
    "--window-size=1280,900",
)
UNSTYLED = "rgba(0, 0, 0, 0)"


class Browser:
    """A window. home: the site's address."""

    def __init__(self, driver: Chrome, home: str) -> None:
        self.driver = driver
        self.home = home

    def open(self, path: str) -> None:
        self.driver.get(self.home + path)

    def fill(self, **values: str) -> None:
        """Type into the fields of these names."""
        for name, value in values.items():
            field = self.driver.find_element(By.NAME, name)
            field.clear()
            field.send_keys(value)

    def press(self, selector: str) -> None:
        """Click, and wait for the page that follows."""
        button = self.driver.find_element(By.CSS_SELECTOR, selector)
        self.driver.execute_script("arguments[0].click()", button)
        WebDriverWait(self.driver, DEADLINE_S).until(lambda driver: _is_stale(button))

    def text(self, selector: str = "body") -> str:
        return self.driver.find_element(By.CSS_SELECTOR, selector).text

    def links(self, prefix: str) -> set[str]:
        """The paths below `prefix` to which the page links."""
        found = {str(link.get_attribute("href")) for link in self.driver.find_elements(By.CSS_SELECTOR, "a[href]")}
        paths = {link.removeprefix(self.home).partition("#")[0] for link in found if link.startswith(self.home)}
        return {path for path in paths if path.startswith(prefix)}

    def background(self, selector: str) -> str:
        """Its colour as the style sheets make it; UNSTYLED where there are none."""
        return self.driver.find_element(By.CSS_SELECTOR, selector).value_of_css_property("background-color")

    def complaints(self) -> list[str]:
        """What the browser has reported since the last time: files that are missing, scripts that fail.

        The icon is what it asks for by itself.
        """
        severe = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [message for message in severe if "/favicon.ico " not in message]


def _is_stale(element: WebElement) -> bool:
    try:
        element.is_enabled()
    except StaleElementReferenceException:
        return True
    return False


@contextmanager
def browser(home: str, profile: Path) -> Iterator[Browser]:
    """A new window, closed at the end. Raises MissingProgram."""
    options = ChromeOptions()
    options.binary_location = programs.path("chromium")
    for option in (*OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options, ChromeService(programs.path("chromedriver")))
    try:
        driver.set_page_load_timeout(DEADLINE_S)
        yield Browser(driver, home)
    finally:
        driver.quit()
