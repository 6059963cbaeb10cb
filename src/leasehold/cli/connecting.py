"""How commands reach a service: its URL, a namespace, the bearer token and the lease, from options and from the
environment.

    add_connection_options(parser)      the options that all these commands have
    with connected(arguments) as db:    a client of the package `leasehold_client`

An exception of the client ends the command with one line and an exit code (`failed`). `leasehold_client` is imported
only when a command connects.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from leasehold.cli import exit_codes
from leasehold.cli.arguments import Parser
from leasehold.cli.exit_codes import CommandFailed, wrong_usage

if TYPE_CHECKING:
    from leasehold_client import Client
    from leasehold_client.errors import LeaseholdError, PreconditionFailed

URL_VARIABLE: Final = "LEASEHOLD_URL"
TOKEN_VARIABLE: Final = "LEASEHOLD_TOKEN"  # noqa: S105 - the name of a variable
TOKEN_FILE_VARIABLE: Final = "LEASEHOLD_TOKEN_FILE"  # noqa: S105
LEASE_VARIABLE: Final = "LEASEHOLD_LEASE"
NAMESPACE_VARIABLE: Final = "LEASEHOLD_NAMESPACE"
DEFAULT_URL: Final = "http://127.0.0.1:8080"
RETRY_SECONDS: Final = 10.0
"""As long as a restart of the service takes."""
DEFAULT_NAMESPACE: Final = "default"
"""As in `leasehold.namespaces`, whose imports take long."""


class ConnectionArguments(Namespace):
    """The base of the arguments of a command that has these options."""

    url: str | None
    namespace: str | None
    token_file: str | None
    retry: float


class WriteArguments(ConnectionArguments):
    """The same with `add_lease_option`."""

    lease: str | None


def add_connection_options(parser: Parser, *, has_url: bool = True, has_namespace: bool = True) -> None:
    """`has_url`: whether the service is given by an option, and not by an argument. `has_namespace`: whether the
    command is for the entries and locks of a namespace."""
    add = parser.add_argument
    if has_url:
        add("--url", help=f"The service.  [default: {URL_VARIABLE}, or the service on this machine]")
    if has_namespace:
        add_namespace_option(parser)
    else:
        parser.set_defaults(namespace=DEFAULT_NAMESPACE)
    add("--token-file", metavar="FILE", help=f"File with the bearer token.  [default: {TOKEN_FILE_VARIABLE}]")
    add(
        "--retry",
        metavar="SECONDS",
        type=seconds,
        default=RETRY_SECONDS,
        help="How long to try again if the service does not respond.  [default: %(default).0f]",
    )


def add_namespace_option(parser: Parser) -> None:
    parser.add_argument(
        "--namespace", metavar="NAME", help=f"The namespace.  [default: {NAMESPACE_VARIABLE}, or {DEFAULT_NAMESPACE}]"
    )


def add_lease_option(parser: Parser) -> None:
    parser.add_argument(
        "--lease",
        metavar="ID",
        type=header_text,
        help=f"Write only while this lease is alive.  [default: {LEASE_VARIABLE}; '' for none]",
    )


def seconds(text: str) -> float:
    """The `type` of an option whose value is a number of seconds."""
    from argparse import ArgumentTypeError

    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):  # also false for NaN
        raise ArgumentTypeError("must be a number of seconds, such as 30 or 0.5")
    return number


def header_text(text: str) -> str:
    """The `type` of an option whose value becomes a header of the request."""
    from argparse import ArgumentTypeError

    if not text.isascii() or not text.isprintable():
        raise ArgumentTypeError("must be printable ASCII")
    return text


@contextmanager
def connected(arguments: ConnectionArguments, *, retry_seconds: float | None = None) -> Iterator["Client"]:
    """A client with the URL and the token of the arguments, or else of the environment. Raises CommandFailed.

    `retry_seconds` replaces the argument.
    """
    from leasehold_client import Client, LeaseholdError

    _show_retries()
    try:
        client = Client(
            service_url(arguments.url),
            namespace=namespace_of(arguments),
            token=_token(arguments.token_file),
            retry_seconds=arguments.retry if retry_seconds is None else retry_seconds,
        )
    except (LeaseholdError, ValueError) as error:
        raise wrong_usage(str(error)) from error
    with client:
        try:
            yield client
        except LeaseholdError as error:
            raise failed(error) from error
        except UnicodeEncodeError as error:
            # The system passes bytes that are not UTF-8 on as lone surrogates.
            raise wrong_usage("an argument is not UTF-8") from error


def service_url(url: str | None) -> str:
    """The URL that was given, else that of the environment, else that of a service on this machine.

    `LEASEHOLD_HOST` and `LEASEHOLD_PORT` are settings of the service; `leasehold serve` listens there.
    """
    given = url if url is not None else os.environ.get(URL_VARIABLE)
    if given or url is not None:
        return _checked(given or "")
    if os.environ.get("LEASEHOLD_HOST") or os.environ.get("LEASEHOLD_PORT"):
        from leasehold.cli.status import own_url
        from leasehold.server.config import load_settings

        return own_url(load_settings(os.environ, {}))
    return DEFAULT_URL


def _checked(url: str) -> str:
    """The message does not contain the URL, which may have a password."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        parts, has_port = urlsplit(""), False
    is_plain = not parts.query and not parts.fragment and "@" not in parts.netloc
    if parts.scheme not in ("http", "https") or not parts.hostname or not has_port or not is_plain:
        raise wrong_usage("the URL of a service is like http://127.0.0.1:8080; a token is given in a file")
    return url


def namespace_of(arguments: ConnectionArguments) -> str:
    """The namespace of the option, else that of the environment, else `default`.

    The client refuses one that cannot exist.
    """
    if arguments.namespace is not None:
        return arguments.namespace
    return os.environ.get(NAMESPACE_VARIABLE) or DEFAULT_NAMESPACE


def _token(file: str | None) -> "str | Callable[[], str] | None":
    """A file is read again before its token expires, and when the service refuses its token."""
    token = os.environ.get(TOKEN_VARIABLE)
    if file is None and token:
        return token.strip()
    path = file if file is not None else os.environ.get(TOKEN_FILE_VARIABLE)
    if not path:
        return None
    return lambda: _read_token(path)


def _read_token(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:  # noqa: PTH123 - pathlib takes long to import
            return file.read().strip()
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII"
        raise OSError(f"{path} cannot be read: {reason}") from error


def lease_of(arguments: WriteArguments) -> str | None:
    """The lease that fences the writes of the command. Raises CommandFailed."""
    if arguments.lease is not None:
        return arguments.lease or None
    lease = os.environ.get(LEASE_VARIABLE, "")
    if not lease.isascii() or not lease.isprintable():
        raise wrong_usage(f"{LEASE_VARIABLE} must be printable ASCII")
    return lease or None


def _show_retries() -> None:
    """Show people that the client waits. In files, the one line of the final error is enough."""
    import logging

    log = logging.getLogger("leasehold_client")
    if log.handlers:
        return
    if sys.stderr.isatty():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("leasehold: %(message)s"))
        log.addHandler(handler)
    else:
        log.addHandler(logging.NullHandler())


# Errors -------------------------------------------------------------------------------------------------------


def failed(error: "LeaseholdError") -> CommandFailed:
    """The end of a command after this exception of the client."""
    return CommandFailed(_line(error), _exit_code(error))


def _exit_code(error: "LeaseholdError") -> int:
    from leasehold_client import errors

    table: tuple[tuple[type[LeaseholdError], int], ...] = (
        (errors.LeaseLost, exit_codes.LEASE_LOST),
        (errors.LockHeld, exit_codes.LOCK_HELD),
        (errors.NotFound, exit_codes.NOT_FOUND),
        (errors.StateConflict, exit_codes.CONDITION_FAILED),
        (errors.AccessDenied, exit_codes.ACCESS_DENIED),
        (errors.TokenUnavailable, exit_codes.ACCESS_DENIED),
        (errors.InternalError, exit_codes.FAILED),
        (errors.ServiceFailure, exit_codes.UNAVAILABLE),
        (errors.Unreachable, exit_codes.UNAVAILABLE),
        (errors.BadRequest, exit_codes.WRONG_USAGE),
    )
    return next((code for kind, code in table if isinstance(error, kind)), exit_codes.FAILED)


def _line(error: "LeaseholdError") -> str:
    from leasehold_client import errors

    if isinstance(error, errors.TokenUnavailable):
        return f"there is no token: {error.__cause__}"
    if isinstance(error, errors.PreconditionFailed):
        return f"{error.message}{_what_is_stored(error)}"
    if isinstance(error, errors.InternalError) and error.request_id is not None:
        return f"{error.message} (request {error.request_id})"
    return error.message


def _what_is_stored(error: "PreconditionFailed") -> str:
    """For an entry its revision, and for a transaction those of the checks that do not hold."""
    if error.revision is not None:
        return f"; it has revision {error.revision}"
    failed = [
        f"check {each['index']} ({each['key']} has revision {each.get('revision')})"
        if "key" in each
        else f"check {each['index']} (the lease is not alive)"
        for each in error.failed
    ]
    return f": {', '.join(failed)}" if failed else ""
