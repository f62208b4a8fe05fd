"""What only a tool needs: source distributions, and environments that add to what is installed here."""

import platform
import subprocess
import sys
import venv
from pathlib import Path

import django

BUILD = Path(__file__).resolve().parent.parent / "build" / "ecosystem"
TIMEOUT_S = 600.0


def overlay(name: str, needs: list[str]) -> Path:
    """The Python of an environment that has these requirements, and whatever is installed here."""
    place = BUILD / "environments" / f"{name}-{platform.python_version()}"
    needs = [*needs, f"django=={django.__version__}"]
    python, done, said = place / "bin" / "python", place / "needs", "\n".join(needs)
    if not done.exists() or done.read_text() != said:
        venv.create(place, clear=True, with_pip=False)
        (packages,) = place.glob("lib/python*/site-packages")
        (packages / "below.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
        _pip(["--python", str(python)], ["install", *needs])
        done.write_text(said)
    return python


def source_archive(name: str, version: str) -> Path:
    """The source distribution of a package."""
    downloaded = BUILD / "downloads" / f"{name}-{version}"
    if not downloaded.exists():
        what = ["--no-deps", "--no-binary", name, f"{name}=={version}"]
        _pip([], ["download", "--dest", str(downloaded), *what])
    (archive,) = downloaded.glob("*.tar.gz")
    return archive


def _pip(where: list[str], what: list[str]) -> None:
    command = [sys.executable, "-m", "pip", *where, "--quiet", "--disable-pip-version-check", *what]
    subprocess.run(command, check=True, timeout=TIMEOUT_S)
