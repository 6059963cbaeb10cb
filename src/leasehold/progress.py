"""How far a long step of a start or a stop has come, for the log.

The code that works only sets figures, on any thread. A timer of the event loop logs them. So the work needs no clock,
and a step that cannot say how far it has come is logged, too. To show another step, call `Progress.begin` where it
begins.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import structlog

log = structlog.get_logger(__name__)

REPORT_SECONDS: Final = 1.0
"""Until the first line of the log, and between two of them."""
BYTES: Final = "bytes"
_MB: Final = 1_000_000

Figures = Callable[[], Mapping[str, object]]


class Progress:
    """The current step. One thread sets it, and the event loop reads it, so a line may mix two moments."""

    __slots__ = ("_step", "_total", "_unit", "done")

    def __init__(self) -> None:
        self.begin("")

    def begin(self, step: str, total: int = 0, unit: str = BYTES) -> None:
        """A step of `total` units begins; 0 if its length is unknown. It sets `done` while it works."""
        self.done = 0
        self._step, self._total, self._unit = step, total, unit

    def counting_lines(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The same chunks. Sets `done` to the number of lines that were taken."""
        for chunk in chunks:
            yield chunk
            self.done += chunk.count(b"\n")

    def figures(self) -> Mapping[str, object]:
        """The step, what is done, and what is left."""
        if not self._total:
            return {"step": self._step}
        done = min(self.done, self._total)
        return {"step": self._step, "done": self._amount(done), "left": self._amount(self._total - done)}

    def _amount(self, number: int) -> str:
        return f"{number // _MB:,} MB" if self._unit == BYTES else f"{number:,} {self._unit}"


@contextmanager
def reported(event: str, figures: Figures) -> Iterator[None]:
    """Log `event` with its figures every REPORT_SECONDS while the block runs. A short block logs nothing."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def report() -> None:
        nonlocal timer
        timer = loop.call_later(REPORT_SECONDS, report)
        log.info(event, **figures())

    timer = loop.call_later(REPORT_SECONDS, report)
    try:
        yield
    finally:
        timer.cancel()
