"""Which namespaces have series of their own in the metrics."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from prometheus_client.parser import text_string_to_metric_families

from leasehold.errors import unavailable
from leasehold.metrics import NAMESPACE_GAUGES, Metrics
from leasehold.model import Namespace, Quota, Usage
from leasehold.store.namespace_gauges import MAX_SHOWN, THE_REST, gauges_of_namespaces, shown
from leasehold.store.stores import Stores


def namespace(name: str, created_at: int, *, entries: int = 1, quota: Quota | None = None) -> Namespace:
    return Namespace(name, 7, Usage(entries, 10 * entries), quota or Quota(), created_at)


class Listed:
    """Stores that have these namespaces."""

    def __init__(self, namespaces: Sequence[Namespace]) -> None:
        self._namespaces = sorted(namespaces, key=lambda each: each.name)

    async def namespaces(self, after: str | None, limit: int) -> Sequence[Namespace]:
        return [each for each in self._namespaces if after is None or each.name > after][:limit]


class Away:
    """Stores whose database cannot be reached."""

    async def namespaces(self, _after: str | None, _limit: int) -> Sequence[Namespace]:
        raise unavailable("away")


def gauges(stores: Any, *, without: str = "") -> Any:
    return asyncio.run(gauges_of_namespaces(cast("Stores", stores), lambda name: name != without))


def test_a_namespace_has_its_usage_its_revision_and_its_quota() -> None:
    one = namespace("a", 1, entries=3, quota=Quota(max_entries=5))
    assert shown([one])["a"] == {
        "namespace_entries": 3,
        "namespace_bytes": 30,
        "namespace_revision": 7,
        "namespace_max_entries": 5,
        "namespace_max_bytes": float("inf"),
    }
    assert shown([one])["a"].keys() == NAMESPACE_GAUGES.keys()


def test_so_many_namespaces_have_series_and_the_rest_is_added_up() -> None:
    namespaces = [namespace(f"n{number:04}", number) for number in range(MAX_SHOWN + 50)]
    of_them = shown(namespaces)
    assert len(of_them) == MAX_SHOWN + 1
    assert of_them[THE_REST] == {"namespace_entries": 50, "namespace_bytes": 500}
    assert THE_REST not in shown(namespaces[:MAX_SHOWN])


def test_default_and_the_oldest_are_shown_whatever_their_names() -> None:
    many = [namespace(f"n{number:04}", number) for number in range(MAX_SHOWN)]
    of_them = shown([*many, namespace("aaa", MAX_SHOWN + 1), namespace("default", MAX_SHOWN + 2)])
    assert "default" in of_them
    assert "aaa" not in of_them
    assert "n0000" in of_them


def test_all_pages_are_read_and_what_the_token_is_not_for_is_left_out() -> None:
    namespaces = [namespace(f"n{number:04}", number) for number in range(2_500)]
    of_them = gauges(Listed(namespaces), without="n0001")
    assert of_them[THE_REST]["namespace_entries"] == 2_500 - 1 - MAX_SHOWN
    assert "n0001" not in of_them


def test_a_store_that_cannot_be_read_has_no_series_of_namespaces() -> None:
    assert gauges(Away()) == {}


def test_the_text_has_a_label_for_each_namespace() -> None:
    text = Metrics().text({}, shown([namespace("a", 1), namespace("b", 2)])).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for gauge in NAMESPACE_GAUGES:
        labels = [sample.labels["namespace"] for sample in families[f"leasehold_{gauge}"].samples]
        assert labels == ["a", "b"]
    assert "leasehold_namespace" not in Metrics().text({}).decode()
