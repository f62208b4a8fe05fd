"""Containers for tests, where podman can run them."""

import subprocess
from pathlib import Path

import pytest

import containers
import programs

IMAGE = "localhost/fullhouse-trixie"
BUILD_S = 250


def require_base_image() -> None:
    """Skip the test, and say why, where there is no podman, or no image to start from."""
    if programs.find("podman") is None or programs.find("runc") is None:
        pytest.skip("podman or runc is not installed: make fresh installs them")
    if containers._podman(["image", "exists", IMAGE]).returncode:
        pytest.skip("podman has no base image: make fresh makes one")


def build(folder: Path, name: str, *words: str) -> None:
    """Build the image of a folder with a Containerfile, by the network and the certificates of this machine."""
    certificates = [word for word in containers._certificates() if word.startswith("--volume=")]
    options = ["--format=docker", "--pull=never", "--network=host", *certificates, *containers.limits()]
    command = [*containers._command(), "build", f"--tag={name}", *options, *words, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
