"""Who is let in: the bearer of a token with the right, and no page of a foreign site.

A browser sends what a page makes it send, to addresses that only it can reach, loopback among them. So requests that
come from another site, or were aimed here by a foreign name (DNS rebinding), are refused whether tokens are asked for
or not. Pages of origins that the operator names are let in, and may read the answers (CORS, in Fetch's sense).
"""

from typing import Final

from leasehold.access.hosts import DEFAULT_PORTS, Origin, is_address, parse_host, parse_origin
from leasehold.access.permissions import ANYONE, Permission, Principal, forbidden, missing_permission
from leasehold.access.token_verification import Verifier, unauthenticated
from leasehold.http.messages import Headers, Request

OWN_SITES: Final = (b"same-origin", b"none")
"""`Sec-Fetch-Site` of a page of ours, and of somebody who typed the address."""
EXPOSED: Final = "ETag, Location, Retry-After, Allow, Accept-Patch, Preference-Applied, WWW-Authenticate, X-Request-Id"
"""Headers of an answer that a page of an allowed origin may read, beside those that any may."""


class Admission:
    """Decides for each request. `verifier`: None where the service runs open.

    `own_hosts`: the names by which the service may be called, as `hosts.parse_host` gives them; None: any.
    `takes_addresses`: any IP address beside them. `origins`: whose pages are let in.
    """

    def __init__(
        self,
        verifier: Verifier | None,
        own_hosts: frozenset[str] | None,
        *,
        takes_addresses: bool = False,
        origins: frozenset[Origin] = frozenset(),
    ) -> None:
        self._verifier = verifier
        self._own_hosts = own_hosts
        self._takes_addresses = takes_addresses
        self._origins = origins

    @property
    def varies_by_origin(self) -> bool:
        """Whether an answer depends on who asks for it in a browser."""
        return bool(self._origins)

    def admit(self, request: Request, permission: Permission | None) -> Principal:
        """Who asks. Raises `forbidden` and `unauthenticated`.

        Where no permission is needed no token is, but one that is sent must be good.
        """
        headers = request.headers
        if not headers.is_vetted:
            self._check_host(headers.get(b"host"))
            self.share(headers)
            if not headers.sharing:
                _check_site(headers)
            headers.is_vetted = True
        if self._verifier is None:
            return ANYONE
        authorization = headers.get(b"authorization")
        if authorization is None:
            if permission is None:
                return ANYONE
            raise unauthenticated("no token")
        principal = self._verifier.verify(authorization)
        if permission is not None and permission not in principal.permissions:
            request.principal = principal  # for the log
            raise missing_permission(permission)
        return principal

    def share(self, headers: Headers) -> None:
        """Let the page that asks read the answer, errors too, if it is of an allowed origin. Set `headers.sharing`."""
        if not self._origins or headers.sharing:
            return
        sent = headers.get(b"origin", b"").decode("latin-1")
        if parse_origin(sent) in self._origins:
            lines = f"\r\nAccess-Control-Allow-Origin: {sent}\r\nAccess-Control-Expose-Headers: {EXPOSED}"
            headers.sharing = lines.encode("ascii")

    def _check_host(self, sent: bytes | None) -> None:
        if self._own_hosts is None or sent is None:  # without one it is HTTP/1.0, which no browser speaks
            return
        host = parse_host(sent.decode("latin-1"))
        name = "" if host is None else host[0]
        if name not in self._own_hosts and not (self._takes_addresses and is_address(name)):
            raise forbidden(
                "the service is not called by this name; LEASEHOLD_ALLOWED_HOSTS is to have it", reason="another host"
            )


def _check_site(headers: Headers) -> None:
    site = headers.get(b"sec-fetch-site")
    if site is not None and site not in OWN_SITES:
        raise forbidden("requests from pages of other sites are refused", reason="page of another site")
    sent = headers.get(b"origin")
    if sent is None:
        return
    origin = parse_origin(sent.decode("latin-1"))
    host = parse_host(headers.get(b"host", b"").decode("latin-1"))
    if origin is not None and host is not None:
        scheme, name, port = origin
        # Which scheme the client used is known by the origin only, as a proxy may have taken TLS away.
        own_port = DEFAULT_PORTS[scheme] if host[1] is None else host[1]
        if (name, port) == (host[0], own_port):
            return
    raise forbidden("requests from pages of other sites are refused", reason="page of another site")
