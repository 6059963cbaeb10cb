"""Who is let in: the bearer of a token with the right, and no page of a foreign site.

A browser sends what a page makes it send, to addresses that only it can reach, loopback among them. So requests that
come from another site, or were aimed here by a foreign name (DNS rebinding), are refused whether tokens are asked for
or not.
"""

from urllib.parse import urlsplit

from leasehold.auth import ANYONE, Permission, Principal, Verifier, forbidden, lacks, unauthenticated
from leasehold.http.messages import Headers, Request

OWN_SITES = (b"same-origin", b"none")
"""`Sec-Fetch-Site` of a page of ours, and of somebody who typed the address."""


class Admission:
    """Decides for each request. `verifier`: None where the service runs open.

    `own_hosts`: the names by which the service may be called, in lower case, without ports; None: any.
    """

    def __init__(self, verifier: Verifier | None, own_hosts: frozenset[str] | None) -> None:
        self._verifier = verifier
        self._own_hosts = own_hosts

    def admit(self, request: Request, permission: Permission | None) -> Principal:
        """Who asks. Raises `forbidden` and `unauthenticated`.

        Where no permission is needed no token is, but one that is sent must be good.
        """
        headers = request.headers
        if not headers.is_vetted:
            self._check_host(headers.get(b"host"))
            self._check_site(headers)
            headers.is_vetted = True
        if self._verifier is None:
            return ANYONE
        authorization = headers.get(b"authorization")
        if authorization is None:
            if permission is None:
                return ANYONE
            raise unauthenticated()
        principal = self._verifier.verify(authorization)
        if permission is not None and permission not in principal.permissions:
            raise lacks(permission)
        return principal

    def _check_host(self, host: bytes | None) -> None:
        if self._own_hosts is None or host is None:  # without one it is HTTP/1.0, which no browser speaks
            return
        if _host_name(host) not in self._own_hosts:
            raise forbidden("the service is not called by this name")

    def _check_site(self, headers: Headers) -> None:
        site = headers.get(b"sec-fetch-site")
        origin = headers.get(b"origin")
        if site is not None and site not in OWN_SITES:
            raise forbidden("requests from pages of other sites are refused")
        own = headers.get(b"host", b"").lower()
        if origin is not None and (not own or origin.partition(b"://")[2].lower() != own):
            raise forbidden("requests from pages of other sites are refused")


def _host_name(host: bytes) -> str | None:
    try:
        return urlsplit("//" + host.decode("ascii")).hostname
    except ValueError:
        return None
