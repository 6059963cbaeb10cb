"""Sends a request again and again, until there is a final response or the time for retries is over."""

from __future__ import annotations

import random
import secrets
from typing import Final

import httpx2

from leasehold_client.errors import LeaseholdError, ServiceError, Unauthenticated, Unreachable
from leasehold_client.protocol import retrying
from leasehold_client.protocol.messages import Request, Response
from leasehold_client.protocol.refusals import refusal_of

from . import runtime
from .tokens import AsyncTokens

UNAUTHENTICATED: Final = 401
NOT_MODIFIED: Final = 304
CONNECT_SECONDS: Final = 5.0


class AsyncSender:
    """The connections to one service."""

    def __init__(
        self, http: runtime.HttpClient, url: str, tokens: AsyncTokens, *, timeout_seconds: float, retry_seconds: float
    ) -> None:
        self._http = http
        own = {"accept", "accept-encoding", "connection"}
        self._headers = [(name, text) for name, text in http.headers.multi_items() if name not in own]
        # Compression by a proxy would change the ETags, and conditions would fail.
        self._headers.append(("Accept-Encoding", "identity"))
        self._url = url
        self.tokens = tokens
        self._timeout_seconds = timeout_seconds
        self._retry_seconds = retry_seconds

    def below(self, path: str) -> AsyncSender:
        """The same connections and tokens, for targets below a path such as `/ns/team`, or "" for none."""
        if not path:
            return self
        return AsyncSender(
            self._http,
            self._url + path,
            self.tokens,
            timeout_seconds=self._timeout_seconds,
            retry_seconds=self._retry_seconds,
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def send(self, request: Request, *, within_seconds: float | None = None) -> Response:
        """The response, if it is a success. A change is done once, however often it is sent.

        `within_seconds` replaces the time in which retries may begin, and limits each attempt. Raises LeaseholdError.
        """
        if request.is_change:
            request = request.with_idempotency_key(secrets.token_hex(16))
        seconds, timeout = request.wait_seconds + self._retry_seconds, self._timeout_seconds
        if within_seconds is not None:
            # Half of the time, so that an attempt to which nobody responds leaves time for another one.
            seconds, timeout = within_seconds, min(timeout, max(within_seconds / 2, 0.001))
        retry_until = runtime.clock() + seconds
        attempts = 0
        has_replaced_token = False
        while True:
            token = await self.tokens.current()
            outcome = await self._attempt(request, token, timeout)
            attempts += 1
            if isinstance(outcome, Response):
                if is_success(outcome.status):
                    return outcome
                if outcome.status == UNAUTHENTICATED and not has_replaced_token:
                    has_replaced_token = True
                    if await self.tokens.replace(token):
                        continue
            pause = retrying.pause_before_retry(
                outcome,
                attempts=attempts,
                remaining=retry_until - runtime.clock(),
                jitter=random.random(),  # noqa: S311 - spreads clients, and protects nothing
            )
            if pause is None:
                raise self._failure(outcome, attempts)
            log_retry(request, outcome, attempts, pause)
            await runtime.sleep(pause)

    async def _attempt(self, request: Request, token: str | None, timeout_seconds: float) -> retrying.Outcome:
        try:
            received = await self._http.send(self._prepared(request, token, timeout_seconds))
        except httpx2.TransportError as error:
            return retrying.Disconnected(_reason(error))
        return Response(received.status_code, received.headers, received.content)

    async def begin_stream(self, request: Request, *, silence_seconds: float) -> AsyncStream:
        """As `open_stream`, with the token of this client, which is asked for again if the service refuses it."""
        token = await self.tokens.current()
        try:
            return await self.open_stream(request, token, silence_seconds=silence_seconds)
        except Unauthenticated:
            if not await self.tokens.replace(token):
                raise
        return await self.open_stream(request, await self.tokens.current(), silence_seconds=silence_seconds)

    async def open_stream(self, request: Request, token: str | None, *, silence_seconds: float) -> AsyncStream:
        """One attempt of a request whose response does not end. Raises LeaseholdError if it is refused.

        `silence_seconds`: how long the response may bring nothing.
        """
        try:
            received = await self._http.send(self._prepared(request, token, silence_seconds), stream=True)
            if is_success(received.status_code):
                return AsyncStream(received, self._url)
            try:
                content = await received.aread()
            finally:
                await received.aclose()
        except httpx2.TransportError as error:
            raise unreachable(self._url, error) from error
        raise refusal_of(Response(received.status_code, received.headers, content))

    def _prepared(self, request: Request, token: str | None, timeout_seconds: float) -> httpx2.Request:
        """The request, made without `build_request`, which costs a tenth of the time of a `get`."""
        headers = [*self._headers, *request.headers]
        if token is not None:
            headers.append(("Authorization", f"Bearer {token}"))
        timeout = {
            "connect": min(timeout_seconds, CONNECT_SECONDS),
            "read": timeout_seconds + request.wait_seconds + request.work_seconds,
            "write": timeout_seconds,
            "pool": timeout_seconds,
        }
        return httpx2.Request(
            request.method,
            self._url + request.target,
            headers=headers,
            content=request.content,
            extensions={"timeout": timeout},
        )

    def _failure(self, outcome: retrying.Outcome, attempts: int) -> LeaseholdError:
        if isinstance(outcome, Response):
            return refusal_of(outcome)
        times = "" if attempts == 1 else f" after {attempts} attempts"
        return Unreachable(f"{self._url} did not respond{times}: {outcome.reason}")


class AsyncStream:
    """A response whose body is read piece by piece."""

    def __init__(self, received: runtime.HttpResponse, url: str) -> None:
        self._received = received
        self._url = url
        self._pieces = received.aiter_raw()

    async def read(self) -> bytes:
        """The next piece. Raises Unreachable if the connection is lost, and at the end of the response."""
        piece = await self.next_piece()
        if piece is None:
            raise Unreachable(f"{self._url} ended the response")
        return piece

    async def next_piece(self) -> bytes | None:
        """The next piece, None at the end of the response. Raises Unreachable if the connection is lost."""
        try:
            return await self._pieces.__anext__()
        except StopAsyncIteration:
            return None
        except httpx2.TransportError as error:
            raise unreachable(self._url, error) from error

    async def close(self) -> None:
        await self._received.aclose()


def is_success(status: int) -> bool:
    """No redirect: following it would turn a POST into a GET."""
    return status < 300 or status == NOT_MODIFIED


def unreachable(url: str, error: httpx2.TransportError) -> Unreachable:
    return Unreachable(f"{url} did not respond: {_reason(error)}")


def log_retry(request: Request, outcome: retrying.Outcome | LeaseholdError, attempts: int, pause: float) -> None:
    path = request.target.partition("?")[0]
    runtime.log.warning(
        "%s %s: attempt %d failed (%s); the next one is in %.2f s",
        request.method,
        path,
        attempts,
        _description(outcome),
        pause,
    )


def _description(outcome: retrying.Outcome | LeaseholdError) -> str:
    if isinstance(outcome, retrying.Disconnected):
        return outcome.reason
    error = refusal_of(outcome) if isinstance(outcome, Response) else outcome
    status = f"HTTP {error.status}, " if isinstance(error, ServiceError) and error.status is not None else ""
    return f"{status}{error}"


def _reason(error: httpx2.TransportError) -> str:
    return str(error) or type(error).__name__
