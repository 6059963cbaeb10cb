"""Admission of a request: its `Host`, its `Origin`, its token, the permission that its route needs, and its namespace.

A web page can make a browser send requests to addresses that only the browser can reach, for example loopback. So
cross-site requests, and requests with an unknown `Host` (DNS rebinding), are refused, with and without tokens. Pages of
the origins that the operator allows are admitted and may read the responses (`cors.py`).

The prefixes of the token are checked later (`require_covered`), when the operation is known.
"""

from typing import TYPE_CHECKING, Final

from leasehold.access.authorization import bearer_of_basic, unauthenticated
from leasehold.access.hosts import DEFAULT_PORTS, Origin, is_address, parse_host, parse_origin
from leasehold.access.permissions import ANYONE, Principal, forbidden, missing_permission
from leasehold.errors import ServiceError
from leasehold.http.requests import Headers, Request
from leasehold.http.routing.cors import allow_origin_lines
from leasehold.http.routing.route import Route
from leasehold.model import Operation, Read, names_asked
from leasehold.namespaces import DEFAULT_NAMESPACE

if TYPE_CHECKING:
    from leasehold.access.token_verification import Verifier

OWN_SITES: Final = (b"same-origin", b"none")
"""`Sec-Fetch-Site` of a page of the same origin, and of an address that a user typed."""


class Admission:
    """Admits or refuses each request.

    `verifier`: None if the service has no tokens. `own_hosts`: the allowed names in `Host`, as `hosts.parse_host`
    returns them; None: any name. `takes_addresses`: any IP address is allowed, too. `origins`: the origins whose pages
    are admitted.
    """

    def __init__(
        self,
        verifier: "Verifier | None",
        own_hosts: frozenset[str] | None,
        *,
        takes_addresses: bool = False,
        origins: frozenset[Origin] = frozenset(),
    ) -> None:
        self.verifier = verifier
        self._own_hosts = own_hosts
        self._takes_addresses = takes_addresses
        self._origins = origins

    @property
    def varies_by_origin(self) -> bool:
        """Whether responses depend on the header `Origin`."""
        return bool(self._origins)

    def admit(self, request: Request, route: Route) -> Principal:
        """The caller. Raises `forbidden` and `unauthenticated`.

        A route without a permission needs no token. A token that is sent must be valid there, too. Whether the token
        may use the namespace is checked before anything is known of the namespace, so that the error tells nothing of
        it.
        """
        permission = route.permission
        headers = request.headers
        if not headers.is_checked:
            self._check_host(headers.get(b"host"))
            self.set_cors_lines(headers)
            if not headers.cors_lines:
                _check_site(headers)
            headers.is_checked = True
        if self.verifier is None:
            headers.principal = ANYONE
            return ANYONE
        authorization = headers.get(b"authorization")
        if authorization is None:
            if permission is None:
                return ANYONE
            raise unauthenticated("no token", takes_basic=route.takes_basic)
        as_bearer = bearer_of_basic(authorization) if route.takes_basic else None
        try:
            principal = self.verifier.verify(as_bearer or authorization)
        except ServiceError as refusal:
            raise unauthenticated(refusal.reason, takes_basic=route.takes_basic) from refusal
        request.principal = principal  # for the log, if it is refused
        if permission is not None and permission != "any" and permission not in principal.permissions:
            raise missing_permission(permission)
        if route.needs_store or request.namespace is not DEFAULT_NAMESPACE:
            principal.require_namespace(request.namespace)
        if as_bearer is None and principal.may_use(DEFAULT_NAMESPACE):
            # With Basic authentication they stay unset: other routes do not accept these fields. And without them no
            # fast path answers, so these need not ask whether the token may use the namespace `default`.
            headers.principal, headers.verified_by = principal, self.verifier
        return principal

    def set_cors_lines(self, headers: Headers) -> None:
        """Set `headers.cors_lines` if the request comes from a page of an allowed origin. Errors need them, too."""
        if not self._origins or headers.cors_lines:
            return
        sent = headers.get(b"origin", b"").decode("latin-1")
        if parse_origin(sent) in self._origins:
            headers.cors_lines = allow_origin_lines(sent)

    def _check_host(self, sent: bytes | None) -> None:
        if self._own_hosts is None or sent is None:  # without `Host` it is HTTP/1.0, which no browser sends
            return
        host = parse_host(sent.decode("latin-1"))
        name = "" if host is None else host[0]
        if name not in self._own_hosts and not (self._takes_addresses and is_address(name)):
            raise forbidden("the name in Host is not allowed; add it to LEASEHOLD_ALLOWED_HOSTS", reason="another host")


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
        # Only `Origin` shows the scheme that the client used, because a proxy may have terminated TLS.
        own_port = DEFAULT_PORTS[scheme] if host[1] is None else host[1]
        if (name, port) == (host[0], own_port):
            return
    raise forbidden("requests from pages of other sites are refused", reason="page of another site")


def require_covered(principal: Principal, asked: Read | Operation) -> None:
    """Raise `forbidden` unless the token covers all keys, or the lock, of an operation."""
    for name in names_asked(asked):
        principal.require_covered(name)
