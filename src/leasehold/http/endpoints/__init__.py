"""The routes, in one package or file for each part of the paths.

kv/         /kv                             entries by key
by_uuid/    /set, /get, /stream             entries by UUID
locks/      /locks, /lock, /renew, /unlock  locks and their leases
terraform/  /terraform                      states of Terraform
transactions.py /txn
backup.py   /backup
namespaces/ /ns                             namespaces themselves
watch.py    /watch                          changes of entries and locks
system.py   /health, /metrics, /openapi.json
console.py  /console/, /                    the pages of the console

A file has one command: how its request is parsed, how its response is encoded, and its route. The rules of entries and
leases are in `rules`, not here.
"""

from collections.abc import Sequence
from typing import Final

from leasehold.http.endpoints import (
    backup,
    by_uuid,
    console,
    kv,
    locks,
    namespaces,
    system,
    terraform,
    transactions,
    watch,
)
from leasehold.http.media_types import DEFAULT_BINARY_TYPES
from leasehold.http.routing.route import Route


def routes(binary_types: Sequence[str] = DEFAULT_BINARY_TYPES) -> tuple[Route, ...]:
    """All routes. `binary_types`: the media types of bodies that are stored as bytes."""
    of_entries = kv.routes(binary_types) + by_uuid.ROUTES + transactions.routes(binary_types)
    in_namespaces = of_entries + locks.ROUTES + terraform.ROUTES + (watch.ROUTE,) + backup.ROUTES
    return in_namespaces + namespaces.ROUTES + system.ROUTES + console.ROUTES


ROUTES: Final = routes()
"""With the default settings."""
