"""Write the terminal output into the documents: `make captures`.

Every block that begins with ```console is a session. Its `$ ` lines are run, one after the other, in the folder of a
new project `mysite` on a private MariaDB, and their output replaces what stood below them. Each document has a project
of its own. Once `fullhouse start` has run, a few clients ask the site until the document is done.
"""

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import programs
from private_servers import PrivateServer, mariadb

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
COMMAND_TIMEOUT_S = 120
DOCUMENT_TIMEOUT_S = 600
ANSWER_TIMEOUT_S = 5
SITE = "http://127.0.0.1:8000/"
CLIENTS = 8
SERVED_S = 10  # before the status is asked, so that there is one
SETTINGS = """
ALLOWED_HOSTS = ["*"]
DATABASES = {{
    "default": {{
        "ENGINE": "django.db.backends.mysql",
        "HOST": "{server.host}",
        "PORT": "{server.port}",
        "NAME": "{server.database}",
        "USER": "{server.user}",
        "PASSWORD": "{server.password}",
    }}
}}
"""
URLS = """
import time

from django.db import connection
from django.http import HttpResponse
from django.urls import path


def home(request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    time.sleep(0.02)
    return HttpResponse("hello")


urlpatterns = [path("", home)]
"""


class Session:
    """A shell in the folder of a new project."""

    def __init__(self, folder: Path, server: PrivateServer) -> None:
        self.folder = folder
        runtime = folder.parent / "run"
        runtime.mkdir(mode=0o700)
        self._environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder.parent),
            "LANG": "C.UTF-8",
            "FULLHOUSE_RUNTIME_FOLDER": str(runtime),
        }
        folder.mkdir()
        self.run("django-admin startproject mysite .")
        with (folder / "mysite" / "settings.py").open("a") as settings:
            settings.write(SETTINGS.format(server=server))
        (folder / "mysite" / "urls.py").write_text(URLS)

    def run(self, command: str) -> str:
        done = subprocess.run(
            [programs.path("sh"), "-c", command],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        return done.stdout


@contextmanager
def asked() -> Iterator[threading.Event]:
    """A few clients ask the site on port 8000 once the event is set, until the block ends."""
    started, ended = threading.Event(), threading.Event()

    def ask() -> None:
        started.wait(DOCUMENT_TIMEOUT_S)
        while not ended.is_set():
            with (
                suppress(OSError),
                urllib.request.urlopen(SITE, timeout=ANSWER_TIMEOUT_S) as answer,
            ):
                answer.read()

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield started
    finally:
        ended.set()
        started.set()
        for thread in threads:
            thread.join(2 * ANSWER_TIMEOUT_S)


def captured(text: str, session: Session) -> str:
    """The document with the output of its commands as it is now."""

    def run_block(block: re.Match[str]) -> str:
        lines = []
        for command in re.findall(r"^\$ (.*)$", block[1], re.MULTILINE):
            if command.startswith("fullhouse status"):
                time.sleep(SERVED_S)
            lines += [f"$ {command}", *session.run(command).rstrip().splitlines()]
            if command.startswith("fullhouse start"):
                started.set()
        return "```console\n" + "\n".join(line.rstrip() for line in lines) + "\n```"

    with asked() as started:
        return BLOCK.sub(run_block, text)


def main() -> None:
    documents = [Path(name) for name in sys.argv[1:]] or [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for document in documents:
        text = document.read_text()
        if not BLOCK.search(text):
            continue
        print(f"running the commands of {document}", flush=True)
        with tempfile.TemporaryDirectory() as folder, mariadb() as server:
            session = Session(Path(folder) / "mysite", server)
            try:
                document.write_text(captured(text, session))
            finally:
                session.run("fullhouse stop mysite")


if __name__ == "__main__":
    main()
