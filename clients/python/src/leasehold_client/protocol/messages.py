"""Requests and responses, independent of the HTTP library."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar
from urllib.parse import quote, urlsplit

from leasehold_client.errors import InvalidJson, InvalidKey, UnexpectedResponse
from leasehold_client.values import Json, decode_object, encode

Pairs = Sequence[tuple[str, str]]
JSON: Final = "application/json"
T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """`target` is encoded. `wait_seconds`: how long the service was asked to wait before it responds.

    `work_seconds`: how long it may work before it responds. The time in which retries may begin does not count this.
    """

    method: str
    target: str
    headers: Pairs = ()
    content: bytes | None = None
    is_change: bool = False
    wait_seconds: float = 0.0
    work_seconds: float = 0.0

    def with_headers(self, *headers: tuple[str, str]) -> Request:
        return replace(self, headers=(*self.headers, *headers))

    def with_idempotency_key(self, key: str) -> Request:
        """The same with this key, unless it has one."""
        if any(name.lower() == "idempotency-key" for name, _ in self.headers):
            return self
        return self.with_headers(("Idempotency-Key", f'"{key}"'))


@dataclass(frozen=True)
class Response:
    """The names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""


def target(path: str, parameters: Iterable[tuple[str, str]] = ()) -> str:
    query = "&".join(f"{name}={quote(text, safe='/')}" if text else name for name, text in parameters)
    return f"{path}?{query}" if query else path


def is_on_loopback(url: str) -> bool:
    """Whether the service is on this machine and speaks HTTP itself, without TLS."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme == "http" and (host in ("localhost", "::1") or host.startswith("127."))


def named(collection: str, name: str) -> str:
    """The path of an entry or of a lock: `/kv/users/ann`.

    Raises InvalidKey for names that HTTP libraries and proxies would turn into other ones: without this check,
    `a/../b` would be the name `b`. All other rules for names are left to the service.
    """
    if not name or any(segment in ("", ".", "..") for segment in name.split("/")):
        raise InvalidKey(f"{name!r} has an empty segment, or a segment . or ..")
    try:
        return f"{collection}/{quote(name, safe='/')}"
    except UnicodeEncodeError as error:
        raise InvalidKey(f"{name!r} contains a lone surrogate") from error


def json_body(value: Json) -> bytes:
    """Raises InvalidJson for NaN, infinities, circular values and lone surrogates."""
    try:
        return encode(value)
    except ValueError as error:
        raise InvalidJson(f"the value cannot be sent: {error}") from error


def number(value: float) -> str:
    """A number of seconds without an exponent, which the service does not take in parameters."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def reading(read: Callable[[Mapping[str, Json]], T]) -> Callable[[Response], T]:
    """Make a function that reads the body of a response. Raises UnexpectedResponse if it is not of this form."""

    def read_response(response: Response) -> T:
        try:
            return read(decode_object(response.content))
        except (KeyError, TypeError, ValueError) as error:
            raise UnexpectedResponse(f"the body of the response is not one of the service: {error!r}") from error

    return read_response
