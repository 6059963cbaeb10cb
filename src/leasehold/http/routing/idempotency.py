"""Idempotency keys: the header `Idempotency-Key`, which makes it safe to repeat a request that changes something.

This module reads the key and puts it around the operation (`Keyed`). `rules/receipts.py` decides whether the request
was done before. A pure endpoint knows nothing of it: `endpoint_of` returns one that does both. An `AsyncEndpoint` that
changes something calls `keyed` itself.

Two requests are equal if method, target, preconditions, the type of the body and the body are, byte by byte. Headers
that concern the response alone may differ. The target is without its namespace, because each namespace has its own
receipts.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Generator
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec.structs import replace

from leasehold.errors import ServiceError
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.namespaced_paths import path_within
from leasehold.http.routing.route import AcquireEndpoint, AsyncEndpoint, Parameter, PureEndpoint, Route
from leasehold.limits import MIB
from leasehold.metrics import Metrics
from leasehold.model import Acquire, Keyed, Outcome, Replayed, RequestedOperation

IDEMPOTENCY_KEY: Final = b"idempotency-key"
MAX_KEY_CHARACTERS: Final = 255
REPLAYED: Final = ("Idempotent-Replayed", "true")
"""The header of a response that repeats an earlier one."""
PARAMETER: Final = Parameter(
    "Idempotency-Key",
    "Makes it safe to repeat the request: it is done once, and a repetition gets the response of the first one.",
    {"type": "string", "pattern": r"""^([!#-~]([ -~]{0,253}[!-~])?|"([ !#-\[\]-~]|\\["\\]){1,255}")$"""},
    "header",
)

_PLAIN: Final = re.compile(rb"[!#-~][ -~]*")
_QUOTED: Final = re.compile(rb'"((?:[ !#-\[\]-~]|\\["\\])+)"')
_ESCAPE: Final = re.compile(rb"\\(.)")
_NAME_BYTES: Final = 11
"""Of the digest that names a receipt: 15 characters. Of 100,000 receipts, two have the same name with a probability of
1 in 10^16, and a caller cannot choose that of another one."""
_FINGERPRINT_BYTES: Final = 8
STEP_BYTES: Final = 4 * MIB
"""A larger body is hashed in several iterations of the event loop: the largest state takes up to 30 ms."""
_FINGERPRINTED: Final = (b"if-match", b"if-none-match", b"if-lease")
_SECOND: Final = 1_000_000

_pack: Final = msgspec.msgpack.Encoder().encode


def key_of(request: Request) -> bytes | None:
    """The key, without quotes; None without the header. Raises `invalid_argument`.

    A quoted key is a string of structured fields (RFC 8941, section 3.3.3).
    """
    sent = request.headers.get(IDEMPOTENCY_KEY)
    if sent is None:
        return None
    key = sent.strip(b" \t")
    quoted = _QUOTED.fullmatch(key)
    if quoted is not None:
        key = _ESCAPE.sub(rb"\1", quoted[1])
    elif _PLAIN.fullmatch(key) is None:
        key = b""
    if not 0 < len(key) <= MAX_KEY_CHARACTERS:
        raise ServiceError(
            "invalid_argument",
            f"Idempotency-Key has 1 to {MAX_KEY_CHARACTERS} printable ASCII characters, and may be quoted",
            details={"limit": MAX_KEY_CHARACTERS},
        )
    return key


def keyed(request: Request, key: bytes, operation: RequestedOperation, seconds: float) -> Keyed:
    """The operation with the key. `seconds`: how long its outcome is kept."""
    subject = request.principal.subject.encode()
    digest = blake2b(_pack((subject, key)), digest_size=_NAME_BYTES).digest()
    name = urlsafe_b64encode(digest).rstrip(b"=").decode()
    return Keyed(operation, name, request.fingerprint or _fingerprint(request), round(seconds * _SECOND))


def fingerprint_steps(request: Request) -> Generator[None]:
    """Set the fingerprint of a request with a large body and a key, in steps."""
    if IDEMPOTENCY_KEY not in request.headers:
        return
    digest = _digest_of_head(request)
    for begin in range(0, len(request.body), STEP_BYTES):
        digest.update(memoryview(request.body)[begin : begin + STEP_BYTES])
        yield
    request.fingerprint = digest.digest()


def _fingerprint(request: Request) -> bytes:
    digest = _digest_of_head(request)
    digest.update(request.body)
    return digest.digest()


def _digest_of_head(request: Request) -> blake2b:
    headers = request.headers
    sent = [headers.get(name) for name in _FINGERPRINTED]
    return blake2b(
        _pack((request.method, path_within(request.path), request.query, headers.get(b"content-type"), sent)),
        digest_size=_FINGERPRINT_BYTES,
    )


class Idempotency:
    """Gives endpoints the handling of keys. `seconds`: how long outcomes are kept. Replays are counted in `metrics`."""

    def __init__(self, seconds: float, metrics: Metrics) -> None:
        self._seconds = seconds
        self._metrics = metrics

    def endpoint_of(self, request: Request, route: Route) -> PureEndpoint | AcquireEndpoint | AsyncEndpoint:
        """The endpoint of the route, or, for a request with a key, the one that also handles the key."""
        endpoint = route.endpoint
        if (
            IDEMPOTENCY_KEY not in request.headers
            or not route.takes_idempotency_key
            or isinstance(endpoint, AsyncEndpoint)
        ):
            return endpoint
        if isinstance(endpoint, AcquireEndpoint):
            return AcquireEndpoint(self._acquisition(endpoint), self._response(endpoint))
        return PureEndpoint(self._operation(endpoint), self._response(endpoint))

    def _acquisition(self, endpoint: AcquireEndpoint) -> Callable[[Request], tuple[Keyed, float]]:
        def operation(request: Request) -> tuple[Keyed, float]:
            key = key_of(request)
            wanted, wait_seconds = endpoint.operation(request)
            assert key is not None, "the request has no key"
            assert isinstance(wanted, Acquire), "it has a key already"
            return keyed(request, key, wanted, self._seconds), wait_seconds

        return operation

    def _operation(self, endpoint: PureEndpoint) -> Callable[[Request], Keyed]:
        def operation(request: Request) -> Keyed:
            key = key_of(request)
            wanted = endpoint.operation(request)
            assert key is not None, "the request has no key"
            assert isinstance(wanted, RequestedOperation), "a route that changes something has no reads"
            return keyed(request, key, wanted, self._seconds)

        return operation

    def _response(self, endpoint: PureEndpoint | AcquireEndpoint) -> Callable[[Request, Outcome], Response]:
        def response(request: Request, outcome: Outcome) -> Response:
            if not isinstance(outcome, Replayed):
                return endpoint.response(request, outcome)
            return replay(endpoint.response(request, outcome.outcome), self._metrics)

        return response


def replay(response: Response, metrics: Metrics) -> Response:
    """The response to a repetition."""
    metrics.count("replayed_requests")
    return replace(response, headers=(*response.headers, REPLAYED))
