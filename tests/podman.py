"""Containers for tests, where podman can run them."""

import pytest

import containers
import programs

IMAGE = "localhost/fullhouse-trixie"


def require_base_image() -> None:
    """Skip the test, and say why, where there is no podman, or no image to start from."""
    if programs.find("podman") is None or programs.find("runc") is None:
        pytest.skip("podman or runc is not installed: make fresh installs them")
    if containers._podman(["image", "exists", IMAGE]).returncode:
        pytest.skip("podman has no base image: make fresh makes one")
