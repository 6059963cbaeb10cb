"""Failures of the database: which are transient, and which errors and log lines they become.

No exception of asyncpg leaves the package. The details of PostgreSQL's errors and the messages of asyncpg are never
passed on, because both may quote keys and values.

SQLSTATEs: https://www.postgresql.org/docs/18/errcodes-appendix.html
"""

import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Final

import asyncpg
import structlog

from leasehold.errors import ServiceError, unavailable

log = structlog.get_logger(__name__)

FAILURES: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""All exceptions that asyncpg and the network raise. TimeoutError is an OSError; it is listed for clarity."""

REPORT_SECONDS: Final = 5.0
"""The minimum time between two log lines of one kind."""

_TRANSIENT_CLASSES: Final = (
    "08",  # connection
    "40",  # rolled back: deadlock, serialization
    "53",  # out of connections or memory
    "57",  # shut down, starting up, cancelled
)
_TRANSIENT_CODES: Final = (
    "25006",  # read only: the server is no longer the primary
    "25P03",  # idle in transaction for too long
    "26000",  # a prepared statement does not exist: a pooler switched to another session
    "42P05",  # a prepared statement exists already: the same reason
    "55P03",  # lock timeout
    "58000",  # system error
    "58030",  # I/O error
)
_PERMANENT_CODES: Final = (
    "40002",  # an integrity constraint
    "53100",  # disk full
    "53400",  # a limit of the configuration
)
DISK_FULL: Final = "53100"

_UNREACHABLE: Final = "the database cannot be reached now"
_MESSAGES: Final = {
    "25006": "no database that takes writes can be reached now",
    "40": "the database is too busy now",
    "53": "the database has no connections or memory left now",
    "55P03": "the database is too busy now",
}
"""By SQLSTATE or its class: the message for callers if the failure lasted too long."""


def sqlstate_of(failure: BaseException | None) -> str | None:
    return failure.sqlstate if isinstance(failure, asyncpg.PostgresError) else None


def is_transient(failure: BaseException) -> bool:
    """Whether the same operation may soon succeed on a new connection."""
    if isinstance(failure, asyncpg.InvalidCachedStatementError):
        return True  # a migration changed a table after the statement was prepared; any other 0A000 is permanent
    if isinstance(failure, asyncpg.PostgresError):
        code = failure.sqlstate or ""
        return code not in _PERMANENT_CODES and (code[:2] in _TRANSIENT_CLASSES or code in _TRANSIENT_CODES)
    return not isinstance(failure, asyncpg.ClientConfigurationError | asyncpg.DataError)


def is_refusal(failure: BaseException | None) -> bool:
    """Whether the database refused the operation and would refuse it again. Other operations may succeed."""
    return failure is not None and not is_transient(failure) and sqlstate_of(failure) != DISK_FULL


def as_service_error(failure: BaseException) -> ServiceError:
    """The error for a caller whose operation finally failed and stored nothing."""
    code = sqlstate_of(failure) or ""
    if code == DISK_FULL:
        return ServiceError("storage_full", "the database's disk is full; the change was not stored")
    if is_refusal(failure):
        return unavailable("the database refused the operation")
    return unavailable(_MESSAGES.get(code) or _MESSAGES.get(code[:2]) or _UNREACHABLE)


# At the start -----------------------------------------------------------------------------------------------------

_REASONS_BY_CODE: Final[Mapping[str, str]] = {
    "28": "PostgreSQL refused the user or the password",
    "3D000": "PostgreSQL has no such database",
    "57P03": "PostgreSQL is starting up or shutting down",
    "42501": "the user lacks a privilege: it must own the database or its schema",
    "53": "PostgreSQL has no connection, memory or disk space left",
}
"""By SQLSTATE or its class."""
_REASONS_BY_KIND: Final[Mapping[type[BaseException], str]] = {
    asyncpg.TargetServerAttributeNotMatched: "no host takes writes",
    socket.gaierror: "the host of PostgreSQL is unknown",
    TimeoutError: "PostgreSQL does not answer",
    ConnectionRefusedError: "nothing listens at the host and port of PostgreSQL",
    FileNotFoundError: "nothing listens at the socket of PostgreSQL",
}


def as_start_error(failure: BaseException) -> ServiceError:
    """The error for the operator when the store cannot be opened: one line, without the password."""
    is_of_tls = isinstance(failure, ssl.SSLError)  # some of these are a ValueError, too
    if isinstance(failure, asyncpg.ClientConfigurationError | ValueError) and not is_of_tls:
        log.error("the connection string could not be used", **describe(failure))
        return ServiceError("invalid_argument", "the store's connection string cannot be used; the log says why")
    reason = _reason(failure) or _reason_of_tls(failure)
    if reason is None:
        log.error("the database could not be used", **describe(failure))
        reason = "PostgreSQL refused it; the log says why"
    return unavailable(f"the store cannot be opened: {reason}")


def _reason(failure: BaseException) -> str | None:
    code = sqlstate_of(failure) or ""
    known = _REASONS_BY_CODE.get(code) or _REASONS_BY_CODE.get(code[:2])
    return known or next((reason for kind, reason in _REASONS_BY_KIND.items() if isinstance(failure, kind)), None)


def _reason_of_tls(failure: BaseException) -> str | None:
    if isinstance(failure, ssl.SSLCertVerificationError):
        return f"the certificate of PostgreSQL is not trusted: {failure.verify_message}"
    if isinstance(failure, ssl.SSLError):
        return f"TLS with PostgreSQL failed: {failure.reason}"
    if type(failure) is ConnectionError and "SSL" in str(failure):  # asyncpg gives no other indication
        return "PostgreSQL does not offer TLS, which sslmode asks for"
    return None


# The log ----------------------------------------------------------------------------------------------------------


def describe(failure: BaseException) -> dict[str, str | None]:
    """The facts about `failure` that may be logged."""
    if isinstance(failure, asyncpg.PostgresError):
        return {"sqlstate": failure.sqlstate, "reason": str(failure.args[0])}
    return {"kind": type(failure).__name__}


class Reports:
    """Logs at most one line of a kind in REPORT_SECONDS, with the number of lines left out before it.

    `now`: a monotonic clock, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._kinds: dict[tuple[str, str | None], tuple[float, int]] = {}
        """For each kind, when it was logged last, and how many lines were left out since.

        It has at most as many members as there are SQLSTATEs."""

    def log(
        self, write: Callable[..., object], event: str, failure: BaseException, *, by_sqlstate: bool = True
    ) -> None:
        """Log with `write`, a method of a logger. `by_sqlstate`: each SQLSTATE of the event is a kind of its own."""
        facts = describe(failure)
        kind = (event, facts.get("sqlstate", facts.get("kind")) if by_sqlstate else None)
        logged_at, left_out = self._kinds.get(kind, (None, 0))
        now = self._now()
        if logged_at is not None and now < logged_at + REPORT_SECONDS:
            self._kinds[kind] = (logged_at, left_out + 1)
            return
        self._kinds[kind] = (now, 0)
        write(event, **facts, **({"repeated": left_out} if left_out else {}))
