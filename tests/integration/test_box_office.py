"""The demo site over real HTTP, on every database: a seat is sold once, and nobody meets an error."""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

SEATS = 100
BUYERS = 200
TIMEOUT_S = 60


@dataclass(frozen=True)
class Site:
    """The box office, being served on `port` of 127.0.0.1."""

    port: int
    environment: dict[str, str]
    log: Path

    def request(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> "Answer":
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)) as connection:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            cookie = (response.getheader("Set-Cookie") or "").partition(";")[0]
            return Answer(response.status, response.read().decode(), cookie)

    def put_on_sale(self, name: str, rows: int, seats_per_row: int) -> int:
        """Open an event and return its id."""
        show = f"Show({name!r}, rows={rows}, seats_per_row={seats_per_row})"
        event: int = run_django(
            self.environment,
            f"import sys, fullhouse.demo as demo; demo.prepare([demo.{show}], out=sys.stderr)",
            f"Event.objects.get(name={name!r}).pk",
        )
        return event

    def seats(self, event: int) -> list[dict[str, Any]]:
        answer = self.request("GET", f"/api/events/{event}/")
        assert answer.status == 200
        seats: list[dict[str, Any]] = json.loads(answer.text)["seats"]
        return seats

    def buy_by_program(self, event: int, seat: int, body: bytes) -> "Answer":
        return self.request("POST", f"/api/events/{event}/seats/{seat}/buy", body)

    def open_form(self, event: int) -> "Form":
        page = self.request("GET", f"/events/{event}/")
        assert page.status == 200
        return Form(self, event, page.cookie, read_form(page.text).token)


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    cookie: str


@dataclass(frozen=True)
class Form:
    """A buyer's browser with the event's page open."""

    site: Site
    event: int
    cookie: str
    token: str

    def send(self, **fields: object) -> Answer:
        return self.site.request(
            "POST",
            f"/events/{self.event}/buy",
            urlencode({"csrfmiddlewaretoken": self.token, **fields}).encode(),
            {"Content-Type": "application/x-www-form-urlencoded", "Cookie": self.cookie},
        )


class FormReader(HTMLParser):
    """What a buyer finds in a page's form: the CSRF token, and the ids of the seats."""

    def __init__(self) -> None:
        super().__init__()
        self.token = ""
        self.free: list[int] = []
        self.sold: list[int] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("name") == "csrfmiddlewaretoken":
            self.token = given["value"] or ""
        elif given.get("name") == "seat":
            (self.sold if "disabled" in given else self.free).append(int(given["value"] or ""))


def read_form(page: str) -> FormReader:
    reader = FormReader()
    reader.feed(page)
    return reader


def run_django(environment: dict[str, str], statement: str, expression: str) -> Any:
    """Run a statement and an expression in the site's own Django, in another process; return the value."""
    code = (
        "import json, django; django.setup()\n"
        "from fullhouse.demo.models import Event, Order, Seat\n"
        f"{statement}\n"
        f"print(json.dumps({expression}))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


@contextmanager
def serve(environment: dict[str, str], log: Path) -> Iterator[int]:
    """Serve the site, and yield the port. Requests wait in the listener's queue until the server is ready."""
    command = [sys.executable, "-m", "fullhouse", "serve", "fullhouse.demo", "--bind=127.0.0.1:0", "--threads=16"]
    with log.open("w") as errors:
        server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert server.stdout is not None
        try:
            yield next(int(line.rpartition(":")[2].strip("/\n")) for line in server.stdout if "address" in line)
        finally:
            server.terminate()
            server.communicate()


@pytest.fixture(scope="module", params=["sqlite", "mysql", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp(request.param)
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "fullhouse.demo.settings",
        "FULLHOUSE_DEMO_DB": "sqlite",
        "FULLHOUSE_DEMO_FOLDER": str(folder),
        "FULLHOUSE_QUEUE_TARGET": "60",  # two hundred at once are too many for a slow machine, and would be shed
    }
    if request.param != "sqlite":
        environment |= request.getfixturevalue(f"{request.param}_server").environment()
    log = folder / "server.log"
    with serve(environment, log) as port:
        yield Site(port, environment, log)


def test_two_hundred_buyers_for_a_hundred_seats(site: Site) -> None:
    """Every seat is wanted by a program and by a person with a browser, all at the same moment."""
    event = site.put_on_sale("The rush", rows=10, seats_per_row=10)
    seats = [seat["id"] for seat in site.seats(event)]
    assert len(seats) == SEATS
    everybody_is_here = threading.Barrier(BUYERS)

    def program(number: int) -> int:
        everybody_is_here.wait(TIMEOUT_S)
        seat = seats[number % SEATS]
        return site.buy_by_program(event, seat, json.dumps({"buyer": f"buyer {number}"}).encode()).status

    def person(number: int) -> int:
        form = site.open_form(event)
        everybody_is_here.wait(TIMEOUT_S)
        answer = form.send(seat=seats[number % SEATS], buyer=f"buyer {number}")
        assert answer.status == 302 or "Somebody was faster" in answer.text
        return answer.status

    with ThreadPoolExecutor(BUYERS) as pool:
        attempts = [pool.submit(program if n < SEATS else person, n) for n in range(BUYERS)]
        statuses = [attempt.result() for attempt in attempts]

    counted = Counter(statuses)
    assert counted[201] + counted[302] == SEATS, counted
    assert counted[409] == BUYERS - SEATS, counted
    orders = run_django(
        site.environment, "", f"list(Order.objects.filter(seat__event={event}).values_list('seat', 'buyer'))"
    )
    winners = {f"buyer {number}" for number, status in enumerate(statuses) if status in (201, 302)}
    assert sorted(seat for seat, _ in orders) == sorted(seats)
    assert {buyer for _, buyer in orders} == winners
    assert all(seat["sold"] for seat in site.seats(event))
    assert "Traceback" not in site.log.read_text()


def test_the_loser_is_offered_the_nearest_free_seats(site: Site) -> None:
    event = site.put_on_sale("Close", rows=3, seats_per_row=3)
    seat = {(seat["row"], seat["number"]): seat["id"] for seat in site.seats(event)}
    form = site.open_form(event)
    assert form.send(seat=seat["A", 1], buyer="Ada").status == 302

    answer = form.send(seat=seat["A", 1], buyer="Grace")

    assert answer.status == 409
    assert "Sorry, Grace" in answer.text
    nearest = [("A", 2), ("A", 3), ("B", 1), ("B", 2), ("B", 3), ("C", 1)]
    assert read_form(answer.text).free == [seat[place] for place in nearest]


def test_pages_show_what_was_sold(site: Site) -> None:
    event = site.put_on_sale("Une soirée <privée> 🎭", rows=1, seats_per_row=2)
    first, second = (seat["id"] for seat in site.seats(event))
    sale = site.buy_by_program(event, first, '{"buyer": "Zoë 🎟 <b>"}'.encode())
    assert sale.status == 201

    ticket = site.request("GET", f"/orders/{json.loads(sale.text)['order']}/")
    page = read_form(site.request("GET", f"/events/{event}/").text)

    assert "Zoë 🎟 &lt;b&gt;" in ticket.text
    assert "Zoë 🎟 &lt;b&gt;" in site.request("GET", "/orders/").text
    assert "Une soirée &lt;privée&gt; 🎭" in site.request("GET", "/").text
    assert (page.free, page.sold) == ([second], [first])


UNREADABLE_ORDERS = {
    b"": "Send a JSON object",
    b"[1]": "Send a JSON object",
    b"\xff": "Send a JSON object",
    b"{}": "tell us your name",
    b'{"buyer": "  "}': "tell us your name",
    b'{"buyer": "' + 81 * b"x" + b'"}': "at most 80 characters",
    rb'{"buyer": "\ud83c"}': "not text",
    rb'{"buyer": "\u0000"}': "Null characters",
}


def test_a_program_that_asks_badly_is_told_why(site: Site) -> None:
    event = site.put_on_sale("Manners", rows=1, seats_per_row=1)
    seat = site.seats(event)[0]["id"]
    for body, says in UNREADABLE_ORDERS.items():
        answer = site.buy_by_program(event, seat, body)
        assert answer.status == 400, body
        assert says in json.loads(answer.text)["error"]
    assert not site.seats(event)[0]["sold"]


def test_a_person_who_forgets_something_sees_the_map_again(site: Site) -> None:
    event = site.put_on_sale("Forgetful", rows=1, seats_per_row=1)
    form = site.open_form(event)
    nameless = form.send(seat=site.seats(event)[0]["id"])
    seatless = form.send(buyer="Ada")
    assert nameless.status == seatless.status == 400
    assert "Please tell us your name." in nameless.text
    assert "Please choose a seat on the map." in seatless.text
    assert 'value="Ada"' in seatless.text


def test_what_does_not_exist_is_not_found(site: Site) -> None:
    event = site.put_on_sale("Here", rows=1, seats_per_row=1)
    elsewhere = site.put_on_sale("Elsewhere", rows=1, seats_per_row=1)
    seat = site.seats(elsewhere)[0]["id"]
    for path in ("/events/0/", "/orders/0/", f"/events/{10**30}/", "/api/events/0/", "/nothing"):
        assert site.request("GET", path).status == 404, path
    for wrong in (seat, 0, 10**30):
        assert site.buy_by_program(event, wrong, b'{"buyer": "Ada"}').status == 404
        assert site.open_form(event).send(seat=wrong, buyer="Ada").status == 404
    assert site.request("GET", f"/events/{event}/buy").status == 405


def test_a_form_from_another_site_is_refused(site: Site) -> None:
    event = site.put_on_sale("Forgery", rows=1, seats_per_row=1)
    seat = site.seats(event)[0]["id"]
    body = urlencode({"seat": seat, "buyer": "Mallory"}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert site.request("POST", f"/events/{event}/buy", body, headers).status == 403


def test_queries_do_not_grow_with_the_house(site: Site) -> None:
    small = site.put_on_sale("Small", rows=1, seats_per_row=2)
    large = site.put_on_sale("Large", rows=20, seats_per_row=20)
    for event in (small, large):
        for seat in site.seats(event)[:2]:
            site.buy_by_program(event, seat["id"], b'{"buyer": "Ada"}')
    count = (
        "from django.db import connection\n"
        "from django.test import Client\n"
        "from django.test.utils import CaptureQueriesContext\n"
        "def queries(path):\n"
        "    with CaptureQueriesContext(connection) as captured:\n"
        "        assert Client().get(path).status_code == 200\n"
        "    return len(captured)\n"
    )
    pages = ["/", f"/events/{small}/", f"/events/{large}/", f"/api/events/{large}/", "/orders/"]
    assert run_django(site.environment, count, f"[queries(path) for path in {pages}]") == [1, 2, 2, 2, 2]


def test_opening_twice_changes_nothing(site: Site) -> None:
    event = site.put_on_sale("Again", rows=28, seats_per_row=1)
    before = site.seats(event)
    assert [before[row]["row"] for row in (0, 25, 26, 27)] == ["A", "Z", "AA", "AB"]
    assert site.put_on_sale("Again", rows=28, seats_per_row=1) == event
    assert site.seats(event) == before
