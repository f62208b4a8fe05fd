"""How a text is written where a format has few ways for it."""

import shlex

from fullhouse.errors import ConfigurationError


def one_line(text: str, *, never: str = "") -> str:
    """Raises ConfigurationError for what the file's format has no way to write."""
    for character in ("\n", *never):
        if character in text:
            raise ConfigurationError(f"{text!r} cannot be written into that file: it has {character!r}. Rename it.")
    return text


def in_quotes(text: str) -> str:
    """For nginx and logrotate, where a path has more than the usual characters."""
    return f'"{text}"' if one_line(text, never='"$\\') != shlex.quote(text) else text
