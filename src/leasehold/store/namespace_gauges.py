"""What the metrics show of each namespace.

A label has few values: the namespace `default` and the oldest of the others have series of their own, MAX_SHOWN in all,
and the rest is one series. The oldest, because then a new namespace does not take the series of another one.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from leasehold.errors import ServiceError
from leasehold.model import Namespace
from leasehold.namespaces import DEFAULT_NAMESPACE
from leasehold.store.stores import Stores

MAX_SHOWN: Final = 100
THE_REST: Final = "_other"
"""The label of all others together. No namespace can have this name."""
PAGE_NAMESPACES: Final = 1_000


async def gauges_of_namespaces(stores: Stores, may_use: Callable[[str], bool]) -> Mapping[str, Mapping[str, float]]:
    """By namespace, the gauges by their names in `metrics.NAMESPACE_GAUGES`. `may_use`: whether the caller is shown it.

    There are none while the store cannot be read: the other metrics say why, so they must not depend on it.
    """
    found: list[Namespace] = []
    after: str | None = None
    try:
        while True:
            page = await stores.namespaces(after, PAGE_NAMESPACES)
            found += [each for each in page if may_use(each.name)]
            if len(page) < PAGE_NAMESPACES:
                return shown(found)
            after = page[-1].name
            await asyncio.sleep(0)
    except ServiceError:
        return {}


def shown(namespaces: Sequence[Namespace]) -> dict[str, dict[str, float]]:
    """See `gauges_of_namespaces`."""
    ordered = sorted(namespaces, key=lambda each: (each.name != DEFAULT_NAMESPACE, each.created_at, each.name))
    gauges = {each.name: _gauges_of(each) for each in ordered[:MAX_SHOWN]}
    rest = ordered[MAX_SHOWN:]
    if rest:  # their revisions and quotas have no sum that says anything
        gauges[THE_REST] = {
            "namespace_entries": sum(each.usage.entries for each in rest),
            "namespace_bytes": sum(each.usage.bytes for each in rest),
        }
    return gauges


def _gauges_of(namespace: Namespace) -> dict[str, float]:
    usage, quota = namespace.usage, namespace.quota
    return {
        "namespace_entries": usage.entries,
        "namespace_bytes": usage.bytes,
        "namespace_revision": namespace.revision,
        "namespace_max_entries": _limit(quota.max_entries),
        "namespace_max_bytes": _limit(quota.max_bytes),
    }


def _limit(limit: int | None) -> float:
    """Infinite without a limit: then a share of it is 0."""
    return float("inf") if limit is None else limit
