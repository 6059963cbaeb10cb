"""The metrics of the service, and their text for Prometheus.

Counting is plain arithmetic on numbers of this process, because a request must not wait for it. With several workers,
each writes its numbers to a shared folder every second. The worker that is asked adds all of them up, so the metrics
cover the whole service. When a worker dies, its counters still count and its gauges do not.
"""

import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

SECONDS_BOUNDS: Final = (
    *(0.0005, 0.001, 0.0025),
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
"""The bounds that the conventions of OpenTelemetry advise, and smaller ones: most requests take less than 5 ms."""
BATCH_BOUNDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0)
SUMMED_GAUGES: Final = frozenset(
    {"connections", "max_connections", "waiting_operations", "waiters", "waiting_reads", "watchers"}
)
"""Gauges that are added up over all workers."""
LARGEST_GAUGES: Final = frozenset({"watch_lag_revisions"})
"""Gauges of which the largest of all workers is shown. All others describe the store and are the same for every worker.
"""

GAUGES: Final[Mapping[str, str]] = {
    "connections": "Open connections.",
    "max_connections": "The limit of open connections.",
    "waiting_operations": "Changes that wait in the lane for the next commit.",
    "revision": "The head: the revision of the last change that readers can see.",
    "degraded": "1 while writes cannot be made durable.",
    "entries": "Entries in the store.",
    "leases": "Leases in the store, expired ones included until they are removed.",
    "receipts": "Outcomes of requests with an Idempotency-Key that are kept, expired ones included until removed.",
    "waiters": "Requests that wait for a lock.",
    "waiting_reads": "Reads that wait for another answer.",
    "watchers": "Open watches.",
    "watch_lag_revisions": "Revisions that the watcher furthest behind has not been sent yet.",
    "journal_bytes": "Bytes of records in the journal since the last checkpoint.",
}

NAMESPACE_GAUGES: Final[Mapping[str, str]] = {
    "namespace_entries": "Entries in the namespace, expired ones included until they are removed.",
    "namespace_bytes": "Bytes of the keys and values in the namespace.",
    "namespace_revision": "The head of the namespace: it grows by one with each change.",
    "namespace_max_entries": "The quota of entries. +Inf without one.",
    "namespace_max_bytes": "The quota of bytes. +Inf without one.",
}
"""Each has the label `namespace`."""

COUNTERS: Final[Mapping[str, str]] = {
    "fenced_writes_refused": "Writes and transactions that were refused because their lease was not alive.",
    "replayed_requests": "Requests with an Idempotency-Key that were done before, so only their response was repeated.",
    "quota_refusals": "Writes and transactions that were refused because of the quota of their namespace.",
    "storage_full_refusals": "Writes and transactions that were refused because the disk is full.",
}

NO_NAMESPACES: Final[Mapping[str, Mapping[str, float]]] = {}
KNOWN_METHODS: Final = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
"""Those of RFC 9110, and PATCH. OpenTelemetry calls every other method OTHER_METHOD."""
OTHER_METHOD: Final = "_OTHER"
NO_ROUTE: Final = "-"
_REQUEST_LABELS: Final = (
    "http_request_method",
    "http_route",
    "http_response_status_code",
    "error_type",
    "network_protocol_version",
    "url_scheme",
)
"""The attributes of `http.server.request.duration`, as Prometheus writes their names:
https://opentelemetry.io/docs/specs/semconv/http/http-metrics and
https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics"""


def place_of(seconds: float) -> int:
    """The index of a time in the counts of a histogram whose bounds are SECONDS_BOUNDS."""
    return bisect_left(SECONDS_BOUNDS, seconds)


class Distribution(msgspec.Struct):
    """A histogram: `counts[i]` values were at most `bounds[i]`; the last count is of values above all bounds."""

    counts: list[int]
    total: float = 0.0

    def count_seconds(self, seconds: float) -> None:
        """Count a request. The bounds are SECONDS_BOUNDS."""
        if seconds:
            self.counts[place_of(seconds)] += 1
            self.total += seconds
        else:  # answered in the same turn of the event loop
            self.counts[0] += 1

    def add(self, other: "Distribution") -> None:
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class Figures(msgspec.Struct):
    """All numbers of one process.

    The keys of `requests` are method, route pattern, status and version of HTTP, separated by spaces.
    """

    requests: dict[str, Distribution] = {}
    batches: Distribution = msgspec.field(default_factory=lambda: Distribution([0] * (len(BATCH_BOUNDS) + 1)))
    gauges: dict[str, float] = {}
    counters: dict[str, int] = {}
    """By the names in COUNTERS."""


class Metrics:
    """The numbers of this process. `folder`: where workers exchange their numbers; None for a single process."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._requests: dict[tuple[str, str, int, str], Distribution] = {}
        self._batches = Distribution([0] * (len(BATCH_BOUNDS) + 1))
        self._counters = dict.fromkeys(COUNTERS, 0)

    def seconds_of(self, method: str, pattern: str, status: int, version: str = "1.1") -> Distribution:
        """The histogram of these requests. It is shown from the first call on, so call it for an answer."""
        series = (method, pattern, status, version)
        distribution = self._requests.get(series)
        if distribution is None:
            distribution = self._requests[series] = Distribution([0] * (len(SECONDS_BOUNDS) + 1))
        return distribution

    def count_request(self, method: str, pattern: str, status: int, seconds: float, version: str) -> None:
        """`version`: of HTTP, `1.1` or `1.0`."""
        distribution = self._requests.get((method, pattern, status, version))
        if distribution is None:
            distribution = self.seconds_of(method, pattern, status, version)
        distribution.count_seconds(seconds)

    def count(self, counter: str) -> None:
        """`counter`: one of COUNTERS."""
        self._counters[counter] += 1

    def count_batch(self, operations: int) -> None:
        self._batches.counts[bisect_left(BATCH_BOUNDS, operations)] += 1
        self._batches.total += operations

    def write_to_folder(self, gauges: Callable[[], Mapping[str, float]]) -> None:
        """Write this worker's numbers to the folder that all workers read. `gauges` is called if there is a folder."""
        if self._folder is None:
            return
        file = self._folder / f"{os.getpid()}.json"
        temporary = file.with_suffix(".tmp")
        with suppress(OSError):  # a full disk must not end the sweep that writes them
            temporary.write_bytes(msgspec.json.encode(self._figures(gauges())))
            temporary.replace(file)

    def text(self, gauges: Mapping[str, float], namespaces: Mapping[str, Mapping[str, float]] = NO_NAMESPACES) -> bytes:
        """The metrics of the whole service, in the text format of Prometheus.

        `gauges`: those of this process, by the names in GAUGES. `namespaces`: by namespace, those in NAMESPACE_GAUGES.
        """
        whole = self._figures(gauges)
        for others in self._others():
            for series, distribution in others.requests.items():
                if series in whole.requests:
                    whole.requests[series].add(distribution)
                else:
                    whole.requests[series] = distribution
            whole.batches.add(others.batches)
            for name in SUMMED_GAUGES & others.gauges.keys():
                whole.gauges[name] += others.gauges[name]
            for name in LARGEST_GAUGES & others.gauges.keys():
                whole.gauges[name] = max(whole.gauges[name], others.gauges[name])
            for name in whole.counters.keys() & others.counters.keys():
                whole.counters[name] += others.counters[name]
        registry = CollectorRegistry()
        registry.register(_Families(whole, namespaces))
        return generate_latest(registry)

    def _figures(self, gauges: Mapping[str, float]) -> Figures:
        return Figures(
            {" ".join(map(str, series)): _copy(seen) for series, seen in self._requests.items()},
            _copy(self._batches),
            dict(gauges),
            dict(self._counters),
        )

    def _others(self) -> Iterator[Figures]:
        if self._folder is None:
            return
        for file in self._folder.glob("*.json"):
            pid = int(file.stem)
            if pid == os.getpid():
                continue
            with suppress(FileNotFoundError):
                figures = msgspec.json.decode(file.read_bytes(), type=Figures)
                if not _is_alive(pid):
                    figures.gauges.clear()
                yield figures


class _Families(Collector):
    """The numbers as metric families of the Prometheus client."""

    def __init__(self, figures: Figures, namespaces: Mapping[str, Mapping[str, float]]) -> None:
        self._figures = figures
        self._namespaces = namespaces

    def collect(self) -> Iterator[Metric]:
        seconds = HistogramMetricFamily(
            "http_server_request_duration_seconds",
            "Time from the complete request to its response.",
            labels=_REQUEST_LABELS,
        )
        for labels, seen in sorted(_by_labels(self._figures.requests).items()):
            seconds.add_metric(labels, _buckets(SECONDS_BOUNDS, seen), seen.total)
        yield seconds
        batches = HistogramMetricFamily("leasehold_batch_operations", "Changes that shared one durable commit.")
        batches.add_metric((), _buckets(BATCH_BOUNDS, self._figures.batches), self._figures.batches.total)
        yield batches
        commits = sum(self._figures.batches.counts)
        yield CounterMetricFamily("leasehold_commits", "Durable commits.", value=commits)
        for name, value in self._figures.gauges.items():
            yield GaugeMetricFamily(f"leasehold_{name}", GAUGES[name], value=value)
        if self._namespaces:
            yield from map(self._of_namespaces, NAMESPACE_GAUGES)
        for name, total in self._figures.counters.items():
            yield CounterMetricFamily(f"leasehold_{name}", COUNTERS[name], value=total)

    def _of_namespaces(self, gauge: str) -> GaugeMetricFamily:
        family = GaugeMetricFamily(f"leasehold_{gauge}", NAMESPACE_GAUGES[gauge], labels=("namespace",))
        for namespace, gauges in self._namespaces.items():
            if gauge in gauges:
                family.add_metric((namespace,), gauges[gauge])
        return family


def _by_labels(requests: Mapping[str, Distribution]) -> Mapping[tuple[str, ...], Distribution]:
    """The histograms by the values of _REQUEST_LABELS. All unknown methods together are OTHER_METHOD."""
    merged: dict[tuple[str, ...], Distribution] = {}
    for series, seen in requests.items():
        method, pattern, status, version = series.split(" ")
        # An empty label is the same as none. Only a failure of the server is an error in the conventions.
        labels = (
            method if method in KNOWN_METHODS else OTHER_METHOD,
            "" if pattern == NO_ROUTE else pattern,
            status,
            status if status >= "500" else "",
            version,
            "http",
        )
        if labels in merged:
            merged[labels].add(seen)
        else:
            merged[labels] = _copy(seen)
    return merged


def _buckets(bounds: tuple[float, ...], seen: Distribution) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound, as Prometheus expects them."""
    names = [*map(str, bounds), "+Inf"]
    return [(name, sum(seen.counts[: index + 1])) for index, name in enumerate(names)]


def _copy(seen: Distribution) -> Distribution:
    return Distribution(list(seen.counts), seen.total)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
