"""Completions: callbacks that are called with a result, once. One that raises does not affect the others.

A completion that raises must have had no effect. It is called once more, with an error, so that its caller gets an
answer in any case.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

import structlog

log = structlog.get_logger(__name__)

T = TypeVar("T")


def complete_all(calls: Iterator[tuple[Callable[[T], None], T]], failed: Callable[[], T]) -> None:
    """Call each completion with its result. One that raises is called again with `failed()`.

    Raises only KeyboardInterrupt and SystemExit, after all calls. The outer loop resumes the inner one after a
    completion that raised, so `try` costs nothing for the others.
    """
    leaving: BaseException | None = None
    complete: Callable[[T], None] | None = None
    while True:
        try:
            for complete, result in calls:
                complete(result)
            break
        except BaseException as failure:  # noqa: BLE001 - the remaining completions must be called in any case
            if ends_the_process(failure):
                leaving = failure
            report("a completion failed", failure)
        try:
            if complete is not None:
                complete(failed())
        except BaseException as failure:  # noqa: BLE001 - as above
            report("a completion failed again with the error", failure)
    if leaving is not None:
        raise leaving


def ends_the_process(failure: BaseException) -> bool:
    """Whether the exception must be raised again after all completions have been called."""
    return isinstance(failure, KeyboardInterrupt | SystemExit)


def report(event: str, failure: BaseException, **facts: object) -> None:
    """Log a fault. Never raises, because the code after a fault must run even if the log cannot be written."""
    with suppress(BaseException):
        log.error(event, exc_info=failure, **facts)
