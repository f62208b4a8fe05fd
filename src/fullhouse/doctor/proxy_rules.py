"""nginx in front, as its files say: what disagrees with the site's options. Pure but for `nginx_files`."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from fullhouse.doctor.finding import Finding

FOLDERS = ("etc/nginx/conf.d/*.conf", "etc/nginx/sites-enabled/*")
_BODY = re.compile(r"^\s*client_max_body_size\s+(\d+)([kKmMgG]?)\s*;", re.MULTILINE)
_READ = re.compile(r"^\s*proxy_read_timeout\s+(\d+)(m|s)?\s*;", re.MULTILINE)
_KEEP = re.compile(r"^\s*keepalive_timeout\s+(\d+)(m|s)?\s*;", re.MULTILINE)
_UPSTREAM = re.compile(r"upstream\s+\S+\s*\{([^}]*)\}")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
# nginx's own values where a file has none.
BODY, READ_S, UPSTREAM_KEEPALIVE_S = 1 << 20, 60, 60


def nginx_files(addresses: Sequence[str], root: Path = Path("/")) -> dict[Path, str]:
    """The files of this machine's nginx that name one of the site's addresses, without their comments."""
    found: dict[Path, str] = {}
    for pattern in FOLDERS:
        for path in sorted(root.glob(pattern)):
            with suppress(OSError):
                text = re.sub(r"#.*", "", path.read_text(errors="replace"))
                if any(address in text for address in addresses):
                    found[path] = text
    return found


def of_nginx(
    path: Path, text: str, *, max_body: int | None, timeout_s: float | None, keepalive_s: int
) -> Iterator[Finding]:
    """timeout_s: how long a request may take; None: any time."""
    body = _size(text)
    if body and (max_body is None or body < max_body):
        ours = "unlimited" if max_body is None else f"{max_body >> 20} MiB"
        yield Finding(
            "W401",
            f"{path} refuses bodies above {body >> 20} MiB with 413, and max_body is {ours}.",
            "Set client_max_body_size and max_body to the same.",
        )
    read_s = _seconds(_READ, text, READ_S)
    if timeout_s is not None and read_s < timeout_s:
        yield Finding(
            "W402",
            f"{path}: nginx answers 504 after {read_s} s, and request_timeout is {timeout_s:g} s: the request goes "
            "on for nobody.",
            f"Set proxy_read_timeout above {timeout_s:g} s.",
        )
    upstream = " ".join(_UPSTREAM.findall(text))
    idle_s = _seconds(_KEEP, upstream.replace(";", ";\n"), UPSTREAM_KEEPALIVE_S)
    if re.search(r"\bkeepalive\s+\d", upstream) and idle_s >= keepalive_s:
        yield Finding(
            "W403",
            f"{path}: nginx keeps idle connections for {idle_s} s, and the site closes them after {keepalive_s} s "
            "(keepalive): a request sent just then gets 502.",
            f"Set keepalive_timeout below {keepalive_s} s in the upstream, or raise keepalive.",
        )


def _size(text: str) -> int:
    """0: unlimited."""
    found = _BODY.search(text)
    return BODY if found is None else int(found[1]) * _UNITS[found[2].lower()]


def _seconds(pattern: re.Pattern[str], text: str, default: int) -> int:
    found = pattern.search(text)
    return default if found is None else int(found[1]) * (60 if found[2] == "m" else 1)
