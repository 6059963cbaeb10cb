"""Completions: what is called with a result, once. And how many of them are called although one may raise.

A completion that raises must have done nothing: it is then called once more, with an error. So whoever waits behind it
hears something, whatever went wrong.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

import structlog

log = structlog.get_logger(__name__)

T = TypeVar("T")


def complete_all(calls: Iterator[tuple[Callable[[T], None], T]], failed: Callable[[], T]) -> None:
    """Call each completion with its result; one that raises again, with `failed()`. Raises only to end the process.

    A loop around a loop: the inner one goes on behind the completion that raised, and costs nothing while none does.
    """
    leaving: BaseException | None = None
    complete: Callable[[T], None] | None = None
    while True:
        try:
            for complete, result in calls:
                complete(result)
            break
        except BaseException as failure:  # noqa: BLE001 - the others must hear of their results all the same
            if ends_the_process(failure):
                leaving = failure
            report("a completion failed", failure)
        try:
            if complete is not None:
                complete(failed())
        except BaseException as failure:  # noqa: BLE001 - as above
            report("a completion failed to tell of its failure", failure)
    if leaving is not None:
        raise leaving


def ends_the_process(failure: BaseException) -> bool:
    """Whether it must be raised again once everybody has been told."""
    return isinstance(failure, KeyboardInterrupt | SystemExit)


def report(event: str, failure: BaseException, **facts: object) -> None:
    """Log a fault. Never raises: what goes on after a fault must go on without a log, too."""
    with suppress(BaseException):
        log.error(event, exc_info=failure, **facts)
