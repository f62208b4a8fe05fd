"""Run the README's commands on every combination of `supported.py`, and print one line a leg.

    python3 tools/matrix.py                # all legs, two at a time
    python3 tools/matrix.py trixie         # this one

A leg in a container works on a clone of HEAD, as an ordinary user. What a leg printed is in build/matrix/LEG.log;
where the leg failed, it is shown.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

import containers
import programs
import supported
from containers import Container, ContainerError
from supported import LEGS, Leg

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "build" / "matrix"
AT_A_TIME = 2  # the tests wait much of their time
TEST_TIMEOUT_S = 2400
DEMO_TIMEOUT_S = 600  # with the installation of what it needs
STOP_TIMEOUT_S = 60
FETCH = "curl --silent --show-error --fail --max-time 30"
BROWSER = (
    "chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --user-data-dir=/tmp/profile --dump-dom"
)
GROUP = "/tmp/demo.group"  # noqa: S108  in a container of our own
SHOWN = ("<h1>Take your seats</h1>", "Midnight in Montmartre", 'class="button" href="/events/')


class LegFailed(Exception):  # noqa: N818  it says what failed
    """A command of a leg did not do what the README says; the message says which."""


@dataclass
class Result:
    """What a leg came to. tests: pytest's counts by outcome. reasons: why tests were skipped, with their number."""

    leg: Leg
    versions: str = ""
    tests: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    failure: str = ""
    seconds: float = 0

    def line(self) -> str:
        verdict = f"FAILED: {self.failure}" if self.failure else "passed"
        counts = f"{self.tests['passed']} passed, {self.failed} failed, {self.tests['skipped']} skipped"
        reasons = "; ".join(f"{number} × {reason}" for reason, number in sorted(self.reasons.items()))
        versions = self.versions or f"not run on {', '.join(self.leg.versions)}"
        why = f" ({reasons})" if reasons else ""
        return f"{self.leg.name:9} {verdict}: {versions}: {counts}{why}, {self.seconds / 60:.1f} min"

    @property
    def failed(self) -> int:
        return self.tests["failed"] + self.tests["error"] + self.tests["errors"]

    def take_tests(self, output: str) -> None:
        """Read the end of pytest's output, as `-ra` makes it."""
        closing = re.findall(r"^=* ?(\d+ \w+(?:, \d+ \w+)*) in [\d.]+s", output, re.MULTILINE)
        for number, outcome in re.findall(r"(\d+) (\w+)", closing[-1] if closing else ""):
            self.tests[outcome] += int(number)
        for number, reason in re.findall(r"^SKIPPED \[(\d+)\] \S+: (.+)$", output, re.MULTILINE):
            self.reasons[reason] += int(number)


def readme_commands(readme: str) -> list[str]:
    """The commands of the README's first block that begins with `make`, to the letter."""
    block = re.search(r"^```\n(make .*?)^```", readme, re.MULTILINE | re.DOTALL)
    lines = block[1].splitlines() if block else []
    return [line.partition("#")[0].strip() for line in lines]


def run_leg(leg: Leg) -> Result:
    """Run a leg to its end. Whatever becomes of it is in the result."""
    result, began = Result(leg), time.monotonic()
    path = LOGS / f"{leg.name}.log"
    with path.open("w+") as log:
        try:
            _tell(log, f"begins; all that it prints is in {path}")
            if leg.suite is None:
                _run_here(leg, log, result)
            else:
                _run_in_container(leg, leg.suite, log, result)
            if lacking := supported.missing(leg.versions, result.versions.split(", ")):
                raise LegFailed(f"{', '.join(lacking)} should have been there")
        except (LegFailed, ContainerError, programs.MissingProgram, OSError) as error:
            result.failure = str(error)
        except subprocess.TimeoutExpired as error:
            result.failure = f"{error.cmd} did not end within {error.timeout:g} s"
        _tell(log, f"FAILED: {result.failure}" if result.failure else "passed")
        log.seek(0)
        result.take_tests(log.read())
    result.seconds = time.monotonic() - began
    return result


def _run_here(leg: Leg, log: IO[str], result: Result) -> None:
    make = programs.path("make")
    for target, *variables in (("test",), ("django-suite",), ("ecosystem", "SHORT=1")):
        words = [make, target, f"PYTHON={leg.python}", *variables]
        _tell(log, " ".join(words))
        with _own_group(words, log) as process:
            code = process.wait(TEST_TIMEOUT_S)
        if target == "test":
            python = ROOT / ".venv" / leg.python.removeprefix("python") / "bin" / "python"
            words = [str(python), str(ROOT / "tools" / "supported.py")]
            done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
            result.versions = done.stdout.strip()
        if code:
            raise LegFailed(f"make {target} ended with code {code}")


@contextlib.contextmanager
def _own_group(words: list[str], log: IO[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    _groups.add(process.pid)
    try:
        yield process
    finally:
        _groups.discard(process.pid)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)


_groups: set[int] = set()  # of the commands that run on this machine itself
_image_lock = threading.Lock()  # two legs of one suite make its image once


def _run_in_container(leg: Leg, suite: str, log: IO[str], result: Result) -> None:
    with _image_lock:
        containers.image(suite)
    name = f"fullhouse-{leg.name}-{os.getpid()}"
    with Container(suite, name) as container, tempfile.TemporaryDirectory(prefix="fullhouse-clone-") as folder:
        clone = Path(folder, "fullhouse")
        words = [programs.path("git"), "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone)]
        subprocess.run(words, check=True, timeout=120, stdout=log, stderr=log)
        for user in ("ada", "bob"):
            container.copy(clone, user)
        if leg.packages:
            _tell(log, f"installs {' '.join(leg.packages)}")
            install = "DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends"
            if container.run(f"{install} {' '.join(leg.packages)}", log):
                raise LegFailed(f"apt-get could not install {' '.join(leg.packages)}")
        try:
            if leg.name == "trixie":
                _fresh(container, log)
            else:
                chosen = f" PYTEST='{' '.join(leg.tests)}'" if leg.tests else ""
                _make(container, f"make test PYTHON={leg.python}{chosen}", log)
        finally:
            asked = "$(echo .venv/*/bin/python) tools/supported.py"
            with contextlib.suppress(ContainerError):
                result.versions = container.checked(f"cd /home/ada/fullhouse && {asked}", "ada").strip()


def _fresh(container: Container, log: IO[str]) -> None:
    """What the README promises to a new user, with and without the right to install."""
    commands = readme_commands((ROOT / "README.md").read_text())
    for command in commands:
        _refused(container, command, log)
    for command in commands:
        if command.startswith("make demo"):
            _demo(container, command, log, FETCH)
        else:
            _make(container, command, log)
    _demo(container, commands[0], log, BROWSER)  # the tests have installed a browser


def _make(container: Container, command: str, log: IO[str]) -> None:
    _tell(log, f"ada: {command}")
    code = container.run(command, log, "ada", "/home/ada/fullhouse", TEST_TIMEOUT_S)
    if code:
        raise LegFailed(f"{command} ended with code {code}")


def _refused(container: Container, command: str, log: IO[str]) -> None:
    """One who may not install is told what to install, in words that root can run."""
    _tell(log, f"bob: {command}")
    with tempfile.TemporaryFile("w+") as said:
        code = container.run(command, said, "bob", "/home/bob/fullhouse")
        said.seek(0)
        output = said.read()
    log.write(output)
    advice = re.search(r"^  sudo apt-get install ([\w .+-]+)$", output, re.MULTILINE)
    if not code or advice is None:
        raise LegFailed(f"{command}, by one who may not install, ended with code {code} and no advice")
    container.checked(f"apt-get install --simulate --no-remove {advice[1]}")


def _demo(container: Container, command: str, log: IO[str], look: str) -> None:
    """Start the demo, look at its page, and stop it with Ctrl-C."""
    _tell(log, f"ada: {command}, seen by {look.split()[0]}")
    log.flush()
    began = os.fstat(log.fileno()).st_size
    process = container.start(f"echo $$ > {GROUP}; {command}", log, "ada", "/home/ada/fullhouse")
    url = None
    for _ in range(DEMO_TIMEOUT_S * 5):
        if process.poll() is not None:
            raise LegFailed(f"{command} ended with code {process.returncode} instead of serving")
        said = Path(log.name).read_bytes()[began:].decode(errors="replace")
        if url := re.search(r"^ +address +(http://\S+)$", said, re.MULTILINE):
            break
        time.sleep(0.2)
    else:
        raise LegFailed(f"{command} named no address within {DEMO_TIMEOUT_S} s")
    page = container.checked(f"{look} {url[1]}", "ada", 120)
    if lacking := [text for text in SHOWN if text not in page]:
        raise LegFailed(f"{command}: its page, seen by {look.split()[0]}, lacks {lacking}")
    container.interrupt(GROUP)
    process.wait(STOP_TIMEOUT_S)


def _tell(log: IO[str], words: str) -> None:
    """Say what begins, in the log and to those who wait."""
    print(f"\n== {words}", file=log, flush=True)
    print(f"{time.strftime('%H:%M:%S')} {Path(log.name).stem}: {words}", flush=True)


def summary(results: list[Result]) -> str:
    total: Counter[str] = sum((result.tests for result in results), Counter())
    failed = sum(max(result.failed, bool(result.failure)) for result in results)
    closing = f"{total['passed']} passed, {failed} failed, {total['skipped']} skipped"
    return "\n".join([*(result.line() for result in results), closing])


def _stop(signum: int, _frame: FrameType | None) -> None:
    """Containers go with our end of their input; the commands on this machine are sent away."""
    for group in _groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGTERM)
    print(f"matrix: stopped by {signal.Signals(signum).name}", file=sys.stderr, flush=True)
    os._exit(128 + signum)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the README's commands on every supported combination.")
    names = {leg.name: leg for leg in LEGS}
    parser.add_argument("legs", nargs="*", metavar="LEG", help=f"{', '.join(names)} (default: all)")
    chosen = parser.parse_args().legs or list(names)
    if unknown := set(chosen) - set(names):
        parser.error(f"no leg is called {', '.join(sorted(unknown))}: choose from {', '.join(names)}")
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _stop)
    legs = [names[name] for name in chosen]
    LOGS.mkdir(parents=True, exist_ok=True)
    try:
        if any(leg.suite for leg in legs):
            containers.install_programs()
            containers.remove_orphans()
    except (ContainerError, programs.MissingProgram, OSError) as error:
        print(f"matrix: no containers here: {error}", file=sys.stderr)  # each leg that needs one fails by itself
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        results = list(pool.map(run_leg, legs))
    for result in results:
        if result.failure:
            print(f"\n======== {result.leg.name}\n{(LOGS / f'{result.leg.name}.log').read_text()}")
    print(summary(results))
    return 1 if any(result.failure for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
