"""Spans: a request of a sampled trace is told to the collector, and no other one."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from collector import Collector, attributes
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from running import Server, Wire, leasehold, message, refusal, running
from watching import Watch

from leasehold import VERSION

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{CALLER}-01"
WITHOUT_THE_EXTRA = "import sys; sys.modules['opentelemetry'] = None; from leasehold.__main__ import main; main()"
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "20"}
"""Milliseconds until a span is sent."""


def exporting(collector: Collector, **variables: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url} | variables


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as listening:
        yield listening


@pytest.fixture(scope="module")
def traced(collector: Collector) -> Iterator[Server]:
    """A server that sends its spans soon. The tests tell their spans apart by their traces."""
    with running(environment=exporting(collector, **SOON)) as started:
        yield started


@pytest.fixture
def trace(key: str) -> str:
    """A trace that no other test uses."""
    return f"{int.from_bytes(key.encode()[-8:]):032x}"


def sampled(trace: str, **headers: str) -> dict[str, str]:
    return {"traceparent": f"00-{trace}-{CALLER}-01"} | headers


def of(trace: str, collector: Collector) -> list[Span]:
    return [span for span in collector.spans if span.trace_id.hex() == trace]


def only(trace: str, server: Server, collector: Collector) -> Span:
    """The span of a trace. A later span of another trace shows that no more will come."""
    last = "f" * 16 + trace[16:]
    server.request("GET", "/health/live", headers=sampled(last))
    spans_after(last, collector)
    (span,) = of(trace, collector)
    return span


def spans_after(last: str, collector: Collector) -> list[Span]:
    """All spans, once the one of the trace `last` is there. The spans of one process arrive in their order."""
    count = 1
    while not of(last, collector):
        collector.await_spans(count)
        count = len(collector.spans) + 1
    return collector.spans


# What a span has ------------------------------------------------------------------------------------------------


def test_a_sampled_request_has_a_span_with_the_caller_as_its_parent(
    traced: Server, collector: Collector, key: str, trace: str
) -> None:
    before = time.time_ns()
    traced.put(key, "1", headers=sampled(trace, **{"X-Request-Id": "mine", "User-Agent": "me/1"}))
    after = time.time_ns()
    span = only(trace, traced, collector)
    assert (span.parent_span_id.hex(), span.kind, span.name) == (CALLER, Span.SPAN_KIND_SERVER, "POST /kv/{key}")
    assert span.span_id.hex() not in (CALLER, "0" * 16)
    assert before <= span.start_time_unix_nano < span.end_time_unix_nano <= after
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert attributes(span) == {
        "http.request.method": "POST",
        "http.route": "/kv/{key}",
        "http.response.status_code": 201,
        "http.response.header.x-request-id": ["mine"],
        "network.protocol.version": "1.1",
        "url.path": f"/kv/{key}",
        "url.scheme": "http",
        "client.address": "127.0.0.1",
        "network.peer.address": "127.0.0.1",
        "user_agent.original": "me/1",
    }


def test_spans_name_the_service_and_its_version(traced: Server, collector: Collector, trace: str) -> None:
    traced.request("GET", "/health", headers=sampled(trace))
    only(trace, traced, collector)
    (resource,) = {json.dumps(attributes(each.resource_spans[0].resource)) for each in collector.requests}
    shown = json.loads(resource)
    assert (shown["service.name"], shown["service.version"]) == ("leasehold", VERSION)
    assert set(collector.paths) == {"/v1/traces"}


def test_the_state_of_the_trace_is_passed_on(traced: Server, collector: Collector, trace: str) -> None:
    traced.request("GET", "/health", headers=sampled(trace, tracestate="vendor=a1,other=b2"))
    assert only(trace, traced, collector).trace_state == "vendor=a1,other=b2"


def test_a_span_has_neither_the_query_nor_a_value_nor_a_token(
    traced: Server, collector: Collector, key: str, trace: str
) -> None:
    headers = sampled(trace, Authorization="Bearer hidden-token")
    traced.put(f"{key}?path=/hidden-path", '"hidden-value"', headers=headers)
    assert b"hidden" not in only(trace, traced, collector).SerializeToString()


@pytest.mark.parametrize(
    ("method", "target", "status", "name"),
    [
        ("GET", "/kv/absent", 404, "GET /kv/{key}"),
        ("GET", "/nowhere", 404, "GET"),
        ("GET", "/kv", 200, "GET /kv"),
        ("GET", "/kv/absent?wait=0.1", 404, "GET /kv/{key}"),
        ("GET", "/watch", 200, "GET /watch"),
        ("OPTIONS", "/kv/a", 204, "OPTIONS /kv/{key}"),
        ("PROPFIND", "/kv/a", 501, "HTTP"),
    ],
)
def test_every_kind_of_answer_has_a_span(
    traced: Server, collector: Collector, trace: str, method: str, target: str, status: int, name: str
) -> None:
    if target == "/watch":
        with Watch(traced, "", f"traceparent: 00-{trace}-{CALLER}-01") as watch:
            watch.next()
    else:
        with Wire(traced) as wire:
            answer = wire.send(message(method, target, f"traceparent: 00-{trace}-{CALLER}-01")).answer()
            assert answer.status == status
    span = only(trace, traced, collector)
    told = attributes(span)
    known = method if name != "HTTP" else "_OTHER"
    assert (span.name, told["http.request.method"], told["http.response.status_code"]) == (name, known, status)
    assert told.get("http.request.method_original") == (None if known == method else method)
    assert (span.status.code == Status.STATUS_CODE_ERROR, told.get("error.type")) == (
        status >= 500,
        str(status) if status >= 500 else None,
    )


# Which requests have one ----------------------------------------------------------------------------------------


def test_no_other_request_has_a_span(traced: Server, collector: Collector, key: str, trace: str) -> None:
    before = len(collector.spans)
    for sent in (None, f"00-{trace}-{CALLER}-00", f"00-{trace}-{CALLER}-02", f"00-{trace}-{CALLER}-1", "nonsense"):
        headers: Mapping[str, str] = {} if sent is None else {"traceparent": sent}
        for _ in range(3):
            traced.put(key, "1", headers=headers)
            traced.get(key, headers=headers)
    span = only_new(before, traced, collector, trace)
    assert span.name == "GET /health/live"


def only_new(before: int, server: Server, collector: Collector, trace: str) -> Span:
    """The one span after the first `before`: of a request that this sends."""
    server.request("GET", "/health/live", headers=sampled(trace))
    (span,) = spans_after(trace, collector)[before:]
    return span


@pytest.mark.parametrize(
    "variables",
    [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}],
    ids=lambda variables: next(iter(variables)),
)
def test_the_variables_of_opentelemetry_turn_the_export_off(variables: dict[str, str]) -> None:
    with Collector() as idle, running(environment=exporting(idle, **SOON, **variables)) as server:
        server.request("GET", "/health", headers=sampled(TRACE))
        assert server.terminate() == 0
        assert (idle.spans, idle.is_asked.is_set()) == ([], False)
        assert ("OTEL_EXPORTER_OTLP_PROTOCOL" in server.log()) == ("OTEL_EXPORTER_OTLP_PROTOCOL" in variables)


def test_the_variables_of_opentelemetry_name_the_service() -> None:
    names = {"OTEL_SERVICE_NAME": "orders", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test"}
    with Collector() as own:
        with running(environment=exporting(own, **names)) as server:
            server.request("GET", "/health", headers=sampled(TRACE))
            server.terminate()
        shown = attributes(own.requests[0].resource_spans[0].resource)
    assert (shown["service.name"], shown["deployment.environment.name"]) == ("orders", "test")


def test_a_value_that_opentelemetry_does_not_accept_is_reported_at_the_start(tmp_path: Path) -> None:
    wrong = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "OTEL_BSP_MAX_QUEUE_SIZE": "0"}
    started = leasehold("serve", "--port=0", f"--store={tmp_path / 'data.json'}", environment=wrong)
    assert (started.returncode, started.stderr.count("\n")) == (2, 1)
    assert "OTEL_BSP_" in started.stderr


def test_without_the_extra_the_service_starts_and_warns() -> None:
    program = ("-c", WITHOUT_THE_EXTRA)
    with Collector() as idle, running(environment=exporting(idle), program=program) as server:
        assert refusal(server.get("absent", headers=sampled(TRACE))) == (404, "not_found")
        assert "'.[otel]'" in server.log()


# The end, and a collector that fails ----------------------------------------------------------------------------


def test_the_last_spans_are_sent_at_the_end() -> None:
    with Collector() as own:
        with running(environment=exporting(own, OTEL_BSP_SCHEDULE_DELAY="3600000")) as server:
            server.lease("held")
            with Wire(server) as wire:
                wire.send(message("POST", "/locks/held", f"traceparent: {SAMPLED}", body=b'{"wait": 60}'))
                until_waiting(server, "held")
                assert own.spans == []
                code = server.terminate()
                assert wire.answer().refusal == (503, "unavailable")
        (span,) = own.spans
    assert (code, span.name, span.status.code) == (0, "POST /locks/{name}", Status.STATUS_CODE_ERROR)


def until_waiting(server: Server, lock: str) -> None:
    while not server.waiters(lock):
        time.sleep(0.01)


def test_a_collector_that_cannot_be_reached_delays_no_request_and_no_end() -> None:
    with Collector() as gone:
        url = gone.url
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": url} | SOON
    with running(environment=environment, arguments=["--log-format=json"]) as server:
        for _ in range(20):
            assert server.request("GET", "/health", headers=sampled(TRACE)).status_code == 200
        assert server.terminate() == 0
        lines: list[dict[str, Any]] = [json.loads(line) for line in server.log().splitlines()]
    faults = [line["reason"] for line in lines if line["event"] == "OpenTelemetry reports a fault"]
    assert 0 < len(faults) <= 3


def test_a_collector_that_hangs_does_not_hold_up_the_end() -> None:
    with Collector(hangs=True) as stuck, running(environment=exporting(stuck, **SOON)) as server:
        server.request("GET", "/health", headers=sampled(TRACE))
        assert stuck.is_asked.wait(60)
        assert server.request("GET", "/health", headers=sampled(TRACE)).status_code == 200
        assert server.terminate() == 0
        assert "the last spans were not sent in time" in server.log()
