"""What a caller may do: the permissions of its token, its namespaces, and the prefixes of the names that it covers.

A caller needs all three: the permission that the route asks for, the namespace of the request, and a prefix that covers
the key or the lock. The routes say which permission they need, and `routing/admission.py` checks it and the namespace.
If the permission depends on the request, the endpoint checks it. The prefixes are checked in one place for all
operations of pure endpoints (`http/wire/answering.py`). An `AsyncEndpoint` checks them itself: one name by
`Principal.require_covered`, a list by `covered_prefixes`, a backup by `covers`.
"""

import math
from typing import Final, Literal

import msgspec

from leasehold.errors import ServiceError
from leasehold.namespaces import DEFAULT_NAMESPACE

Permission = Literal["read", "write", "admin"]
PERMISSIONS: Final[tuple[Permission, ...]] = ("read", "write", "admin")
"""`admin`: end the leases of others; create, change, list and delete namespaces."""
RoutePermission = Permission | Literal["any"]
"""What a route needs. `any`: a valid token; the endpoint checks which permissions the request needs."""


class Principal(msgspec.Struct, frozen=True):
    """A caller and what it may do.

    `prefixes`: the token covers the keys and locks that begin with one of these, in each of its namespaces; None: all
    keys and locks. `namespaces`: those that it may use; None: all.
    """

    subject: str
    permissions: frozenset[Permission]
    prefixes: tuple[str, ...] | None = None
    expires_at: float = math.inf
    """Seconds since the epoch."""
    namespaces: frozenset[str] | None = frozenset((DEFAULT_NAMESPACE,))

    def may_use(self, namespace: str) -> bool:
        return self.namespaces is None or namespace in self.namespaces

    def require_namespace(self, namespace: str) -> None:
        """Raise `forbidden` unless the token may use the namespace, whether the namespace exists or not."""
        if not self.may_use(namespace):
            raise forbidden("the token may not use this namespace", reason="another namespace")

    def covers(self, name: str) -> bool:
        return self.prefixes is None or name.startswith(self.prefixes)

    def require_permission(self, permission: Permission) -> None:
        """Raise `forbidden` unless the token has the permission."""
        if permission not in self.permissions:
            raise missing_permission(permission)

    def require_covered(self, name: str) -> None:
        """Raise `forbidden` unless the token covers this key or lock."""
        if not self.covers(name):
            raise forbidden("the token does not cover this key", reason="not covered by the prefixes")

    def covered_prefixes(self, prefix: str) -> tuple[str, ...]:
        """Prefixes that match exactly the names that begin with `prefix` and that the token covers.

        They are ascending, and none begins with another one. No prefix: the token covers no such name.
        """
        if self.covers(prefix):
            return (prefix,)
        narrower = sorted(name for name in set(self.prefixes or ()) if name.startswith(prefix))
        disjoint: list[str] = []
        for name in narrower:
            if not disjoint or not name.startswith(disjoint[-1]):
                disjoint.append(name)
        return tuple(disjoint)


ANYONE: Final = Principal("", frozenset(PERMISSIONS), namespaces=None)
"""A caller of a service that has no tokens, and a caller without a token where the route needs none."""


def is_valid_name(text: str) -> bool:
    """Whether a text may be a subject or a prefix: not empty, and Unicode that every engine can store."""
    return text != "" and not any("\ud800" <= character <= "\udfff" or character == "\0" for character in text)


def missing_permission(permission: Permission) -> ServiceError:
    return forbidden(f"the token lacks the permission {permission}", reason=f"no permission to {permission}")


def forbidden(message: str, *, reason: str) -> ServiceError:
    """`reason`: for the log."""
    return ServiceError("forbidden", message, reason=reason)
