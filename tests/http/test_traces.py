"""`traceparent`: the id of the trace is in errors and in the log; a malformed header changes nothing."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from callers import READER, UNAUTHENTICATED, bearer, token
from running import Server, Wire, message, refusal, running

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SENT = f"00-{TRACE}-00f067aa0ba902b7-01"
TRACED = {"traceparent": SENT}


@pytest.fixture(scope="module")
def talkative() -> Iterator[Server]:
    """A server that logs each request, as JSON."""
    with running(log_level="debug", arguments=["--log-format=json"]) as started:
        yield started


def lines(server: Server, request_id: str) -> list[dict[str, Any]]:
    """The lines of the log about a request."""
    events: list[dict[str, Any]] = [json.loads(line) for line in server.log().splitlines()]
    return [event for event in events if event.get("request_id") == request_id]


@pytest.mark.parametrize("flags", ["00", "01"])
def test_an_error_has_the_id_of_the_trace(server: Server, key: str, flags: str) -> None:
    refused = server.get(key, headers={"traceparent": SENT[:-2] + flags, "X-Request-Id": "mine"})
    assert refused.json() == {
        "error": "not_found",
        "message": "key does not exist",
        "request_id": "mine",
        "trace_id": TRACE,
    }


@pytest.mark.parametrize("sent", ["", "nonsense", SENT.upper(), f"ff{SENT[2:]}", f"{SENT}-more"])
def test_a_malformed_traceparent_changes_nothing(server: Server, key: str, sent: str) -> None:
    refused = server.get(key, headers={"traceparent": sent})
    assert (refusal(refused), set(refused.json())) == ((404, "not_found"), {"error", "message", "request_id"})
    assert server.put(key, "1", headers={"traceparent": sent}).status_code == 201


def test_two_traceparents_name_no_trace(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(message("GET", f"/kv/{key}", f"traceparent: {SENT}", f"traceparent: {SENT}"))
        assert "trace_id" not in json.loads(wire.answer().body)


def test_the_name_of_the_header_may_be_written_in_any_way(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(message("GET", f"/kv/{key}", f"TraceParent:{SENT}"))
        assert json.loads(wire.answer().body)["trace_id"] == TRACE


def test_each_request_of_a_connection_has_its_own_trace(server: Server, key: str) -> None:
    told: list[str | None] = []
    with Wire(server) as wire:
        for number in (1, 2, None, 3, None, None, 3):
            field = [] if number is None else [f"traceparent: 00-{number:032x}-00f067aa0ba902b7-00"]
            wire.send(message("GET", f"/kv/{key}", *field))
            told.append(json.loads(wire.answer().body).get("trace_id"))
    assert told == [number and f"{number:032x}" for number in (1, 2, None, 3, None, None, 3)]


def test_a_success_is_the_same_with_a_trace_and_without(server: Server, key: str) -> None:
    server.put(key, '{"a": 1}')
    same = {"X-Request-Id": "same"}
    plain, traced = (server.get(key, headers=same | more) for more in ({}, TRACED))
    assert (plain.status_code, plain.content) == (traced.status_code, traced.content)
    assert {**plain.headers, "date": ""} == {**traced.headers, "date": ""}


def test_a_request_that_is_refused_at_its_head_has_the_id_of_its_trace(server: Server) -> None:
    with Wire(server) as wire:
        wire.send(message("PUT", "/kv/a", f"traceparent: {SENT}", "Content-Type: text/yaml", body=b"a: 1"))
        answer = wire.answer()
        assert (answer.refusal, json.loads(answer.body)["trace_id"]) == ((415, "unsupported_media_type"), TRACE)


def test_the_line_of_a_request_has_the_id_of_its_trace(talkative: Server, key: str) -> None:
    for name, headers in (("traced", TRACED), ("plain", {})):
        talkative.put(key, "1", headers={"X-Request-Id": f"{key}-{name}"} | headers)
    (traced,), (plain,) = (lines(talkative, f"{key}-{name}") for name in ("traced", "plain"))
    assert (traced["event"], traced["trace_id"], "trace_id" in plain) == ("request", TRACE, False)


def test_the_lines_of_a_refusal_and_of_a_forced_end_have_the_id_of_the_trace(guarded: Server, lock: str) -> None:
    unknown = guarded.get("a", headers=TRACED | {"X-Request-Id": f"{lock}-1"})
    assert (refusal(unknown), unknown.json()["trace_id"]) == (UNAUTHENTICATED, TRACE)
    admin = bearer(token("write", "admin"))
    guarded.request("POST", f"/locks/{lock}", headers=admin)
    ended = guarded.request("DELETE", f"/locks/{lock}?force", headers=admin | TRACED | {"X-Request-Id": f"{lock}-2"})
    assert ended.status_code == 200
    for number, event in ((1, "request refused"), (2, "a lease is ended by force")):
        (line,) = [each for each in guarded.log().splitlines() if event in each and f"{lock}-{number}" in each]
        assert TRACE in line
    assert guarded.get("a", headers=READER | TRACED).json()["trace_id"] == TRACE
