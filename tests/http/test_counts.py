"""`GET /metrics`: what a running service counts."""

import json
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from running import Server, Wire, message, refusal

DURATION = "http_server_request_duration_seconds_count"
DEAD = "0" * 32
"""A lease that is not alive."""
LOST = (412, "lease_lost")


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


def value(server: Server, name: str, **labels: str) -> float:
    """The sum of the series that have these labels."""
    text = server.request("GET", "/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = [each for each in samples if each.name == name]
    assert found, name
    return sum(each.value for each in found if labels.items() <= each.labels.items())


def refused_writes(server: Server) -> float:
    return value(server, "leasehold_fenced_writes_refused_total")


def transact(server: Server, *checks: Any) -> Any:
    body = {"if": checks, "do": [{"op": "put", "key": "never", "value": 1}]}
    return server.request("POST", "/txn", content=json.dumps(body))


def test_requests_are_counted_by_the_names_of_the_conventions(server: Server, key: str) -> None:
    told = {"http_request_method": "PATCH", "http_route": "/kv/{key}", "http_response_status_code": "404"}
    told |= {"network_protocol_version": "1.1", "url_scheme": "http", "error_type": ""}
    before = value(server, DURATION, **told)
    server.patch(key, "{}", headers={"If-Match": "*"})
    assert value(server, DURATION, **told) == before + 1


def test_a_method_that_is_unknown_is_counted_as_other(server: Server) -> None:
    told = {"http_request_method": "_OTHER", "http_response_status_code": "501", "error_type": "501"}
    before = value(server, DURATION, **told)
    with Wire(server) as wire:
        assert wire.send(message("BREW", "/kv/a")).answer().status == 501
    assert value(server, DURATION, **told) == before + 1


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_write_under_a_lease_that_is_not_alive_is_counted(server: Server, key: str, method: str) -> None:
    server.put(key, "{}")
    before = refused_writes(server)
    kind = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
    content = None if method == "DELETE" else b"{}"
    refused = server.request(method, f"/kv/{key}", content=content, headers={"If-Lease": DEAD} | kind)
    assert (refusal(refused), refused_writes(server)) == (LOST, before + 1)


def test_a_transaction_with_a_lease_that_is_not_alive_is_counted_once(server: Server, key: str) -> None:
    before = refused_writes(server)
    refused = transact(server, {"key": key, "exists": True}, {"lease": DEAD}, {"lease": DEAD})
    assert (refusal(refused), refused_writes(server)) == ((412, "precondition_failed"), before + 1)


def test_a_refusal_for_another_reason_is_not_counted(server: Server, key: str, lock: str) -> None:
    lease_id = server.lease(lock)["lease_id"]
    before = refused_writes(server)
    assert refusal(transact(server, {"key": key, "exists": True})) == (412, "precondition_failed")
    assert refusal(server.put(key, "1", headers={"If-Match": '"0"', "If-Lease": lease_id}))[0] == 412
    assert refusal(server.renew(lock, DEAD)) == (409, "lease_lost")
    assert refusal(server.release(lock, DEAD)) == (409, "lease_lost")
    assert server.put(key, "1", headers={"If-Lease": lease_id}).status_code == 201
    assert refused_writes(server) == before


def test_the_limit_of_connections_is_shown_beside_their_number(server: Server) -> None:
    limit, count = value(server, "leasehold_max_connections"), value(server, "leasehold_connections")
    assert 1 <= count <= limit
