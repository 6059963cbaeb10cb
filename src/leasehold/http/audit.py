"""What the log says of access: see `printable` for what it may hold of what callers sent."""

from typing import Final

MAX_SHOWN_CHARACTERS: Final = 128


def printable(text: str) -> str:
    """A text from outside, for the log: short, ASCII, and without anything that a terminal or a line obeys."""
    shown = text[:MAX_SHOWN_CHARACTERS].encode("ascii", "backslashreplace").decode()
    return shown if shown.isprintable() else ascii(shown)
