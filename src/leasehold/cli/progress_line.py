"""One line on the terminal that shows how far a command has come. It is removed at the end."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from leasehold.process.streams import STANDARD_ERROR

if TYPE_CHECKING:
    from leasehold.progress import Figures

SHOW_SECONDS: Final = 0.2
_CLEAR: Final = "\r\x1b[K"
"""To the beginning of the line, and erase it (ECMA-48, EL)."""


@contextmanager
def shown(figures: "Figures") -> Iterator[None]:
    """Show the figures of a `Progress` while the block runs, if standard error is a terminal. Needs an event loop."""
    if not sys.stderr.isatty():
        yield
        return

    import asyncio

    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def show() -> None:
        nonlocal timer
        timer = loop.call_later(SHOW_SECONDS, show)
        _write(_line(figures))

    show()
    try:
        yield
    finally:
        timer.cancel()
        _write(_CLEAR)


@contextmanager
def shown_by_thread(figures: "Figures") -> Iterator[None]:
    """The same without an event loop: a thread shows the figures."""
    if not sys.stderr.isatty():
        yield
        return
    is_over = threading.Event()

    def show() -> None:
        while not is_over.is_set():
            _write(_line(figures))
            is_over.wait(SHOW_SECONDS)

    thread = threading.Thread(target=show, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        _write(_CLEAR)


def _line(figures: "Figures") -> str:
    return _CLEAR + ", ".join(f"{_prefix(name)}{figure}" for name, figure in figures().items())


def _prefix(figure: str) -> str:
    return "" if figure == "step" else f"{figure} "


def _write(text: str) -> None:
    """A terminal that is gone must not end the command."""
    with suppress(OSError):
        os.write(STANDARD_ERROR, text.encode())
