"""Asks a running service how it is: what `leasehold status` prints, and what a container's health check runs.

It goes to the service directly, whatever proxies the environment names, and needs no token.
"""

from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final
from urllib.parse import urlsplit

import msgspec

from leasehold.errors import ServiceError, unavailable
from leasehold.server.config import Settings

MAX_ANSWER_BYTES: Final = 65_536
_EVERY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not listened on, asked instead
"""Where a service that listens on all addresses is asked."""


class Answer(msgspec.Struct):
    """What the service says of itself; an error of HTTP has `message` alone."""

    status: str = ""
    message: str = ""
    store: str = ""
    revision: int = 0
    uptime_s: float = 0.0
    version: str = ""


def own_url(settings: Settings) -> str:
    """Where a service with these settings is asked on this machine. Raises `invalid_argument` for port 0."""
    if settings.port == 0:
        raise ServiceError("invalid_argument", "port 0 is any free port: give --port or --url")
    host = _EVERY_ADDRESS.get(settings.host, settings.host)
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{settings.port}"


def ask(url: str, *, live: bool, timeout_seconds: float, host: str | None = None) -> tuple[bool, str]:
    """Whether all is well, and a line that says so.

    `live`: whether the process answers; else whether it can make writes durable. `host`: the name to call it by, in
    place of that in the URL. Raises `invalid_argument` for what is no URL, `unavailable` when there is no answer.
    """
    code, answer = _get(url, "/health/live" if live else "/health/ready", host, timeout_seconds)
    if answer.status == "":
        return False, f"not ready: HTTP {code}" + (f", {answer.message}" if answer.message else "")
    if code != 200 or answer.status != "ok":
        return False, f"{answer.status}: {answer.message}"
    if live:
        return True, f"alive at {url}"
    figures = f"revision {answer.revision}, up {answer.uptime_s:.0f} s, version {answer.version}"
    return True, f"ready at {url}: store {answer.store}, {figures}"


def _get(url: str, path: str, host: str | None, timeout_seconds: float) -> tuple[int, Answer]:
    connection, prefix = _connection(url, timeout_seconds)
    try:
        connection.request("GET", prefix + path, headers={} if host is None else {"Host": host})
        response = connection.getresponse()
        body = response.read(MAX_ANSWER_BYTES)
    except OSError as error:
        raise unavailable(f"{url} does not answer: {error.strerror or error}") from error
    except HTTPException as error:
        raise unavailable(f"{url} does not answer in HTTP") from error
    finally:
        connection.close()
    try:
        return response.status, msgspec.json.decode(body, type=Answer)
    except msgspec.DecodeError as error:
        raise unavailable(f"{url} is not a leasehold: HTTP {response.status}, and no JSON of its") from error


def _connection(url: str, timeout_seconds: float) -> tuple[HTTPConnection, str]:
    """To the host of a URL, and the path in front of the service's own."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = parts = None
    if parts is None or not host or parts.scheme not in ("http", "https") or parts.query or "@" in parts.netloc:
        raise ServiceError("invalid_argument", "a URL is like http://127.0.0.1:8080")
    kind = HTTPConnection if parts.scheme == "http" else HTTPSConnection
    return kind(host, port, timeout=timeout_seconds), parts.path.rstrip("/")
