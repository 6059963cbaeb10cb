"""`reverse`, `count` and `path` of `GET /kv` and `GET /get`."""

import json
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import httpx
import msgspec
import pytest
from callers import BOTH, NAMES, PREFIX_SETS, WRITER, bearer, covered, put, token
from databases import STORES
from running import Server, Wire, message, refusal, running, until

INVALID_ARGUMENT = (400, "invalid_argument")
MESSAGEPACK = "application/vnd.msgpack"
UUIDS = [f"{number:02x}0e8400-e29b-41d4-a716-446655440000" for number in range(0, 256, 16)]


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


@pytest.fixture(scope="module")
def guarded(any_guarded: Server) -> Server:
    """Permissions are tested on every engine, too."""
    return any_guarded


@pytest.fixture(scope="module")
def ten(server: Server) -> str:
    """The prefix of ten entries. Their values are objects: `n` is a number, and only some have `odd`."""
    for number in range(10):
        value = {"n": number, "tags": ["x"] * number} | ({"odd": {"a/b": number}} if number % 2 else {})
        server.put(f"options/{number}", json.dumps(value))
    server.put("options/~", "7")
    server.delete("options/~")
    return "options/"


def listed(server: Server, route: str = "/kv", /, *, packed: bool = False, **parameters: Any) -> Any:
    headers = {"Accept": MESSAGEPACK} if packed else {}
    response = server.request("GET", route, params=parameters, headers=headers)
    assert response.status_code == 200, response.text
    return msgspec.msgpack.decode(response.content) if packed else response.json()


def keys(page: Any) -> list[str]:
    return [entry["key"] for entry in page["entries"]]


def all_pages(server: Server, route: str = "/kv", /, **parameters: Any) -> list[Any]:
    found = [listed(server, route, **parameters)]
    while found[-1]["next"] is not None:
        found.append(listed(server, route, **parameters | {"after": found[-1]["next"]}))
    return found


every_form = pytest.mark.parametrize("packed", [False, True], ids=["JSON", "MessagePack"])


# reverse ------------------------------------------------------------------------------------------------------


@every_form
def test_a_reversed_list_has_the_same_entries_in_descending_order(server: Server, ten: str, *, packed: bool) -> None:
    ascending, descending = (
        listed(server, prefix=ten, reverse=flag, packed=packed)["entries"] for flag in ("false", "true")
    )
    assert (len(ascending), descending) == (10, ascending[::-1])


@every_form
@pytest.mark.parametrize("limit", [1, 3, 9, 10, 11])
def test_pages_of_a_reversed_list_have_every_entry_once(server: Server, ten: str, limit: int, *, packed: bool) -> None:
    pages = all_pages(server, prefix=ten, reverse="", limit=limit, packed=packed)
    assert [key for page in pages for key in keys(page)] == [f"{ten}{number}" for number in reversed(range(10))]
    assert (len(pages), pages[-1]["next"]) == (-(-10 // limit), None)


@pytest.mark.parametrize(
    ("after", "count"),
    [("options/5", 5), ("options/55", 6), ("options/0", 0), ("options/", 0), ("options", 0), ("z", 10), ("", 0)],
)
@pytest.mark.parametrize("limit", [{}, {"limit": 20}], ids=["streamed", "page"])
def test_after_is_before_in_a_reversed_list(
    server: Server, ten: str, after: str, count: int, limit: Mapping[str, Any]
) -> None:
    found = keys(listed(server, prefix=ten, reverse="", after=after, **limit))
    assert found == [f"{ten}{number}" for number in reversed(range(count))]


def test_a_reversed_list_of_keys_is_in_the_order_of_their_utf8_bytes(server: Server, key: str) -> None:
    names = ["a", "ä", "\uffff", "🦊", "\U0010ffff", "a/b", "a-b", "~"]
    for name in names:
        server.request("PUT", f"/kv/{key}/{name.replace('/', '%2F')}", content=b"1")
    expected = sorted((f"{key}/{name}" for name in names), key=str.encode, reverse=True)
    assert keys(listed(server, prefix=f"{key}/", reverse="")) == expected
    assert keys(listed(server, prefix=f"{key}/\U0010ffff", reverse="")) == expected[:1]


def test_pages_of_a_reversed_list_are_right_while_entries_change(server: Server, key: str) -> None:
    """An entry that is not changed is listed once, whatever is written and deleted around it."""
    for number in range(0, 40, 2):
        server.put(f"{key}/{number:02}", "1")
    found: list[str] = []
    after: dict[str, Any] = {}
    number = 39
    while True:
        page = listed(server, prefix=f"{key}/", reverse="", limit=3, **after)
        found += keys(page)
        if page["next"] is None:
            break
        after = {"after": page["next"]}
        server.put(f"{key}/{number:02}", "1")
        server.delete(page["next"])
        server.put(f"{page['next']}x", "1")
        number -= 2
    even = [name for name in found if name[-1] in "02468"]
    assert even == [f"{key}/{number:02}" for number in range(38, -2, -2)]
    assert found == sorted(found, reverse=True)


@pytest.fixture(scope="module")
def folder(guarded: Server) -> str:
    """A folder with NAMES in it."""
    for name in NAMES:
        put(guarded, f"folder/{name}", {"a": name})
    return "folder/"


@pytest.mark.parametrize("prefixes", PREFIX_SETS, ids=str)
@pytest.mark.parametrize("limit", [{}, {"limit": "1"}, {"limit": "5"}], ids=str)
@pytest.mark.parametrize("asked", ["", "a", "c/3", "zz"])
def test_reversed_lists_and_counts_have_only_covered_keys(
    guarded: Server, folder: str, prefixes: list[str], limit: dict[str, str], asked: str
) -> None:
    own = bearer(token("read", prefixes=[folder + prefix for prefix in prefixes]))
    expected = [folder + name for name in reversed(covered(prefixes, asked))]
    query: dict[str, str] = {"prefix": folder + asked, "reverse": "", **limit}
    found: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = guarded.request("GET", "/kv", params={**query, "path": "/a", **after}, headers=own).json()
        found += keys(page)
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert found == expected
    for flags in ({"count": ""}, {"count": "", "path": "/a"}, {"count": "", "reverse": "false"}):
        counted = guarded.request("GET", "/kv", params={**query, **flags}, headers=own).json()
        assert counted["count"] == min(len(expected), int(limit.get("limit", 100)))


# count --------------------------------------------------------------------------------------------------------


@every_form
def test_a_count_says_only_how_many_entries_there_are(still_server: Server, key: str, *, packed: bool) -> None:
    for name in "abc":
        still_server.put(f"{key}/{name}", "1")
    counted = listed(still_server, prefix=f"{key}/", count="", packed=packed)
    assert counted == {"count": 3, "revision": still_server.revision(), "next": None}
    assert listed(still_server, prefix=f"{key}/x", count="", packed=packed)["count"] == 0


@pytest.mark.parametrize("reverse", ["false", "true"])
@pytest.mark.parametrize("path", [{}, {"path": "/odd"}], ids=["all", "those with a part"])
def test_counts_of_pages_are_the_number_of_their_entries(
    server: Server, ten: str, reverse: str, path: Mapping[str, str]
) -> None:
    for limit in (1, 4, 5, 10, 11):
        query: dict[str, Any] = {"prefix": ten, "limit": limit, "reverse": reverse, **path}
        pages, counts = all_pages(server, **query), all_pages(server, **query, count="")
        assert [(page["count"], page["next"]) for page in counts] == [
            (len(page["entries"]), page["next"]) for page in pages
        ]


def test_expired_entries_are_not_counted(server: Server, key: str) -> None:
    for number in range(5):
        server.put(f"{key}/{number}", "1", params={"ttl": "0.1"} if number % 2 else {})
    until(lambda: server.get(f"{key}/3").status_code == 404)
    assert listed(server, prefix=key, count="")["count"] == 3
    assert listed(server, prefix=key, count="", reverse="", limit=2)["count"] == 2


def test_a_count_is_not_streamed(server: Server, ten: str) -> None:
    """So it is answered over HTTP/1.0, too."""
    with Wire(server) as wire:
        answer = wire.send(message("GET", f"/kv?count&prefix={ten}", version="HTTP/1.0")).answer()
    assert (answer.status, json.loads(answer.body)["count"]) == (200, 10)


@pytest.mark.parametrize("name", ["count", "reverse"])
def test_a_flag_with_another_value_is_refused(server: Server, name: str) -> None:
    assert refusal(server.request("GET", "/kv", params={name: "no"})) == INVALID_ARGUMENT


def test_a_count_needs_the_permission_to_read(guarded: Server) -> None:
    assert guarded.request("GET", "/kv?count", headers=WRITER).status_code == 403
    assert guarded.request("GET", "/kv?count", headers=BOTH).status_code == 200


# path ---------------------------------------------------------------------------------------------------------


PATHS = [["/n"], ["/odd"], ["/odd/a~1b"], ["/tags/2"], [""], ["/absent"], ["/n", "/odd"], ["/tags/0", "/tags/4", "/n"]]


@every_form
@pytest.mark.parametrize("paths", PATHS, ids=" ".join)
@pytest.mark.parametrize("reverse", ["false", "true"])
def test_a_list_with_paths_has_what_reads_with_these_paths_find(
    server: Server, ten: str, paths: list[str], reverse: str, *, packed: bool
) -> None:
    reads = [server.get(f"{ten}{number}", params={"path": paths}) for number in range(10)]
    expected = [read.json() for read in reads if read.status_code == 200]
    assert {read.status_code for read in reads} <= {200, 404}
    if reverse == "true":
        expected.reverse()
    for limit in ({}, {"limit": 1}, {"limit": len(expected) or 1}, {"limit": 7}):
        pages = all_pages(server, prefix=ten, path=paths, reverse=reverse, packed=packed, **limit)
        assert [entry for page in pages for entry in page["entries"]] == expected
        assert len(pages) == -(-len(expected) // limit.get("limit", 100)) or not expected


def test_values_false_lists_the_entries_that_have_the_part_without_values(server: Server, ten: str) -> None:
    bare = listed(server, prefix=ten, path="/odd", values="false")["entries"]
    assert [entry["key"] for entry in bare] == [f"{ten}{number}" for number in (1, 3, 5, 7, 9)]
    assert {tuple(entry) for entry in bare} == {("key", "revision", "created_at", "updated_at")}


@pytest.mark.parametrize("path", ["a", "/~", "a/b"])
def test_an_invalid_path_of_a_list_is_refused(server: Server, path: str) -> None:
    assert refusal(server.request("GET", "/kv", params={"path": path})) == (400, "invalid_path")


def test_a_list_has_at_most_100_paths(server: Server, ten: str) -> None:
    assert listed(server, prefix=ten, path=["/n"] * 100)["entries"][1]["value"] == {"/n": 1}
    more = server.request("GET", "/kv", params={"path": ["/n"] * 101})
    assert (refusal(more), more.json()["limit"]) == (INVALID_ARGUMENT, 100)


def test_parts_of_an_entry_that_are_together_too_large_are_refused_with_its_key(server: Server, key: str) -> None:
    server.put(f"{key}/large", json.dumps("x" * 1_000_000))
    response = server.request("GET", "/kv", params={"prefix": key, "path": ["", "", ""]})
    assert (refusal(response), response.json()["key"]) == ((413, "too_large"), f"{key}/large")


@pytest.mark.parametrize("query", ["path=/a", "reverse", "count"])
def test_several_keys_cannot_be_combined_with_these(server: Server, query: str) -> None:
    assert refusal(server.request("GET", f"/kv?key=a&{query}")) == INVALID_ARGUMENT


# GET /get -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=STORES)
def mixed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with UUIDs as keys, among other keys."""
    with running(STORES[request.param](tmp_path_factory.mktemp("mixed"))) as own:
        for number, key in enumerate(UUIDS):
            own.put(key, json.dumps({"n": number} if number % 2 else [number]))
            own.put(f"{key}/x", '{"n": 0}')
        own.put("other", '{"n": 0}')
        yield own


@every_form
@pytest.mark.parametrize("limit", [1, 5, 16, 17])
def test_entries_by_uuid_are_listed_in_descending_order(mixed: Server, limit: int, *, packed: bool) -> None:
    pages = all_pages(mixed, "/get", reverse="", limit=limit, packed=packed)
    assert [key for page in pages for key in keys(page)] == UUIDS[::-1]
    assert len(pages) == -(-16 // limit)
    assert keys(listed(mixed, "/get", reverse="", prefix=UUIDS[3][:2])) == [UUIDS[3]]


def test_entries_by_uuid_are_counted(mixed: Server) -> None:
    assert listed(mixed, "/get", count="") == {"count": 16, "revision": mixed.revision(), "next": None}
    assert listed(mixed, "/get", count="", path="/n")["count"] == 8
    assert listed(mixed, "/get", count="", limit=3)["next"] == UUIDS[2]


def test_parts_of_entries_by_uuid_are_listed(mixed: Server) -> None:
    found = [(entry["key"], entry["value"]) for entry in listed(mixed, "/get", path="/n")["entries"]]
    assert found == [(key, number) for number, key in enumerate(UUIDS) if number % 2]


# Bounds -------------------------------------------------------------------------------------------------------


WHOLE = json.dumps({"a": 1, "b": "x" * 1_000_000})


@pytest.fixture(scope="module")
def heavy() -> Iterator[Server]:
    """A server with 140 MB in 140 entries."""
    with running() as own, Wire(own) as wire:
        for number in range(140):
            wire.send(message("PUT", f"/kv/{number:03}", "Prefer: return=minimal", body=WHOLE.encode()))
            assert wire.answer().status == 201
        yield own


@pytest.mark.parametrize(("path", "is_shown"), [("/a", True), ("/absent", False)])
@pytest.mark.parametrize("count", [{}, {"count": ""}], ids=["list", "count"])
def test_a_list_that_reads_much_ends_and_can_be_continued(
    heavy: Server, path: str, count: Mapping[str, str], *, is_shown: bool
) -> None:
    pages = all_pages(heavy, path=path, **count)
    assert len(pages) == 2
    found = [page["count"] if count else len(page["entries"]) for page in pages]
    assert sum(found) == (140 if is_shown else 0)
    assert 100 < int(pages[0]["next"]) < 139


def test_other_clients_are_served_while_a_list_decodes_values(heavy: Server) -> None:
    with Wire(heavy) as lister, Wire(heavy) as other:
        lister.send(message("GET", "/kv?path=/absent&count"))
        answers = [other.send(message("GET", "/health/live")).answer().status for _ in range(5)]
        assert (answers, lister.answer().status) == ([200] * 5, 200)


def test_every_combination_of_options_is_answered(server: Server, ten: str) -> None:
    flags: list[dict[str, str]] = [{}, {"reverse": ""}]
    for reverse, count, path, values, limit in product(
        flags, [{}, {"count": ""}], [{}, {"path": "/n"}], [{}, {"values": "false"}], [{}, {"limit": "4"}]
    ):
        query: dict[str, str] = {"prefix": ten, "after": f"{ten}5", **reverse, **count, **path, **values, **limit}
        response: httpx.Response = server.request("GET", "/kv", params=query)
        assert response.status_code == 200
        page = response.json()
        expected = 5 if reverse else 4
        assert (page["count"] if count else len(page["entries"])) == min(expected, int(limit.get("limit", 10)))
