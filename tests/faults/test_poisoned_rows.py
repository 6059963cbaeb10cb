"""A row of another program that cannot be read: only requests for it fail, and it can be replaced or deleted."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import Database, database_for
from running import Server, Wire, message, running

MESSAGEPACK = {"Accept": "application/vnd.msgpack"}
LARGE = '{"n": 123456789012345678901234567890}'
ROWS = {
    "a large integer": (f"'{LARGE}'", "NULL", "now()"),
    "a huge number": ("'{\"n\": 1e999}'", "NULL", "now()"),
    "nested too deeply for any Python": ("'1'", "repeat('[', 100000) || repeat(']', 100000)", "now()"),
    "text that is not JSON": ("'1'", "'{broken'", "now()"),
    "a time without end": ("'1'", "NULL", "'infinity'"),
    "a time before all": ("'1'", "NULL", "'-infinity'"),
}
"""SQL for `data`, `exact` and `created_at`."""
READABLE = {"a time without end", "a time before all"}
NOT_JSON = {"nested too deeply for any Python", "text that is not JSON"}


@pytest.fixture(params=ROWS)
def row(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return database_for(tmp_path).create()


@pytest.fixture
def server(database: Database, row: str) -> Iterator[Server]:
    """A server with valid entries and, between them, one that another program wrote."""
    with running(database.url) as started:
        for key in ("a", "z"):
            assert started.put(key, "1").status_code == 201
        data, exact, created_at = ROWS[row]
        database.execute(
            "INSERT INTO data (namespace, key, data, exact, revision, created_at, updated_at) "
            f"VALUES ('default', 'p', ({data})::jsonb, {exact}, 1, {created_at}, now())"
        )
        yield started
        assert (started.value("a"), started.value("z")) == (1, 1)
        assert started.put("later", "1").status_code in (200, 201)


def test_a_read_returns_500_unless_the_format_can_represent_the_value(server: Server, row: str) -> None:
    expected = 500 if row in NOT_JSON else 200
    packed = 200 if row in READABLE else 500
    assert server.client.get("/kv/p").status_code == expected
    assert server.client.get("/kv/p?raw").status_code == expected
    assert server.client.head("/kv/p").status_code == expected
    assert server.client.get("/kv/p", headers=MESSAGEPACK).status_code == packed
    assert server.client.head("/kv/p", headers=MESSAGEPACK).status_code == packed


def test_a_list_names_the_unreadable_entry(server: Server, row: str) -> None:
    for headers, unreadable in (({}, row in NOT_JSON), (MESSAGEPACK, row not in READABLE)):
        response = server.client.get("/kv", headers=headers)
        assert response.status_code == (500 if unreadable else 200)
        if unreadable:
            assert b'"key":"p"' in response.content or b"\xa3key\xa1p" in response.content
        assert server.client.get("/kv?prefix=z", headers=headers).status_code == 200
        assert server.client.get("/kv?values=false", headers=headers).status_code == 200


def test_a_patch_of_an_unreadable_entry_does_not_affect_the_rest_of_its_batch(server: Server) -> None:
    fields = ("Content-Type: application/merge-patch+json", "Accept: application/vnd.msgpack")
    with Wire(server) as first, Wire(server) as second, Wire(server) as third:
        for _ in range(10):
            first.send(message("PUT", "/kv/a", body=b"1"))
            second.send(message("PATCH", "/kv/p", *fields, body=b'{"x": 1}'))
            third.send(message("PUT", "/kv/z", body=b"1"))
            assert (first.answer().status, third.answer().status) == (200, 200)
            assert second.answer().status in (200, 500)


@pytest.mark.parametrize("how", ["PUT", "POST", "DELETE"])
def test_an_unreadable_entry_can_be_replaced_or_deleted(server: Server, how: str) -> None:
    assert server.client.request(how, "/kv/p", content=b"2" if how != "DELETE" else b"").status_code == 200
    assert server.client.get("/kv/p", headers=MESSAGEPACK).status_code == (404 if how == "DELETE" else 200)
    for headers in ({}, MESSAGEPACK):
        assert server.client.get("/kv", headers=headers).status_code == 200
