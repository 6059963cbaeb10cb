"""The text of the metrics, and how the numbers of several workers are put together."""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from leasehold.metrics import COUNTERS, GAUGES, SECONDS_BOUNDS, SUMMED_GAUGES, Metrics

DURATION = "http_server_request_duration_seconds"
ADVISED = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
"""https://opentelemetry.io/docs/specs/semconv/http/http-metrics"""


def families(metrics: Metrics, **gauges: float) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(metrics.text(gauges).decode())}


def counted(metrics: Metrics) -> list[tuple[dict[str, str], float]]:
    """The labels and the count of each kind of request."""
    return [
        ({name: text for name, text in sample.labels.items() if text}, sample.value)
        for sample in families(metrics)[DURATION].samples
        if sample.name.endswith("_count")
    ]


def labels(method: str, status: str, version: str = "1.1", **more: str) -> dict[str, str]:
    return {
        "http_request_method": method,
        "http_response_status_code": status,
        "network_protocol_version": version,
        "url_scheme": "http",
        **more,
    }


def test_a_request_has_the_labels_of_the_conventions() -> None:
    metrics = Metrics()
    metrics.count_request("GET", "/kv/{key}", 200, 0.2, "1.1")
    metrics.count_request("GET", "/kv/{key}", 200, 0.0, "1.0")
    metrics.count_request("GET", "/kv/{key}", 404, 0.0, "1.1")
    route = {"http_route": "/kv/{key}"}
    assert counted(metrics) == [
        (labels("GET", "200", "1.0", **route), 1),
        (labels("GET", "200", **route), 1),
        (labels("GET", "404", **route), 1),
    ]


def test_only_a_failure_of_the_server_has_a_type_of_error() -> None:
    metrics = Metrics()
    for status in (399, 499, 500, 503, 507):
        metrics.count_request("GET", "/health", status, 0.0, "1.1")
    assert [each.get("error_type") for each, _ in counted(metrics)] == [None, None, "500", "503", "507"]


def test_a_request_without_a_route_has_no_label_for_it() -> None:
    metrics = Metrics()
    metrics.count_request("GET", "-", 404, 0.0, "1.1")
    assert counted(metrics) == [(labels("GET", "404"), 1)]


def test_methods_that_the_conventions_do_not_know_are_counted_together() -> None:
    metrics = Metrics()
    for method in ("-", "PROPFIND", "LOCK", "get"):
        metrics.count_request(method, "-", 501, 0.001, "1.1")
    assert counted(metrics) == [(labels("_OTHER", "501", error_type="501"), 4)]


def test_the_buckets_are_the_advised_ones_and_smaller_ones() -> None:
    assert [bound for bound in SECONDS_BOUNDS if bound >= ADVISED[0]] == ADVISED
    assert list(SECONDS_BOUNDS) == sorted(SECONDS_BOUNDS)


def test_a_duration_is_counted_in_all_buckets_from_its_own_on() -> None:
    metrics = Metrics()
    for seconds in (0.0, 0.0005, 0.07, 0.075, 11.0):
        metrics.count_request("GET", "/health", 200, seconds, "1.1")
    buckets = {
        float(sample.labels["le"]): sample.value
        for sample in families(metrics)[DURATION].samples
        if sample.name.endswith("_bucket")
    }
    assert (buckets[0.0005], buckets[0.05], buckets[0.075], buckets[10.0], buckets[float("inf")]) == (2, 2, 4, 4, 5)


def test_a_counter_is_shown_before_it_counts() -> None:
    metrics = Metrics()
    before = {name: families(metrics)[f"leasehold_{name}"].samples[0].value for name in COUNTERS}
    for name in COUNTERS:
        metrics.count(name)
    after = {name: families(metrics)[f"leasehold_{name}"].samples[0].value for name in COUNTERS}
    assert ({*before.values()}, {*after.values()}) == ({0}, {1})


def test_the_numbers_of_workers_are_added_up(tmp_path: Path) -> None:
    own, other = Metrics(tmp_path), Metrics(tmp_path)
    for metrics in (own, other):
        metrics.count_request("GET", "/health", 200, 0.0, "1.1")
        metrics.count("fenced_writes_refused")
    other.write_to_folder(lambda: {"watchers": 3, "revision": 8})
    left = tmp_path / f"{os.getpid()}.json"
    left.rename(tmp_path / f"{os.getppid()}.json")  # as if it were the file of another process that runs
    shown = {
        family.name: family
        for family in text_string_to_metric_families(own.text({"watchers": 2, "revision": 8}).decode())
    }
    values = [shown[f"leasehold_{name}"].samples[0].value for name in ("watchers", "revision", "fenced_writes_refused")]
    counts = [sample.value for sample in shown[DURATION].samples if sample.name.endswith("_count")]
    assert (values, counts) == ([5, 8, 2], [2])


def test_the_counters_of_a_dead_worker_still_count_and_its_gauges_do_not(tmp_path: Path) -> None:
    own, dead = Metrics(tmp_path), Metrics(tmp_path)
    dead.count("fenced_writes_refused")
    dead.write_to_folder(lambda: {"watchers": 3})
    (tmp_path / f"{os.getpid()}.json").rename(tmp_path / "4194305.json")  # more than any process id
    shown = families(own, watchers=1)
    assert [shown[f"leasehold_{name}"].samples[0].value for name in ("watchers", "fenced_writes_refused")] == [1, 1]


def test_without_a_folder_the_gauges_are_not_made() -> None:
    """They are made of all stores, and this is called every second."""

    def fail() -> Mapping[str, float]:
        raise AssertionError("the gauges were made")

    Metrics().write_to_folder(fail)


def test_a_file_without_counters_is_accepted(tmp_path: Path) -> None:
    (tmp_path / f"{os.getppid()}.json").write_bytes(msgspec.json.encode({"requests": {}}))
    assert families(Metrics(tmp_path))["leasehold_fenced_writes_refused"].samples[0].value == 0


def test_every_summed_gauge_is_a_gauge() -> None:
    assert GAUGES.keys() >= SUMMED_GAUGES
