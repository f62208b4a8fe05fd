"""Throw-away containers of a Debian suite, by podman, with the network, mirror and certificates of this machine.

    with Container("trixie", "fullhouse-trixie-17") as container:
        container.run("apt-get install nginx", log)

There is no registry of images: `debootstrap` makes one from the mirror that apt uses here, and podman keeps it for
some days. A container lives as long as its standard input, which this process holds: it goes with us, whatever ends us.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

import environment
import programs

LABEL = "fullhouse.owner"  # its value: the process that the container belongs to
IMAGE_LIFE_S = 3 * 24 * 3600
COMMAND_TIMEOUT_S = 600
BASE = ("ca-certificates", "curl", "git", "make", "procps", "python3", "sudo")  # what a user's machine has anyway
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
USER_PATH = "/usr/local/bin:/usr/bin:/bin"
CERTIFICATES = "/etc/machine-certificates.crt"  # where this machine's bundle is in a container
CERTIFICATE_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PIP_SETTINGS = ("index-url", "proxy", "trusted-host", "default-timeout", "timeout", "retries")


class ContainerError(Exception):
    """Containers cannot be made here; the message says why."""


def install_programs() -> None:
    """What this module starts, from Debian where it is missing."""
    missing = sorted(programs.missing_packages("containers"))
    if missing and (refusal := environment._install_packages(missing)):
        raise ContainerError(refusal)


def remove_orphans() -> None:
    """The containers of processes that live no more: both were killed before they could clean up."""
    listed = _output(["container", "list", "--all", "--filter", f"label={LABEL}", "--format", "json"])
    for container in json.loads(listed):
        if not Path("/proc", container["Labels"][LABEL]).exists():
            _output(["rm", "--force", container["Id"]])


def image(suite: str) -> str:
    """The name of the base image, made if there is none or it is old."""
    name = f"localhost/fullhouse-{suite}"
    if _podman(["image", "exists", name]).returncode == 0:
        made = int(_output(["image", "inspect", "--format", "{{.Created.Unix}}", name]))
        if time.time() - made < IMAGE_LIFE_S:
            return name
    with tempfile.TemporaryDirectory(prefix=f"fullhouse-{suite}-") as folder:
        base = Path(folder, "base")
        words = [programs.path("debootstrap"), "--variant=minbase", f"--include={','.join(BASE)}"]
        _checked([*words, suite, str(base), _mirror()], {"PATH": SYSTEM_PATH})
        # A mirror may be behind the date that its index bears. Its signatures are checked all the same.
        settings = ['Acquire::Check-Valid-Until "false";', *_apt_proxies()]
        (base / "etc/apt/apt.conf.d/90machine").write_text("\n".join(settings) + "\n")
        archive = Path(folder, "base.tar")
        _checked([programs.path("tar"), "-C", str(base), "-cf", str(archive), "."])
        _podman(["image", "rm", name])  # the old one, unless a container runs on it
        _output(["import", "--change", f"ENV PATH={SYSTEM_PATH}", str(archive), name])
    return name


class Container:
    """A running container. `ada` may use sudo in it without a password, `bob` may not."""

    def __init__(self, suite: str, name: str) -> None:
        self.suite, self.name = suite, name

    def __enter__(self) -> Container:
        words = ["run", "--rm", "--interactive", "--init", "--shm-size=6g", f"--name={self.name}", *limits()]
        words += [f"--label={LABEL}={os.getpid()}", *_certificates(), *_pip_settings()]
        base = image(self.suite)
        # In a session of its own: Ctrl-C ends us, and our end closes its input.
        self._process = subprocess.Popen(
            [*_command(), *words, base, "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        )
        try:
            self._wait_running()
            self.checked("useradd --create-home --shell /bin/bash ada && useradd --create-home --shell /bin/bash bob")
            self.checked("echo 'ada ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/ada && apt-get -qq update")
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def remove(self) -> None:
        assert self._process.stdin is not None  # noqa: S101  for the type checker
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        if self._process.poll() is None or _podman(["container", "exists", self.name]).returncode == 0:
            _podman(["rm", "--force", self.name])
            self._process.wait(60)

    def copy(self, folder: Path, user: str) -> None:
        """Put a folder into the user's home, as the user's own."""
        there = f"/home/{user}/{folder.name}"
        _output(["cp", str(folder), f"{self.name}:{there}"])
        self.checked(f"chown -R {user}:{user} {there}")

    def start(self, script: str, log: IO[str], user: str = "root", folder: str = "/") -> subprocess.Popen[str]:
        """Start a shell script; all that it prints goes to `log`."""
        home, path = ("/root", SYSTEM_PATH) if user == "root" else (f"/home/{user}", USER_PATH)
        variables = {"HOME": home, "USER": user, "PATH": path, "LANG": "C.UTF-8"}
        words = [f"--user={user}", f"--workdir={folder}", *(f"--env={name}={text}" for name, text in variables.items())]
        return subprocess.Popen(
            [*_command(), "exec", *words, self.name, "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, script: str, log: IO[str], user: str = "root", folder: str = "/", timeout_s: float = 600) -> int:
        """Run a script to its end and return its exit code."""
        return self.start(script, log, user, folder).wait(timeout_s)

    def checked(self, script: str, user: str = "root", timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Run a script and return what it printed; raise ContainerError where it fails."""
        with tempfile.TemporaryFile("w+") as log:
            code = self.run(script, log, user, timeout_s=timeout_s)
            log.seek(0)
            output = log.read()
        if code:
            raise ContainerError(f"{script!r} failed with code {code} in {self.suite}:\n{output}")
        return output

    def interrupt(self, group_file: str) -> None:
        """Ctrl-C for the process group whose number is in the file."""
        self.checked(f"kill -s INT -- -$(cat {group_file})")

    def _wait_running(self) -> None:
        for _ in range(600):
            if self._process.poll() is not None:
                raise ContainerError(f"podman cannot run a container of {self.suite}: its reason is above")
            asked = _podman(["container", "inspect", "--format", "{{.State.Running}}", self.name])
            if asked.stdout.strip() == "true":
                return
            time.sleep(0.1)
        raise ContainerError(f"the container of {self.suite} did not start within 60 s")


def limits() -> list[str]:
    """podman's options for what a container may have at most: no more than this machine lets us give."""
    return [
        f"--ulimit={name}={hard}:{hard}"
        for name, kind in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC))
        if (hard := min(resource.getrlimit(kind)[1], 20_000)) > 0
    ]


def _command() -> list[str]:
    return [programs.path("podman"), "--runtime", programs.path("runc")]


def _podman(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*_command(), *words], capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)


def _output(words: list[str]) -> str:
    done = _podman(words)
    if done.returncode:
        raise ContainerError(f"podman {words[0]} failed with code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _checked(command: list[str], variables: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, **(variables or {})},
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        end = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise ContainerError(f"{command[0]} failed with code {done.returncode}: {end}")
    return done.stdout


def _mirror() -> str:
    """The mirror of Debian that apt uses on this machine."""
    release = Path("/etc/os-release").read_text()
    codename = re.search(r"^VERSION_CODENAME=(\w+)", release, re.MULTILINE)
    uris = _checked([programs.path("apt-get"), "update", "--print-uris"])
    found = re.search(rf"'([^']+)/dists/{codename[1] if codename else 'stable'}/(?:In)?Release'", uris)
    if found is None:
        raise ContainerError("apt names no mirror of Debian on this machine, so no other suite can be had")
    return found[1]


def _apt_proxies() -> list[str]:
    """The lines of apt's own configuration that say through which proxy it goes."""
    dumped = _checked([programs.path("apt-config"), "dump"])
    return [line for line in dumped.splitlines() if re.match(r"Acquire::https?::Proxy", line)]


def _certificates() -> list[str]:
    """Trust whom this machine trusts."""
    named = _pip_configuration().get("cert") or os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
    if not Path(named).is_file():
        return []
    return [
        f"--volume={named}:{CERTIFICATES}:ro",
        *(f"--env={variable}={CERTIFICATES}" for variable in CERTIFICATE_VARIABLES),
    ]


def _pip_settings() -> list[str]:
    """How pip reaches its index, as variables. Files of this machine mean nothing in a container."""
    found = {name: text for name, text in _pip_configuration().items() if name in PIP_SETTINGS}
    return [f"--env=PIP_{name.upper().replace('-', '_')}={text}" for name, text in found.items()]


def _pip_configuration() -> dict[str, str]:
    """pip's settings on this machine, from its files and variables; the more specific comes last and wins."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, timeout=60, check=False
    )
    pairs = (line.partition("=") for line in listed.stdout.splitlines())
    variables = ((name, os.environ.get(f"PIP_{name.upper().replace('-', '_')}")) for name in ("cert", *PIP_SETTINGS))
    return {  # the variables also where this Python has no pip
        **{name.rpartition(".")[2]: text.strip("'") for name, _, text in pairs},
        **{name: text for name, text in variables if text},
    }
