"""`GET /kv`: order, pages, prefixes, and the complete list as a stream."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from running import Server, Wire, message, refusal, running

from leasehold.limits import MAX_GATHERED_BYTES

INVALID_ARGUMENT = (400, "invalid_argument")
MANY = 12_345
LARGE = '"%s"' % ("x" * 20_000)


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


def listed(server: Server, **parameters: Any) -> Any:
    response = server.request("GET", "/kv", params=parameters)
    assert response.status_code == 200, response.text
    return response.json()


def keys(page: Any) -> list[str]:
    return [entry["key"] for entry in page["entries"]]


# Which entries are listed -------------------------------------------------------------------------------------


def test_a_list_has_exactly_the_documented_members(server: Server, key: str) -> None:
    assert list(listed(server, prefix=key)) == ["entries", "revision", "next"]


def test_a_list_without_entries_has_all_members(server: Server, key: str) -> None:
    page = listed(server, prefix=key)
    assert (page["entries"], page["next"]) == ([], None)


@pytest.mark.parametrize("limit", [{}, {"limit": 5}], ids=["streamed", "page"])
def test_a_list_has_each_entry_as_a_read_answers_it(server: Server, key: str, limit: dict[str, int]) -> None:
    server.put(key, '{"a": [1, null, "🦊"]}', params={"ttl": 60})
    assert listed(server, prefix=key, **limit)["entries"] == [server.get(key).json()]


@pytest.mark.parametrize("limit", [{}, {"limit": 5}], ids=["streamed", "page"])
def test_a_list_has_the_revision_of_the_store(still_server: Server, key: str, limit: dict[str, int]) -> None:
    revision = still_server.put(key, "1").json()["revision"]
    assert listed(still_server, prefix=key, **limit)["revision"] == revision


def test_an_empty_store_has_an_empty_list_at_revision_0() -> None:
    with running() as empty:
        assert listed(empty) == {"entries": [], "revision": 0, "next": None}


# Order --------------------------------------------------------------------------------------------------------


def test_keys_are_listed_in_the_order_of_their_utf8_bytes(server: Server, key: str) -> None:
    names = ["a", "B", "ä", "z", "\uffff", "🦊", "\U0010ffff", "a/b", "a-b", "a!", "~", "\ue000", "0", "10", "9", "é"]
    for name in names:
        server.request("PUT", f"/kv/{key}/{name.replace('/', '%2F')}", content=b"1")
    expected = sorted((f"{key}/{name}" for name in names), key=lambda text: text.encode())
    assert keys(listed(server, prefix=f"{key}/")) == expected


def test_a_key_is_listed_before_the_keys_that_begin_with_it(server: Server, key: str) -> None:
    for name in ("/a/b", "/ab", "/a", ""):
        server.put(key + name, "1")
    assert keys(listed(server, prefix=key)) == [key, f"{key}/a", f"{key}/a/b", f"{key}/ab"]


# prefix -------------------------------------------------------------------------------------------------------


def test_only_keys_that_begin_with_the_prefix_are_listed(server: Server, key: str) -> None:
    for name in ("a", "ab", "abc", "b", "A"):
        server.put(f"{key}/{name}", "1")
    assert keys(listed(server, prefix=f"{key}/ab")) == [f"{key}/ab", f"{key}/abc"]


@pytest.mark.parametrize("prefix", ["ä", "🦊", "\U0010ffff", "\uffff", "a b", "a%", "a+b", "/", "a//b", ".."])
def test_a_prefix_may_be_any_text(server: Server, key: str, prefix: str) -> None:
    assert keys(listed(server, prefix=prefix + key)) == []


def test_a_prefix_of_the_last_unicode_character_finds_its_keys(server: Server, key: str) -> None:
    server.put(f"{key}/%F4%8F%BF%BF/x", "1")
    server.put(f"{key}/%F4%8F%BF%BF", "1")
    assert len(keys(listed(server, prefix=f"{key}/\U0010ffff"))) == 2


# limit, after, next -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ten(server: Server) -> str:
    """The prefix of ten entries."""
    for number in range(10):
        server.put(f"ten/{number}", str(number))
    return "ten/"


@pytest.mark.parametrize(
    ("limit", "count", "following"),
    [(1, 1, "ten/0"), (9, 9, "ten/8"), (10, 10, None), (11, 10, None), (10_000, 10, None)],
)
def test_a_page_has_at_most_its_limit_and_the_position_of_the_next(
    server: Server, ten: str, limit: int, count: int, following: str | None
) -> None:
    page = listed(server, prefix=ten, limit=limit)
    assert (len(page["entries"]), page["next"]) == (count, following)


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_following_next_gives_every_entry_once(server: Server, ten: str, limit: int) -> None:
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        page = listed(server, prefix=ten, limit=limit, after=after)
        seen += keys(page)
        after = page["next"]
    assert seen == [f"ten/{number}" for number in range(10)]


def test_after_is_exclusive(server: Server, ten: str) -> None:
    assert keys(listed(server, prefix=ten, after="ten/7")) == ["ten/8", "ten/9"]


def test_after_need_not_exist(server: Server, ten: str) -> None:
    assert keys(listed(server, prefix=ten, after="ten/77")) == ["ten/8", "ten/9"]


@pytest.mark.parametrize(
    ("after", "count"), [("ten", 10), ("ten/", 10), ("a", 10), ("ten/9", 0), ("ten0", 0), ("z", 0)]
)
def test_after_may_be_outside_the_prefix(server: Server, ten: str, after: str, count: int) -> None:
    assert len(keys(listed(server, prefix=ten, after=after))) == count


@pytest.mark.parametrize("text", ["%00", "ten%00", "%01", "ten/%7F"])
@pytest.mark.parametrize("path", ["/kv?", "/kv?limit=20&", "/stream?"])
def test_no_key_begins_with_a_control_character(server: Server, ten: str, path: str, text: str) -> None:
    """U+0000 too, which PostgreSQL does not take."""
    response = server.request("GET", f"{path}prefix={text}")
    assert (response.status_code, ten.encode() in response.content) == (200, False)
    assert server.put(f"{ten}0", "0").status_code == 200


@pytest.mark.parametrize(("after", "count"), [("\0", 10), ("ten\0", 10), ("ten/4\0", 5), ("ten/9\0", 0)])
@pytest.mark.parametrize("limit", [{}, {"limit": 20}], ids=["streamed", "page"])
def test_after_may_have_a_control_character(
    server: Server, ten: str, after: str, count: int, limit: dict[str, int]
) -> None:
    assert len(keys(listed(server, prefix=ten, after=after, **limit))) == count


@pytest.mark.parametrize("limit", ["0", "-1", "10001", "", "ten", "1.5", "1e3", "+5", " 5", "1_0", "\u0665", "9" * 30])
def test_a_limit_that_is_not_an_integer_from_1_to_10000_is_refused(server: Server, limit: str) -> None:
    assert refusal(server.request("GET", "/kv", params={"limit": limit})) == INVALID_ARGUMENT


@pytest.mark.parametrize("name", ["prefix", "after"])
def test_a_prefix_or_after_longer_than_a_key_is_refused(server: Server, name: str) -> None:
    response = server.request("GET", "/kv", params={name: "k" * 513})
    assert (refusal(response), response.json()["limit"]) == (INVALID_ARGUMENT, 512)


# values=false -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [{}, {"limit": 10}], ids=["streamed", "page"])
def test_values_false_leaves_the_values_out(server: Server, ten: str, limit: dict[str, int]) -> None:
    whole, bare = listed(server, prefix=ten, **limit), listed(server, prefix=ten, values="false", **limit)
    for entry in whole["entries"]:
        del entry["value"]
    assert bare["entries"] == whole["entries"]  # what expires for other tests moves the revision


def test_values_true_includes_the_values(server: Server, ten: str) -> None:
    assert listed(server, prefix=ten, values="true")["entries"] == listed(server, prefix=ten)["entries"]


def test_values_with_another_value_is_refused(server: Server) -> None:
    assert refusal(server.request("GET", "/kv", params={"values": "no"})) == INVALID_ARGUMENT


# Parameters ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["prefx=a", "Prefix=a", "ttl=5", "reversed", "raw", "cursor=x"])
def test_an_unknown_parameter_of_a_list_is_refused(server: Server, query: str) -> None:
    response = server.request("GET", f"/kv?{query}")
    assert (refusal(response), response.json()["parameter"]) == (INVALID_ARGUMENT, query.partition("=")[0])


@pytest.mark.parametrize("name", ["prefix", "after", "limit", "values", "reverse", "count"])
def test_a_repeated_parameter_of_a_list_is_refused(server: Server, name: str) -> None:
    assert refusal(server.request("GET", f"/kv?{name}=1&{name}=1")) == INVALID_ARGUMENT


# The whole list -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full() -> Iterator[Server]:
    """A server with many entries, written in no order."""
    with running() as started:
        with Wire(started) as wire:
            numbers = [number * 7919 % MANY for number in range(MANY)]
            for start in range(0, MANY, 500):
                part = numbers[start : start + 500]
                wire.send(*(message("PUT", f"/kv/{n:05}", "Prefer: return=minimal", body=b"%d" % n) for n in part))
                assert {wire.answer().status for _ in part} == {201}
        yield started


def test_the_whole_list_is_streamed_in_chunks(full: Server) -> None:
    with Wire(full) as wire:
        answer = wire.send(message("GET", "/kv")).answer()
    page = json.loads(answer.body)
    seen = (answer.headers["transfer-encoding"], [entry["value"] for entry in page["entries"]], page["next"])
    assert seen == ("chunked", list(range(MANY)), None)


def test_the_whole_list_of_keys_is_complete(full: Server) -> None:
    page = full.request("GET", "/kv?values=false").json()
    assert [entry["key"] for entry in page["entries"]] == [f"{number:05}" for number in range(MANY)]


def test_a_list_of_a_prefix_is_complete(full: Server) -> None:
    page = full.request("GET", "/kv?prefix=1&after=10").json()
    assert [entry["value"] for entry in page["entries"]] == list(range(10_000, MANY))


def test_the_connection_stays_after_a_streamed_list(full: Server) -> None:
    with Wire(full) as wire:
        wire.send(message("GET", "/kv"), message("GET", "/kv/00007"))
        assert [wire.answer().status, wire.answer().value] == [200, 7]


def test_a_page_may_have_10000_entries(full: Server) -> None:
    page = full.request("GET", "/kv?limit=10000").json()
    assert (len(page["entries"]), page["next"]) == (10_000, "09999")


def test_a_list_in_messagepack_without_limit_is_paged(full: Server) -> None:
    headers = {"Accept": "application/vnd.msgpack"}
    first = msgspec.msgpack.decode(full.request("GET", "/kv", headers=headers).content)
    after = first["next"]
    second = msgspec.msgpack.decode(full.request("GET", f"/kv?after={after}", headers=headers).content)
    assert (keys(first) + keys(second), second["next"]) == ([f"{number:05}" for number in range(MANY)], None)


def test_other_clients_are_served_while_a_list_is_streamed(full: Server) -> None:
    with Wire(full, receive_buffer_bytes=4096) as reader, Wire(full) as other:
        reader.send(message("GET", "/kv"))
        assert reader.socket.recv(100) != b""
        assert [other.send(message("PUT", "/kv/00000", body=b"0")).answer().status for _ in range(20)] == [200] * 20


def test_deletions_while_a_list_is_streamed_do_not_break_it() -> None:
    names = [f"{number:03}" for number in range(600)]
    with running() as started:
        for name in names:
            started.put(name, LARGE, headers={"Prefer": "return=minimal"})
        # Not before: a connection that asks nothing is closed after some seconds.
        with Wire(started, receive_buffer_bytes=64 * 1024) as reader:
            reader.send(message("GET", "/kv"))
            assert reader.socket.recv(1, socket.MSG_PEEK) == b"H"
            for name in names[1::2]:
                started.delete(name)
            seen = keys(json.loads(reader.answer().body))
    assert (seen == sorted(set(seen)), set(names[::2]) - set(seen)) == (True, set())


def test_a_client_that_disconnects_during_a_list_does_not_disturb_others(full: Server) -> None:
    for _ in range(20):
        with Wire(full, receive_buffer_bytes=4096) as reader:
            reader.send(message("GET", "/kv"))
            assert reader.socket.recv(100) != b""
    assert (full.get("00007").status_code, "Traceback" in full.log()) == (200, False)


# Large values -------------------------------------------------------------------------------------------------

LARGE_VALUE = b'"' + b"x" * 1_000_000 + b'"'


@pytest.fixture(scope="module")
def heavy(any_server: Server) -> Server:
    """A server with twenty megabytes under `heavy/`."""
    for number in range(20):
        any_server.put(f"heavy/{number:02}", LARGE_VALUE.decode())
    return any_server


def test_a_page_of_large_values_is_streamed(heavy: Server) -> None:
    with Wire(heavy) as wire:
        answer = wire.send(message("GET", "/kv?prefix=heavy/&limit=11")).answer()
    page = json.loads(answer.body)
    assert (answer.headers["transfer-encoding"], len(page["entries"]), page["next"]) == ("chunked", 11, "heavy/10")


def test_a_messagepack_page_of_large_values_ends_early_with_the_next_position(heavy: Server) -> None:
    keys: list[str] = []
    sizes: list[int] = []
    after: str | None = ""
    while after is not None:
        response = heavy.request(
            "GET", "/kv", params={"prefix": "heavy/", "after": after}, headers={"Accept": "application/vnd.msgpack"}
        )
        sizes.append(len(response.content))
        page = msgspec.msgpack.decode(response.content)
        keys += [entry["key"] for entry in page["entries"]]
        after = page["next"]
    assert keys == [f"heavy/{number:02}" for number in range(20)]
    assert max(sizes) < MAX_GATHERED_BYTES + len(LARGE_VALUE) + 1_000
