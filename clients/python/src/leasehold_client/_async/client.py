"""The client that users create."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final

import httpx2

from leasehold_client.protocol import namespaces
from leasehold_client.protocol.messages import is_on_loopback
from leasehold_client.protocol.retrying import MAX_RETRY_SECONDS
from leasehold_client.records import NamespaceInfo
from leasehold_client.values import MISSING, MissingType

from . import runtime
from .namespace import AsyncNamespace
from .sending import AsyncSender
from .tokens import AsyncTokens
from .writes import AsyncFence

PAGE_NAMESPACES: Final = 1_000


class AsyncClient(AsyncNamespace):
    """A connection pool to one service. Use it in a `with` block, or call its method for closing.

    `url`: `http://127.0.0.1:8080`, or with the path under which a proxy serves it. `token`: a text, or a function that
    returns one; it is called again when the service refuses the token, and before the token expires. It must not use
    this client. `namespace`: the one of the entries and locks; by default `default`.

    Each request is repeated if there is no response, or if the service cannot do it now, until `retry_seconds` are over
    (up to 300; 0 turns it off). `timeout_seconds`: for one attempt, without the time that the service may wait.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        namespace: str = namespaces.DEFAULT,
        token: str | runtime.TokenSource | None = None,
        timeout_seconds: float = 10.0,
        retry_seconds: float = 30.0,
        http: runtime.HttpClient | None = None,
    ) -> None:
        """`http`: a client of httpx2 with settings of your own, such as certificates; it is closed with this one."""
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"the URL must begin with http:// or https://: {url!r}")
        try:
            parts = httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise ValueError(f"the URL is not valid: {error}") from error
        if not parts.host or parts.userinfo or "?" in url or "#" in url:
            raise ValueError("the URL must have a host, and no user, query or fragment")
        if not 0 <= retry_seconds <= MAX_RETRY_SECONDS:
            raise ValueError(f"retry_seconds must be from 0 to {MAX_RETRY_SECONDS:.0f}")
        if http is None:
            http = runtime.HttpClient(
                headers={"User-Agent": "leasehold-client"},
                # Waits for locks and watches keep their connections, so a limit would block other requests. The service
                # closes idle connections after 75 seconds.
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=60.0),
                # Loading certificates takes 20 ms.
                verify=url.startswith("https://"),
                # A proxy cannot reach the loopback interface of this machine.
                trust_env=not is_on_loopback(url),
            )
        self._service = AsyncSender(
            http, url.rstrip("/"), AsyncTokens(token), timeout_seconds=timeout_seconds, retry_seconds=retry_seconds
        )
        super().__init__(self._service.below(namespaces.path(namespace)), AsyncFence())

    async def aclose(self) -> None:
        await self._sender.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # Namespaces -----------------------------------------------------------------------------------------------

    def namespace(self, name: str) -> AsyncNamespace:
        """The entries and locks of a namespace, over the connections of this client. It makes no request."""
        return AsyncNamespace(self._service.below(namespaces.path(name)), AsyncFence())

    async def create_namespace(
        self,
        name: str,
        *,
        max_entries: int | MissingType | None = MISSING,
        max_bytes: int | MissingType | None = MISSING,
    ) -> NamespaceInfo:
        """Create a namespace, or change the quotas of one that exists. Needs a token with the permission `admin`.

        `max_bytes`: of all keys and values. None removes a quota; one that is not given stays as it is, and a new
        namespace has none. A write beyond a quota raises QuotaExceeded.
        """
        request = namespaces.create(name, max_entries=max_entries, max_bytes=max_bytes)
        return namespaces.read_namespace(await self._service.send(request))

    async def namespace_info(self, name: str) -> NamespaceInfo:
        """The revision, the usage and the quotas of a namespace. Needs `admin`. NoSuchNamespace if there is none."""
        return namespaces.read_namespace(await self._service.send(namespaces.info(name)))

    async def namespaces(self, *, page_namespaces: int = PAGE_NAMESPACES) -> AsyncIterator[NamespaceInfo]:
        """All namespaces that the token may use, in the order of their names, read in pages. Needs `admin`."""
        after: str | None = None
        while True:
            request = namespaces.page(after, limit=page_namespaces)
            page = namespaces.read_page(await self._service.send(request))
            for each in page.namespaces:
                yield each
            if page.next is None:
                return
            after = page.next

    async def delete_namespace(self, name: str) -> None:
        """Delete a namespace and all that is in it. Needs `admin`. `default` cannot be deleted.

        Watches, waits and leases in it end with NoSuchNamespace. If it is created again, its revision goes on.
        NoSuchNamespace if there is none: perhaps an attempt that got no response has deleted it.
        """
        await self._service.send(namespaces.delete(name))
