"""What the value of an option may be: read from text, checked, and named in an error and in a help text."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Kind:
    """How values of one type are read from text, checked, and named in an error and in a help text."""

    description: str
    from_text: Callable[[str], Any]
    check: Callable[[Any], Any]
    metavar: str
    repeatable: bool = False
    is_flag: bool = False


def _reject(value: object) -> Any:
    raise ValueError(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) and value else _reject(value)


def whole_number(minimum: int) -> Kind:
    def check(value: object) -> int:
        ok = isinstance(value, int) and not isinstance(value, bool) and value >= minimum
        return value if ok and isinstance(value, int) else _reject(value)

    return Kind(f"a whole number of at least {minimum}", lambda text: check(int(text)), check, "N")


def whole_number_or(minimum: int, word: str) -> Kind:
    number = whole_number(minimum)

    def check(value: object) -> int | str:
        return word if value == word else number.check(value)

    def from_text(text: str) -> int | str:
        return word if text == word else number.from_text(text)

    return Kind(f"{number.description}, or {word!r}", from_text, check, f"N|{word}")


def positive_number() -> Kind:
    def check(value: object) -> float:
        ok = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
        return float(value) if ok and isinstance(value, int | float) else _reject(value)

    return Kind("a number above 0", lambda text: check(float(text)), check, "N")


def share() -> Kind:
    def check(value: object) -> float:
        ok = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1
        return float(value) if ok and isinstance(value, int | float) else _reject(value)

    return Kind("a number above 0, 1 at the most", lambda text: check(float(text)), check, "N")


def one_of(*choices: str) -> Kind:
    def check(value: object) -> str:
        return value if isinstance(value, str) and value in choices else _reject(value)

    return Kind("one of " + ", ".join(choices), check, check, "|".join(choices))


def _memory_size(text: str) -> int:
    units = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
    number, unit = text.strip().lower().removesuffix("ib").removesuffix("b"), 1
    if number and number[-1] in units:
        number, unit = number[:-1], units[number[-1]]
    return _whole_size(int(float(number) * unit))


def _whole_size(value: object) -> int:
    if isinstance(value, str):
        return _memory_size(value)
    ok = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return value if ok and isinstance(value, int) else _reject(value)


def _truth(text: str) -> bool:
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    return False if word in ("0", "false", "no", "off") else _reject(text)


def _bool(value: object) -> bool:
    return value if isinstance(value, bool) else _reject(value)


def _text_list(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if not isinstance(value, list | tuple) or not value:
        _reject(value)
    return tuple(_text(part) for part in value)


def _addresses(value: Any) -> tuple[str, ...]:
    return tuple(_address(text) for text in _text_list(value))


def _address(text: str) -> str:
    if text.startswith("unix:"):
        return text if text != "unix:" else _reject(text)
    _, colon, port = text.rpartition(":")
    return text if colon and port.isascii() and port.isdecimal() and int(port) < 1 << 16 else _reject(text)


_LOOPBACKS = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104  by the address for all interfaces


def seen_here(address: str) -> str:
    """The address by which this machine itself reaches what listens on `address`."""
    host, _, port = address.rpartition(":")
    return f"{_LOOPBACKS[host]}:{port}" if host in _LOOPBACKS else address


def _one_address(value: Any) -> str:
    return _address(_text(value))


def _pairs_from_text(text: str) -> Mapping[str, str]:
    return dict(_pair(word) for word in shlex.split(text))


def _pair(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    return (name, value) if name and equals else _reject(word)


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        _reject(value)
    return MappingProxyType(dict(value))


def _url_path(value: object) -> str:
    return value if isinstance(value, str) and value.startswith("/") else _reject(value)


def _url_paths(value: Any) -> tuple[str, ...]:
    return tuple(_url_path(part) for part in _text_list(value))


def _times_by_path(value: Any) -> Mapping[str, float]:
    check = positive_number().check
    return MappingProxyType({_url_path(path): check(seconds) for path, seconds in _mapping(value).items()})


TEXT = Kind("a text that is not empty", _text, _text, "TEXT")
PATH = Kind("the path of a file", _text, _text, "FILE")
URL_PATH = Kind("a path that begins with /", _url_path, _url_path, "/PATH")
SWITCH = Kind("True or False", _truth, _bool, "", is_flag=True)
MEMORY = Kind("a size in bytes, or with a unit such as 512M or 8G", _memory_size, _whole_size, "SIZE")
ADDRESSES = Kind(
    "HOST:PORT (port 0 to 65535) or unix:PATH, or several of them in a list or with commas",
    _addresses,
    _addresses,
    "ADDRESS",
    repeatable=True,
)
ADDRESS = Kind("HOST:PORT (port 0 to 65535) or unix:PATH", _one_address, _one_address, "ADDRESS")
FOLDERS = Kind("a list of folders, or one text with commas", _text_list, _text_list, "FOLDER", repeatable=True)
ALIASES = Kind("a list of aliases, or one text with commas", _text_list, _text_list, "ALIAS", repeatable=True)
PAIRS = Kind("NAME=VALUE pairs (a dict in settings)", _pairs_from_text, _mapping, "NAME=VALUE", repeatable=True)
COMMANDS = Kind(
    "NAME='COMMAND' pairs (a dict in settings)", _pairs_from_text, _mapping, "NAME='COMMAND'", repeatable=True
)
TIMES_BY_PATH = Kind(
    "/PATH=SECONDS pairs, numbers above 0 (a dict in settings)",
    lambda text: _times_by_path({name: float(value) for name, value in _pairs_from_text(text).items()}),
    _times_by_path,
    "/PATH=SECONDS",
    repeatable=True,
)
URL_PATHS = Kind(
    "a list of paths that begin with /, or one text with commas", _url_paths, _url_paths, "/PATH", repeatable=True
)
