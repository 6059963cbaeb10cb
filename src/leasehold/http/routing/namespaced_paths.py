"""Paths in a namespace: `/ns/{namespace}` before the path of a route.

The router removes this beginning, so the table of routes does not know it. `/ns/default/kv/a` is the same as `/kv/a`.
"""

from typing import Final

from leasehold.errors import ServiceError
from leasehold.http.requests import percent_decode
from leasehold.namespaces import DEFAULT_NAMESPACE, check_namespace

NAMESPACES: Final = b"/ns/"
"""How these paths begin. The routes of namespaces themselves are `/ns/{namespace}` and `/ns`."""
NAMESPACE_PATTERN: Final = "/ns/{namespace}"


def path_within(path: bytes) -> bytes:
    """The path without the namespace before it: `/kv/a` for `/ns/b/kv/a`. Empty for `/ns/b`."""
    if not path.startswith(NAMESPACES):
        return path
    end = path.find(b"/", len(NAMESPACES))
    return b"" if end < 0 else path[end:]


def namespace_of(path: bytes) -> str:
    """The namespace that the path names. The name may be percent-encoded. Raises `invalid_argument`.

    The path must begin with NAMESPACES.
    """
    encoded = path[len(NAMESPACES) :].partition(b"/")[0]
    try:
        name = percent_decode(encoded)
    except ValueError:
        raise ServiceError("invalid_argument", "the namespace is not percent-encoded UTF-8") from None
    check_namespace(name)
    return DEFAULT_NAMESPACE if name == DEFAULT_NAMESPACE else name  # one object, which `is` finds fast
