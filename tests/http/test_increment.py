"""`POST /kv/{key}?increment`: a number is added in the commit, exactly."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgspec
import pytest
from callers import FORBIDDEN, READER, WRITER, put
from running import Server, refusal

CONFLICT = (409, "conflict")
INVALID = (400, "invalid_argument")
MSGPACK = "application/vnd.msgpack"


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


@pytest.fixture(scope="module")
def guarded(any_guarded: Server) -> Server:
    """Permissions are tested on every engine, too."""
    return any_guarded


def add(server: Server, key: str, amount: Any, query: str = "", **options: Any) -> httpx.Response:
    return server.request("POST", f"/kv/{key}?increment{query}", content=json.dumps(amount), **options)


def test_a_number_is_added_to_a_part_and_the_sum_is_told_as_by_a_partial_write(server: Server, key: str) -> None:
    server.put(key, '{"n": 41, "m": 1}')
    response = add(server, key, 1, "&path=/n")
    told = response.json()
    assert (response.status_code, told["value"], told["path"]) == (200, 42, "/n")
    assert response.headers["ETag"].startswith(f'"{told["revision"]}.')
    assert server.value(key) == {"n": 42, "m": 1}


def test_a_missing_entry_or_part_counts_as_0(server: Server, key: str) -> None:
    created = add(server, key, 2, "&path=/a/n")
    assert (created.status_code, created.headers["Location"], created.json()["value"]) == (201, f"/kv/{key}", 2)
    assert add(server, key, 3, "&path=/b").json()["value"] == 3
    assert server.value(key) == {"a": {"n": 2}, "b": 3}
    whole = add(server, f"{key}/whole", 5)
    assert (whole.status_code, whole.json()["value"], "path" in whole.json()) == (201, 5, False)


def test_integers_stay_exact_up_to_their_limits(server: Server, key: str) -> None:
    assert add(server, key, 2**63 + 1).json()["value"] == 2**63 + 1
    assert add(server, key, 2**63 - 2).json()["value"] == 2**64 - 1
    assert refusal(add(server, key, 1)) == CONFLICT
    assert server.value(key) == 2**64 - 1
    server.put(key, str(-(2**63)))
    assert refusal(add(server, key, -1)) == CONFLICT
    assert add(server, key, 1.5).json()["value"] == -(2.0**63)


@pytest.mark.parametrize("value", ["null", "true", '"1"', "[1]", "{}"])
def test_what_is_not_a_number_is_not_incremented(server: Server, key: str, value: str) -> None:
    server.put(key, f'{{"n": {value}}}')
    assert refusal(add(server, key, 1, "&path=/n")) == CONFLICT
    assert refusal(add(server, key, 1)) == CONFLICT
    assert server.value(key) == {"n": json.loads(value)}


@pytest.mark.parametrize("amount", [None, True, "1", [1], {}])
def test_the_body_must_be_a_number(server: Server, key: str, amount: Any) -> None:
    assert refusal(add(server, key, amount)) == INVALID
    assert server.get(key).status_code == 404


def test_put_has_no_increment(server: Server, key: str) -> None:
    assert refusal(server.request("PUT", f"/kv/{key}?increment", content="1")) == INVALID
    assert server.get(key).status_code == 404


def test_increment_false_is_a_usual_write(server: Server, key: str) -> None:
    server.put(key, "1")
    assert server.request("POST", f"/kv/{key}?increment=false", content="5").json()["value"] == 5


def test_messagepack_is_accepted_and_sent(server: Server, key: str) -> None:
    headers = {"Content-Type": MSGPACK, "Accept": MSGPACK}
    response = server.request("POST", f"/kv/{key}?increment", content=msgspec.msgpack.encode(7), headers=headers)
    assert msgspec.msgpack.decode(response.content)["value"] == 7


def test_conditions_leases_and_preferences_work_as_for_other_writes(server: Server, key: str) -> None:
    revision = add(server, key, 1).json()["revision"]
    assert refusal(add(server, key, 1, headers={"If-None-Match": "*"})) == (412, "precondition_failed")
    assert refusal(add(server, key, 1, headers={"If-Lease": "0" * 32})) == (412, "lease_lost")
    done = add(server, key, 1, headers={"If-Match": f'"{revision}"', "Prefer": "return=minimal"})
    assert (done.status_code, "value" in done.json(), server.value(key)) == (200, False, 2)


def test_a_ttl_is_set_removed_or_kept(server: Server, key: str) -> None:
    expires_at = add(server, key, 1, "&ttl=3000").json()["expires_at"]
    assert add(server, key, 1, "&ttl=keep").json()["expires_at"] == expires_at
    assert "expires_at" not in add(server, key, 1).json()
    assert server.value(key) == 3


def test_increments_at_the_same_time_all_count(server: Server, key: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        sums = [answer.json()["value"] for answer in pool.map(lambda _: add(server, key, 1, "&path=/n"), range(200))]
    assert sorted(sums) == list(range(1, 201))


def test_an_increment_in_a_transaction_has_its_sum(server: Server, key: str) -> None:
    server.put(key, '{"n": 1}')
    do = [
        {"op": "increment", "key": key, "path": "/n", "value": 2},
        {"op": "increment", "key": f"{key}/whole", "value": -1, "ttl": 3000},
        {"op": "put", "key": f"{key}/part", "path": "/n", "value": 1},
    ]
    results = server.request("POST", "/txn", json={"do": do}).json()["results"]
    assert [each.get("value") for each in results] == [3, -1, None]
    assert [each.get("path") for each in results] == ["/n", None, "/n"]
    assert server.value(key) == {"n": 3}
    refused = server.request("POST", "/txn", json={"do": [do[2], {"op": "increment", "key": key, "value": 1}]})
    assert (refusal(refused), refused.json()["index"]) == (CONFLICT, 1)
    malformed = server.request("POST", "/txn", json={"do": [{"op": "increment", "key": key, "value": "1"}]})
    assert refusal(malformed) == INVALID


def test_a_caller_with_write_alone_is_not_told_the_sum(guarded: Server, key: str) -> None:
    put(guarded, key, 41)
    told = add(guarded, key, 1, headers=WRITER).json()
    assert sorted(told) == ["key", "revision", "updated_at"]
    do = [{"op": "increment", "key": key, "value": 1}]
    [result] = guarded.request("POST", "/txn", json={"do": do}, headers=WRITER).json()["results"]
    assert sorted(result) == ["key", "revision", "updated_at"]
    assert refusal(add(guarded, key, 1, headers=READER)) == FORBIDDEN
