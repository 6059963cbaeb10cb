"""`ttl`: an entry expires at its time, and a write without ttl removes the expiry."""

from datetime import datetime, timedelta

import pytest
from running import Server, refusal, running, until

SHORT = {"ttl": "0.15"}


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


def is_gone(server: Server, key: str) -> bool:
    return server.get(key).status_code == 404


# The time of expiry -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl", ["0.1", "1", "1.5", "60", "0.30000000000000004", "31536000", "31536000.0", "0000060"])
def test_an_entry_expires_its_ttl_after_its_write(server: Server, key: str, ttl: str) -> None:
    entry = server.put(key, "1", params={"ttl": ttl}).json()
    lives = datetime.fromisoformat(entry["expires_at"]) - datetime.fromisoformat(entry["updated_at"])
    assert lives == timedelta(seconds=float(ttl))


@pytest.mark.parametrize(
    "ttl",
    [
        "",
        "0",
        "0.0999",
        "-1",
        "31536000.1",
        "1e9",
        "1e1",
        "nan",
        "inf",
        "+5",
        "5s",
        "1_0",
        " 5",
        "5 ",
        "0x5",
        "\u0665",
        "1,5",
        ".",
    ],
)
def test_a_ttl_that_is_not_a_number_within_the_limits_is_refused(server: Server, key: str, ttl: str) -> None:
    refused = server.put(key, "1", params={"ttl": ttl})
    assert (refusal(refused), is_gone(server, key)) == ((400, "invalid_argument"), True)


# Writes with and without ttl ----------------------------------------------------------------------------------


def test_the_write_of_a_part_with_ttl_makes_the_entry_expire(server: Server, key: str) -> None:
    server.put(key, "{}")
    assert "expires_at" in server.put(key, "1", params={"path": "/a", "ttl": 60}).json()


@pytest.mark.parametrize(("kind", "patch"), [("merge-patch", "{}"), ("json-patch", "[]")])
def test_a_patch_with_ttl_makes_the_entry_expire(server: Server, key: str, kind: str, patch: str) -> None:
    server.put(key, "{}")
    assert "expires_at" in server.patch(key, patch, kind=kind, params={"ttl": 60}).json()


def test_the_deletion_of_a_part_with_ttl_makes_the_entry_expire(server: Server, key: str) -> None:
    server.put(key, '{"a": 1}')
    server.delete(key, params={"path": "/a", "ttl": 60})
    assert "expires_at" in server.get(key).json()


def test_a_ttl_for_the_deletion_of_an_entry_is_refused(server: Server, key: str) -> None:
    server.put(key, "1")
    assert refusal(server.delete(key, params={"ttl": 60})) == (400, "invalid_argument")


def test_a_write_without_ttl_removes_the_expiry(server: Server, key: str) -> None:
    server.put(key, "1", params={"ttl": 60})
    assert "expires_at" not in server.put(key, "2").json()


def test_the_write_of_a_part_without_ttl_removes_the_expiry(server: Server, key: str) -> None:
    server.put(key, "{}", params={"ttl": 60})
    server.put(key, "1", params={"path": "/a"})
    assert "expires_at" not in server.get(key).json()


@pytest.mark.parametrize(("kind", "patch"), [("merge-patch", "{}"), ("json-patch", "[]")])
def test_a_patch_without_ttl_removes_the_expiry(server: Server, key: str, kind: str, patch: str) -> None:
    server.put(key, "{}", params={"ttl": 60})
    assert "expires_at" not in server.patch(key, patch, kind=kind).json()


def test_the_deletion_of_a_part_without_ttl_removes_the_expiry(server: Server, key: str) -> None:
    server.put(key, '{"a": 1}', params={"ttl": 60})
    server.delete(key, params={"path": "/a"})
    assert "expires_at" not in server.get(key).json()


def test_a_refused_write_does_not_change_the_expiry(server: Server, key: str) -> None:
    entry = server.put(key, "1", params={"ttl": 60}).json()
    server.put(key, "2", headers={"If-None-Match": "*"})
    assert server.get(key).json() == entry


# The end ------------------------------------------------------------------------------------------------------


def test_an_expired_entry_is_not_found(server: Server, key: str) -> None:
    server.put(key, "1", params=SHORT)
    until(lambda: is_gone(server, key))
    assert refusal(server.get(key)) == (404, "not_found")


def test_an_expired_entry_is_not_listed(server: Server, key: str) -> None:
    server.put(key, "1", params=SHORT)
    until(lambda: is_gone(server, key))
    assert server.request("GET", "/kv", params={"prefix": key}).json()["entries"] == []


def test_an_entry_is_found_until_its_expiry(server: Server, key: str) -> None:
    entry = server.put(key, "1", params=SHORT).json()
    expires_at = datetime.fromisoformat(entry["expires_at"])
    while (response := server.get(key)).status_code == 200:
        assert response.json() == entry
    assert datetime.now(expires_at.tzinfo) >= expires_at - timedelta(milliseconds=20)


def test_a_write_without_ttl_before_the_expiry_keeps_the_entry(server: Server, key: str) -> None:
    server.put(key, "1", params=SHORT)
    server.put(key, "2")
    server.put(f"{key}/beside", "1", params=SHORT)
    until(lambda: is_gone(server, f"{key}/beside"))
    assert server.value(key) == 2


def test_the_removal_of_an_expired_entry_has_a_revision() -> None:
    with running() as own:
        own.put("a", "1", params=SHORT)
        until(lambda: own.revision() > 1)
        assert (is_gone(own, "a"), own.revision()) == (True, 2)


def test_a_write_to_an_expired_key_creates_it(server: Server, key: str) -> None:
    server.put(key, '{"a": 1}', params=SHORT)
    until(lambda: is_gone(server, key))
    created = server.put(key, "2", params={"path": "/b"})
    assert (created.status_code, server.value(key)) == (201, {"b": 2})


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_change_of_an_expired_entry_is_not_found(server: Server, key: str, method: str) -> None:
    server.put(key, "{}", params=SHORT)
    until(lambda: is_gone(server, key))
    changed = server.patch(key, "{}") if method == "PATCH" else server.delete(key)
    assert refusal(changed) == (404, "not_found")


def test_conditions_treat_an_expired_entry_as_absent(server: Server, key: str) -> None:
    server.put(key, "1", params=SHORT)
    until(lambda: is_gone(server, key))
    statuses = [server.put(key, "2", headers={name: "*"}).status_code for name in ("If-Match", "If-None-Match")]
    assert statuses == [412, 201]


# ttl=keep -----------------------------------------------------------------------------------------------------


def test_every_write_with_keep_keeps_the_expiry(server: Server, key: str) -> None:
    expires_at = server.put(key, '{"a": 1}', params={"ttl": "3000"}).json()["expires_at"]
    keep = {"ttl": "keep"}
    transaction = {"do": [{"op": "put", "key": key, "value": {"a": 1}, "ttl": "keep"}]}
    writes = [
        server.put(key, '{"a": 2}', params=keep),
        server.request("POST", f"/kv/{key}", content='{"a": 3}', params=keep),
        server.put(key, "4", params=keep | {"path": "/a"}),
        server.patch(key, '{"b": 1}', params=keep),
        server.patch(key, "[]", kind="json-patch", params=keep),
        server.request("POST", f"/kv/{key}", content="1", params=keep | {"path": "/n", "increment": ""}),
    ]
    assert [write.json()["expires_at"] for write in writes] == [expires_at] * len(writes)
    assert server.delete(key, params=keep | {"path": "/n"}).status_code == 200
    [result] = server.request("POST", "/txn", json=transaction).json()["results"]
    assert result["expires_at"] == server.get(key).json()["expires_at"] == expires_at


def test_every_operation_of_a_transaction_with_keep_keeps_the_expiry(server: Server, key: str) -> None:
    members: list[dict[str, object]] = [
        {"op": "put", "value": {"n": 1}},
        {"op": "put", "path": "/n", "value": 2},
        {"op": "increment", "path": "/n", "value": 1},
        {"op": "merge", "value": {"n": 2}},
        {"op": "patch", "patch": []},
    ]
    keys = [f"{key}/{number}" for number in range(len(members))]
    before = [server.put(name, '{"n": 1}', params={"ttl": "3000"}).json()["expires_at"] for name in keys]
    do = [each | {"key": name, "ttl": "keep"} for name, each in zip(keys, members, strict=True)]
    results = server.request("POST", "/txn", json={"do": do}).json()["results"]
    assert [result["expires_at"] for result in results] == before
    assert [server.get(name).json()["expires_at"] for name in keys] == before


@pytest.mark.parametrize("value", ["1", '"text"', "null", "[1]", '{"a": 1}'])
def test_an_empty_json_patch_extends_a_ttl_and_changes_no_value(server: Server, key: str, value: str) -> None:
    before = server.put(key, value, params={"ttl": 60}).json()
    after = server.patch(key, "[]", kind="json-patch", params={"ttl": 6_000}).json()
    assert (after["value"], after["created_at"]) == (before["value"], before["created_at"])
    assert after["expires_at"] > before["expires_at"]


def test_a_write_by_uuid_with_keep_keeps_the_expiry(server: Server, uuid: str) -> None:
    expires_at = server.request("POST", "/set", json={"key": uuid, "value": 1, "ttl": 3000}).json()["expires_at"]
    kept = server.request("POST", "/set", json={"key": uuid, "value": 2, "ttl": "keep"})
    assert kept.json()["expires_at"] == expires_at


def test_an_entry_without_an_expiry_keeps_none(server: Server, key: str) -> None:
    written = [server.put(key, "1", params={"ttl": "keep"}) for _ in range(2)]
    assert [("expires_at" in each.json(), each.status_code) for each in written] == [(False, 201), (False, 200)]


@pytest.mark.parametrize("ttl", ["Keep", "keep ", '"keep"', "none", "null"])
def test_nothing_else_than_keep_stands_for_a_ttl(server: Server, key: str, ttl: str) -> None:
    assert refusal(server.put(key, "1", params={"ttl": ttl})) == (400, "invalid_argument")


def test_a_lock_has_no_ttl_to_keep(server: Server, key: str) -> None:
    assert refusal(server.acquire(key, ttl="keep")) == (400, "invalid_argument")
