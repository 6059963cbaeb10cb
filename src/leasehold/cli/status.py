"""`leasehold status`: shows whether a running service is ready. The health check of the container image runs it.

It connects to the service directly, without the proxies in the environment, and needs no token.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypedDict

from leasehold.cli.arguments import Command, Parser
from leasehold.cli.connecting import URL_VARIABLE
from leasehold.cli.options import JSON, TEXT, add_output_option
from leasehold.cli.output import write_json
from leasehold.errors import ServiceError, unavailable

if TYPE_CHECKING:
    from http.client import HTTPConnection

    from leasehold.server.config import Settings

MAX_ANSWER_BYTES: Final = 65_536
_EVERY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not listened on, asked instead
"""The address to connect to, if the service listens on all addresses."""


class Answer(TypedDict, total=False):
    """The body of the response. An HTTP error has only `message`."""

    status: str
    message: str
    store: str
    revision: int
    uptime_s: float
    version: str


class Arguments(Namespace):
    host: str | None
    port: str | None
    url: str | None
    live: bool
    timeout: str
    output: str


def parse(program: str, words: Sequence[str]) -> Arguments:
    parser = Parser(
        program,
        STATUS.summary,
        details="It prints one line and exits with 0 if the service is ready, and with 1 if not. Without options it "
        "asks the service at LEASEHOLD_URL, or the one with these settings on this machine. Proxies in the environment "
        "are not used.",
    )
    add = parser.add_argument
    add("--host", help="Address on which the service listens.")
    add("--port", help="Port on which the service listens.")
    add("--url", help="Another service, like https://db.example.com.")
    add("--live", action="store_true", help="Whether the process answers, even if writes cannot be made durable.")
    add(
        "--timeout",
        metavar="DURATION",
        default="5s",
        help="How long to wait for the answer.  [default: %(default)s]",
    )
    add_output_option(parser, TEXT, (JSON, TEXT))
    parser.check_options(words)
    return parser.parse_args(words, Arguments())


def run(program: str, words: Sequence[str]) -> int:
    arguments = parse(program, words)

    from leasehold.server.config import load_settings, parse_duration

    timeout_seconds = parse_duration(arguments.timeout)
    given = arguments.url
    if given is None and arguments.host is None and arguments.port is None:
        given = os.environ.get(URL_VARIABLE) or None
    if given is None:
        settings = load_settings(os.environ, {"host": arguments.host, "port": arguments.port})
        url, host = own_url(settings), "localhost"  # in `Host`; the service accepts this name with all settings
    else:
        url, host = given, None
    is_well, line, body = ask(url, live=arguments.live, timeout_seconds=timeout_seconds, host=host)
    if arguments.output == JSON:
        write_json(body)
    else:
        sys.stdout.write(f"{line}\n")
    return 0 if is_well else 1


def own_url(settings: "Settings") -> str:
    """The URL of a service with these settings on this machine. Raises `invalid_argument` for port 0."""
    if settings.port == 0:
        raise ServiceError("invalid_argument", "port 0 is any free port: give --port or --url")
    host = _EVERY_ADDRESS.get(settings.host, settings.host)
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{settings.port}"


def ask(url: str, *, live: bool, timeout_seconds: float, host: str | None = None) -> tuple[bool, str, bytes]:
    """Whether the service is ready (or alive), a line to print, and the body of the response.

    `live`: only check that the process answers, not that writes can be made durable. `host`: the header `Host`, if it
    is not the host of the URL. Raises `invalid_argument` for a wrong URL, `unavailable` if there is no response.
    """
    code, body = _get(url, "/health/live" if live else "/health/ready", host, timeout_seconds)
    answer = _decoded(url, code, body)
    is_well = code == 200 and answer.get("status") == "ok"
    return is_well, _line(url, code, answer, live=live), body


def _line(url: str, code: int, answer: Answer, *, live: bool) -> str:
    status, message = answer.get("status", ""), answer.get("message", "")
    if status == "":
        return f"not ready: HTTP {code}" + (f", {message}" if message else "")
    if code != 200 or status != "ok":
        return f"{status}: {message}"
    if live:
        return f"alive at {url}"
    revision, uptime_seconds = answer.get("revision", 0), answer.get("uptime_s", 0)
    figures = f"revision {revision}, up {uptime_seconds:.0f} s, version {answer.get('version', '')}"
    return f"ready at {url}: store {answer.get('store', '')}, {figures}"


def _get(url: str, path: str, host: str | None, timeout_seconds: float) -> tuple[int, bytes]:
    from http.client import HTTPException

    connection, prefix = _connection(url, timeout_seconds)
    try:
        connection.request("GET", prefix + path, headers={} if host is None else {"Host": host})
        response = connection.getresponse()
        return response.status, response.read(MAX_ANSWER_BYTES)
    except OSError as error:
        raise unavailable(f"{url} does not answer: {error.strerror or error}") from error
    except HTTPException as error:
        raise unavailable(f"{url} does not answer in HTTP") from error
    finally:
        connection.close()


def _decoded(url: str, code: int, body: bytes) -> Answer:
    import msgspec

    try:
        return msgspec.json.decode(body, type=Answer)
    except msgspec.DecodeError as error:
        raise unavailable(f"{url} is not a Leasehold service: HTTP {code}, unexpected body") from error


def _connection(url: str, timeout_seconds: float) -> tuple["HTTPConnection", str]:
    """A connection to the host of a URL, and the path of the URL, to which the service's paths are appended."""
    from http.client import HTTPConnection, HTTPSConnection
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = parts = None
    if parts is None or not host or parts.scheme not in ("http", "https") or parts.query or "@" in parts.netloc:
        raise ServiceError("invalid_argument", "a URL is like http://127.0.0.1:8080")
    kind = HTTPConnection if parts.scheme == "http" else HTTPSConnection
    return kind(host, port, timeout=timeout_seconds), parts.path.rstrip("/")


STATUS = Command("Show whether a running service is ready.", run)
