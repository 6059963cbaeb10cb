"""The log: its format, its target, and the events that belong to no other part.

One event is one line on standard error, as text or as JSON.
"""

import asyncio
import io
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TextIO, cast

import structlog

from leasehold.completions import report
from leasehold.process.streams import STANDARD_ERROR
from leasehold.server.config import Settings

log = structlog.get_logger(__name__)


class _StandardError(io.TextIOBase):
    """Standard error whose `write` never raises.

    A log line that cannot be written (full disk, closed pipe) must not interrupt what is being logged. Otherwise a
    failed log line could interrupt the handling of a failed write, and all later writes would wait for ever.
    """

    def write(self, text: str, /) -> int:
        with suppress(OSError):
            os.write(STANDARD_ERROR, text.encode("utf-8", "backslashreplace"))
        return len(text)


def configure_log(settings: Settings) -> None:
    """Set format and level for the whole process. Call it before the first event is logged."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    renderer: structlog.typing.Processor
    if settings.log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _StandardError())),
        cache_logger_on_first_use=True,
    )


def log_unhandled(_loop: asyncio.AbstractEventLoop, context: Mapping[str, object]) -> None:
    """The event loop's exception handler: log an exception that no caller has handled."""
    failure = context.get("exception")
    if isinstance(failure, BaseException):
        report("unhandled exception in the event loop", failure, reason=context["message"])
    else:
        log.error("the event loop reports a fault", reason=context["message"])


def warn_of_ignored(variables: Mapping[str, str]) -> None:
    """Log the environment variables that are ignored. `variables`: the reason for each."""
    for variable, reason in variables.items():
        log.warning("a variable is ignored", variable=variable, reason=reason)


def warn_of_lost_ready_line(error: OSError) -> None:
    """Log that the program that started the service cannot get the ready line."""
    reason = "the pipe is full" if isinstance(error, BlockingIOError) else error.strerror
    log.warning("the ready line cannot be printed to standard output", reason=reason)
