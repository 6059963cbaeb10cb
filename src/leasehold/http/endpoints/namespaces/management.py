"""What the routes of namespaces share: which callers may use them, and the JSON of a namespace."""

from leasehold.access.permissions import Principal, forbidden
from leasehold.errors import ServiceError
from leasehold.http.requests import Request
from leasehold.http.routing.idempotency import IDEMPOTENCY_KEY
from leasehold.model import Namespace
from leasehold.times import format_time


def require_all_keys(principal: Principal) -> None:
    """Raise `forbidden` unless the token covers all keys. Numbers of entries, quotas and deletions concern all keys."""
    if not principal.covers(""):
        raise forbidden("to manage namespaces, a token must have no prefixes", reason="not all keys are covered")


def managed_namespace(request: Request) -> str:
    """The namespace in the path. Raises `forbidden`, and `invalid_argument` for a request with an idempotency key.

    These requests may be repeated without a key: it makes no difference to create or to delete a namespace twice.
    """
    request.principal.require_namespace(request.namespace)
    require_all_keys(request.principal)
    if IDEMPOTENCY_KEY in request.headers:
        raise ServiceError("invalid_argument", "Idempotency-Key is not supported here; repeat the request without it")
    return request.namespace


def shown(namespace: Namespace) -> dict[str, str | int | None]:
    return {
        "namespace": namespace.name,
        "revision": namespace.revision,
        "entries": namespace.usage.entries,
        "bytes": namespace.usage.bytes,
        "max_entries": namespace.quota.max_entries,
        "max_bytes": namespace.quota.max_bytes,
        "created_at": format_time(namespace.created_at),
    }
