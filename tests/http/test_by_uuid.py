"""`/set`, `/get` and `/stream`: entries by UUID are written, read, listed and streamed."""

import json
import socket
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
from contract import messagepack_sequence, sequence
from running import Server, Wire, message, refusal, running, tag_of

MESSAGEPACK = "application/vnd.msgpack"
NDJSON = "application/x-ndjson"
INVALID_KEY = (400, "invalid_key")
INVALID_ARGUMENT = (400, "invalid_argument")
INVALID_PATH = (400, "invalid_path")
NOT_FOUND = (404, "not_found")
ABSENT = "abcdef00-0000-4000-8000-ffffffffffff"

_numbers = count(1)


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """What is told here is told of every engine."""
    return any_server


@pytest.fixture
def uuid() -> str:
    """A UUID that no other test uses, with letters in it."""
    return f"abcdef00-0000-4000-8000-{next(_numbers):012x}"


def set_(server: Server, body: Any, **options: Any) -> httpx.Response:
    return server.request("POST", "/set", content=json.dumps(body), **options)


# POST /set ----------------------------------------------------------------------------------------------------


def test_a_new_value_is_answered_with_its_location(server: Server, uuid: str) -> None:
    response = set_(server, {"key": uuid, "value": {"a": 1}})
    entry = response.json()
    seen = (response.status_code, response.headers["Location"], entry["key"], entry["value"])
    assert seen == (201, f"/get/{uuid}", uuid, {"a": 1})
    assert response.headers["ETag"] == tag_of(server, entry["revision"])


def test_a_value_is_replaced(server: Server, uuid: str) -> None:
    set_(server, {"key": uuid, "value": 1})
    response = set_(server, {"key": uuid, "value": [2]})
    seen = (response.status_code, "Location" in response.headers, server.value(uuid))
    assert seen == (200, False, [2])


@pytest.mark.parametrize("body", [{"value": "v"}, {"value": "v", "key": None}], ids=str)
def test_without_a_key_a_new_uuid_is_generated(server: Server, body: Any) -> None:
    responses = [set_(server, body) for _ in range(2)]
    names = [response.json()["key"] for response in responses]
    assert [response.status_code for response in responses] == [201, 201]
    assert [str(UUID(name)) for name in names] == names
    assert len(set(names)) == 2
    assert server.request("GET", responses[0].headers["Location"]).json() == responses[0].json()


@pytest.mark.parametrize("path", ["/a/b~1c/0", ["a", "b/c", "0"], ["a", "b/c", 0]], ids=str)
def test_a_path_updates_a_part(server: Server, uuid: str, path: Any) -> None:
    server.put(uuid, '{"a": {"b/c": [1, 2]}, "d": 3}')
    entry = set_(server, {"key": uuid, "value": "new", "path": path}).json()
    assert (entry["value"], entry["path"]) == ("new", "/a/b~1c/0")
    assert server.value(uuid) == {"a": {"b/c": ["new", 2]}, "d": 3}


@pytest.mark.parametrize(("path", "value"), [("/tags/-", [1]), (["tags", "-"], [1]), ("", 1), ([], 1), (None, 1)])
def test_a_path_to_a_missing_member_creates_it(server: Server, uuid: str, path: Any, value: Any) -> None:
    response = set_(server, {"key": uuid, "value": 1, "path": path})
    expected = {"tags": value} if path else value
    assert (response.status_code, server.value(uuid)) == (201, expected)


@pytest.mark.parametrize("path", ["a", "/~", "/~2", 5, True, {}, [None], [True], [1.5], [["a"]], [{}]], ids=repr)
def test_an_invalid_path_is_refused(server: Server, uuid: str, path: Any) -> None:
    assert refusal(set_(server, {"key": uuid, "value": 1, "path": path})) == INVALID_PATH


def test_a_path_through_a_value_that_is_no_container_is_a_conflict(server: Server, uuid: str) -> None:
    server.put(uuid, '{"a": 1}')
    assert refusal(set_(server, {"key": uuid, "value": 1, "path": "/a/b"})) == (409, "conflict")


@pytest.mark.parametrize("ttl", [0.1, 1, 60.5, 31_536_000])
def test_a_ttl_makes_the_entry_expire(server: Server, uuid: str, ttl: float) -> None:
    assert "expires_at" in set_(server, {"key": uuid, "value": 1, "ttl": ttl}).json()


@pytest.mark.parametrize("body", [{}, {"ttl": None}], ids=str)
def test_without_a_ttl_the_entry_does_not_expire(server: Server, uuid: str, body: Any) -> None:
    server.put(uuid, "1", params={"ttl": 60})
    assert "expires_at" not in set_(server, {"key": uuid, "value": 1} | body).json()


@pytest.mark.parametrize("ttl", [0, 0.09, -1, 31_536_001, "60", True, [], 1e300, 2**63], ids=repr)
def test_an_invalid_ttl_is_refused(server: Server, uuid: str, ttl: Any) -> None:
    assert refusal(set_(server, {"key": uuid, "value": 1, "ttl": ttl})) == INVALID_ARGUMENT
    assert refusal(server.get(uuid)) == NOT_FOUND


@pytest.mark.parametrize(
    "body", [None, [], "text", 1, {}, {"key": ABSENT}, {"value": 1, "tll": 5}, {"value": 1, "Key": None}], ids=str
)
def test_a_body_that_is_no_object_or_has_unknown_members_is_refused(server: Server, body: Any) -> None:
    assert refusal(set_(server, body)) == INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("body", "member"),
    [
        ({"value": 1, "tll": 5}, "tll"),
        ({"value": 1, "Key": None}, "Key"),
        ({"key": None}, "value"),
        ({"value": 1, "x" * 100: 1}, "x" * 64),
    ],
    ids=["unknown", "case", "missing", "long"],
)
def test_a_wrong_body_is_refused_with_the_name_of_the_wrong_member(server: Server, body: Any, member: str) -> None:
    refused = set_(server, body).json()
    assert (refused["member"], f'"{member}"' in refused["message"]) == (member, True)


def test_null_is_a_value(server: Server, uuid: str) -> None:
    assert (set_(server, {"key": uuid, "value": None}).status_code, server.value(uuid)) == (201, None)


@pytest.mark.parametrize("body", [b"", b"{", b'{"value": NaN}', b'{"value": "\\u0000"}', b'\xef\xbb\xbf{"value": 1}'])
def test_a_body_that_is_not_json_is_refused(server: Server, body: bytes) -> None:
    assert refusal(server.request("POST", "/set", content=body)) == (400, "invalid_json")


def test_a_body_may_be_messagepack(server: Server, uuid: str) -> None:
    body = msgspec.msgpack.encode({"key": uuid, "value": {"a": [2**64 - 1, -0.0, "ä"]}, "path": ["x"], "ttl": 1.5})
    response = server.request("POST", "/set", content=body, headers={"Content-Type": MESSAGEPACK})
    assert (response.status_code, server.value(uuid)) == (201, {"x": {"a": [2**64 - 1, -0.0, "ä"]}})


def test_an_answer_may_be_messagepack(server: Server, uuid: str) -> None:
    response = set_(server, {"key": uuid, "value": 1}, headers={"Accept": MESSAGEPACK})
    entry = msgspec.msgpack.decode(response.content)
    assert (entry["value"], response.headers["ETag"]) == (1, tag_of(server, entry["revision"], "-msgpack"))


def test_a_body_of_another_media_type_is_refused(server: Server) -> None:
    refused = server.request("POST", "/set", content=b"a: 1", headers={"Content-Type": "text/yaml"})
    assert refusal(refused) == (415, "unsupported_media_type")


def test_large_integers_are_stored_exactly(server: Server, uuid: str) -> None:
    response = server.request("POST", "/set", content=b'{"key": "%b", "value": 18446744073709551615}' % uuid.encode())
    assert response.json()["value"] == 2**64 - 1


def test_a_minimal_answer_leaves_the_value_out(server: Server, uuid: str) -> None:
    response = set_(server, {"key": uuid, "value": "large"}, headers={"Prefer": "return=minimal"})
    assert ("value" in response.json(), response.headers["Preference-Applied"]) == (False, "return=minimal")


def test_a_condition_that_does_not_hold_changes_nothing(server: Server, uuid: str) -> None:
    revision = server.put(uuid, "1").json()["revision"]
    refused = [
        set_(server, {"key": uuid, "value": 2}, headers=headers)
        for headers in ({"If-None-Match": "*"}, {"If-Match": f'"{revision - 1}"'})
    ]
    assert [refusal(response) for response in refused] == [(412, "precondition_failed")] * 2
    assert {response.json()["revision"] for response in refused} == {revision}
    assert set_(server, {"key": uuid, "value": 2}, headers={"If-Match": f'"{revision}"'}).status_code == 200


@pytest.mark.parametrize("query", ["ttl=5", "path=/a", "key=x"])
def test_a_query_of_set_is_refused(server: Server, uuid: str, query: str) -> None:
    refused = server.request("POST", f"/set?{query}", content=json.dumps({"key": uuid, "value": 1}))
    assert refusal(refused) == INVALID_ARGUMENT


# UUIDs --------------------------------------------------------------------------------------------------------

BAD_UUIDS = [
    "a",
    "abcdef00-0000-4000-8000-00000000000",
    "abcdef00-0000-4000-8000-0000000000000",
    "abcdef000000400080000000000000aa",
    "abcdefg0-0000-4000-8000-0000000000aa",
    "{abcdef00-0000-4000-8000-0000000000aa}",
    "urn:uuid:abcdef00-0000-4000-8000-0000000000aa",
    "abcdef0-00000-4000-8000-0000000000aa",
    " abcdef00-0000-4000-8000-0000000000aa",
    "abcdef00-0000-4000-8000-0000000000aa\n",
    "abcdef00-0000-4000-8000-0000000000a\u0661",
    "abcdef00-0000-4000-8000-0000000000aa/b",
    "abcdef00_0000_4000_8000_0000000000aa",
]


@pytest.mark.parametrize("name", ["", *BAD_UUIDS], ids=repr)
@pytest.mark.parametrize("route", ["get", "stream"])
def test_a_url_path_without_a_uuid_is_refused(server: Server, route: str, name: str) -> None:
    path = f"/{route}/" + "".join(f"%{byte:02X}" for byte in name.encode())
    assert refusal(server.request("GET", path)) == INVALID_KEY


@pytest.mark.parametrize("name", ["", *BAD_UUIDS, 5, True, [], {}], ids=repr)
def test_a_key_that_is_not_a_uuid_is_refused(server: Server, name: Any) -> None:
    assert refusal(set_(server, {"key": name, "value": 1})) == INVALID_KEY


@pytest.mark.parametrize("path", ["/get/%", "/get/%zz", "/get/%FF", "/stream/%"])
def test_a_badly_encoded_url_path_is_refused(server: Server, path: str) -> None:
    with Wire(server) as wire:
        assert wire.send(message("GET", path)).answer().refusal == INVALID_KEY


def test_upper_case_uuids_name_the_same_key(server: Server, uuid: str) -> None:
    created = set_(server, {"key": uuid.upper(), "value": 1})
    assert (created.json()["key"], created.headers["Location"]) == (uuid, f"/get/{uuid}")
    assert set_(server, {"key": uuid, "value": 2}).status_code == 200
    assert server.request("GET", f"/get/{uuid.upper()}").json() == server.get(uuid).json()
    assert server.request("GET", f"/stream/{uuid.title()}").content == b"\x02"


def test_an_encoded_uuid_names_the_same_key(server: Server, uuid: str) -> None:
    server.put(uuid, "1")
    assert server.request("GET", f"/get/%{ord(uuid[0]):02x}{uuid[1:]}").json()["value"] == 1


# GET /get/{uuid} ----------------------------------------------------------------------------------------------


def test_get_and_kv_read_the_same_entries(server: Server, uuid: str) -> None:
    server.put(uuid, '{"a": [1]}')
    assert server.request("GET", f"/get/{uuid}").json() == server.get(uuid).json()
    set_(server, {"key": uuid, "value": 2})
    assert server.get(uuid).json()["value"] == 2
    server.delete(uuid)
    assert refusal(server.request("GET", f"/get/{uuid}")) == NOT_FOUND


def test_get_reads_parts(server: Server, uuid: str) -> None:
    server.put(uuid, '{"a": {"b": [1, 2]}, "c": 3}')
    one = server.request("GET", f"/get/{uuid}?path=/a/b/1").json()
    two = server.request("GET", f"/get/{uuid}?path=/a/b&path=/c").json()
    missing = server.request("GET", f"/get/{uuid}?path=/x")
    assert (one["value"], one["path"], two["value"]) == (2, "/a/b/1", {"/a/b": [1, 2], "/c": 3})
    assert refusal(missing) == (404, "path_not_found")


@pytest.mark.parametrize("query", ["?raw", "?raw&path=/a", "?path=/a", ""])
@pytest.mark.parametrize("accept", ["application/json", MESSAGEPACK])
def test_get_answers_the_same_as_kv(server: Server, uuid: str, query: str, accept: str) -> None:
    server.put(uuid, '{"a": "ä"}')
    by_uuid, by_key = (
        server.request("GET", f"/{route}/{uuid}{query}", headers={"Accept": accept}) for route in ("get", "kv")
    )
    names = ("ETag", "Content-Type", "Content-Length")
    assert by_uuid.content == by_key.content
    assert [by_uuid.headers[name] for name in names] == [by_key.headers[name] for name in names]


def test_get_checks_preconditions(server: Server, uuid: str) -> None:
    tag = server.put(uuid, "1").headers["ETag"]
    statuses = [
        server.request(method, f"/get/{uuid}", headers=headers).status_code
        for method, headers in [
            ("GET", {"If-None-Match": tag}),
            ("HEAD", {"If-None-Match": tag}),
            ("GET", {"If-None-Match": '"0"'}),
            ("GET", {"If-Match": tag}),
            ("GET", {"If-Match": '"0"'}),
        ]
    ]
    assert statuses == [304, 304, 200, 200, 412]


def test_head_of_an_entry_has_the_length_and_no_body(server: Server, uuid: str) -> None:
    server.put(uuid, "1")
    whole, head = (server.request(method, f"/get/{uuid}") for method in ("GET", "HEAD"))
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(len(whole.content)))


@pytest.mark.parametrize(("method", "path"), [("GET", "/set"), ("PUT", "/set"), ("POST", "/get/{}")])
@pytest.mark.parametrize("uuid_of_path", ["abcdef00-0000-4000-8000-0000000000aa"])
def test_other_methods_are_not_allowed(server: Server, method: str, path: str, uuid_of_path: str) -> None:
    response = server.request(method, path.format(uuid_of_path), content=b"{}" if method != "GET" else None)
    assert (refusal(response), "Allow" in response.headers) == ((405, "method_not_allowed"), True)


@pytest.mark.parametrize("path", ["/gets", "/set/", "/sets"])
def test_similar_paths_are_not_found(server: Server, path: str) -> None:
    assert refusal(server.request("GET", path)) == (404, "no_such_route")


# GET /stream/{uuid} -------------------------------------------------------------------------------------------

VALUES: list[Any] = [None, 0, "", [], {}, {"a": [1, "🦊", {"b": None}]}, 2**64 - 1, 1.5, "x" * 300_000]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
def test_a_value_is_streamed_as_messagepack(server: Server, uuid: str, value: Any) -> None:
    server.put(uuid, json.dumps(value))
    response = server.request("GET", f"/stream/{uuid}")
    headers = [response.headers[name] for name in ("Content-Type", "Transfer-Encoding")]
    assert (headers, msgspec.msgpack.decode(response.content)) == ([MESSAGEPACK, "chunked"], value)
    assert response.headers["ETag"] == server.get(uuid).headers["ETag"][:-1] + '-msgpack"'


@pytest.mark.parametrize("accept", [MESSAGEPACK, "application/*", "*/*", f"text/html, {MESSAGEPACK};q=0.1"])
def test_a_stream_is_sent_if_accept_allows_messagepack(server: Server, uuid: str, accept: str) -> None:
    server.put(uuid, "1")
    assert server.request("GET", f"/stream/{uuid}", headers={"Accept": accept}).content == b"\x01"


@pytest.mark.parametrize("accept", ["application/json", NDJSON, "text/html", f"{MESSAGEPACK};q=0"])
def test_a_stream_of_a_value_in_another_media_type_is_not_acceptable(server: Server, uuid: str, accept: str) -> None:
    server.put(uuid, "1")
    response = server.request("GET", f"/stream/{uuid}", headers={"Accept": accept})
    assert (refusal(response), response.headers["Content-Type"]) == ((406, "not_acceptable"), "application/json")


def test_errors_of_a_stream_are_json(server: Server, uuid: str) -> None:
    response = server.request("GET", f"/stream/{uuid}")
    assert (refusal(response), response.headers["Content-Type"]) == (NOT_FOUND, "application/json")


def test_errors_of_a_stream_are_messagepack_if_only_that_is_accepted(server: Server, uuid: str) -> None:
    response = server.request("GET", f"/stream/{uuid}", headers={"Accept": MESSAGEPACK})
    assert (response.status_code, msgspec.msgpack.decode(response.content)["error"]) == NOT_FOUND


def test_a_stream_of_a_value_checks_preconditions(server: Server, uuid: str) -> None:
    server.put(uuid, "1")
    tag = server.request("GET", f"/stream/{uuid}").headers["ETag"]
    unchanged = server.request("GET", f"/stream/{uuid}", headers={"If-None-Match": tag})
    other = server.request("GET", f"/stream/{uuid}", headers={"If-None-Match": server.get(uuid).headers["ETag"]})
    failed = server.request("GET", f"/stream/{uuid}", headers={"If-Match": '"0"'})
    assert (unchanged.status_code, unchanged.headers["ETag"], other.status_code) == (304, tag, 200)
    assert refusal(failed) == (412, "precondition_failed")


def test_head_of_a_stream_has_no_body_and_keeps_the_connection(server: Server, uuid: str) -> None:
    server.put(uuid, "1")
    with Wire(server) as wire:
        wire.send(message("HEAD", f"/stream/{uuid}"), message("HEAD", "/stream"), message("GET", f"/kv/{uuid}"))
        heads = [wire.answer(to="HEAD").status for _ in range(2)]
        assert (heads, wire.answer().value) == ([200, 200], 1)


# GET /stream --------------------------------------------------------------------------------------------------


def listed(server: Server, prefix: str) -> Any:
    return server.request("GET", "/kv", params={"prefix": prefix}).json()["entries"]


@pytest.mark.parametrize("accept", [None, MESSAGEPACK, NDJSON, "application/*", f"{NDJSON};q=0.5, */*;q=0.1"])
def test_every_entry_is_streamed_in_order(server: Server, key: str, accept: str | None) -> None:
    for name, value in zip(["b", "a", "ä", "🦊", "c/d"], VALUES[4:], strict=True):
        server.put(f"{key}/{name}", json.dumps(value), params={"ttl": 60} if name == "a" else {})
    headers = {} if accept is None else {"Accept": accept}
    response = server.request("GET", "/stream", params={"prefix": f"{key}/"}, headers=headers)
    kind = NDJSON if accept and NDJSON in accept else MESSAGEPACK
    assert (response.headers["Content-Type"], response.headers["Transfer-Encoding"]) == (kind, "chunked")
    assert sequence(response) == listed(server, f"{key}/")


def test_an_ndjson_stream_has_a_line_for_each_entry(server: Server, key: str) -> None:
    for name in "ab":
        server.put(f"{key}/{name}", '"line\\nbreak"')
    response = server.request("GET", f"/stream?prefix={key}", headers={"Accept": NDJSON})
    assert response.content == server.get(f"{key}/a").content + server.get(f"{key}/b").content


def test_a_line_of_an_ndjson_stream_has_no_unicode_line_end_inside(server: Server, key: str) -> None:
    value = {"\u2028": ["a\u2029b", "\u0085", "…“”", "\\u2028", "\v\f\x1c\x1d\x1e\r\n"]}
    server.put(f"{key}/\u2028", json.dumps(value))
    lines = server.request("GET", f"/stream?prefix={key}", headers={"Accept": NDJSON}).text.splitlines()
    assert [json.loads(line)["value"] for line in lines] == [value]


def test_a_part_is_streamed(server: Server, uuid: str) -> None:
    server.put(uuid, '{"a": [1, {"b": "é"}]}')
    part = server.request("GET", f"/stream/{uuid}?path=/a/1")
    assert (part.status_code, msgspec.msgpack.decode(part.content)) == (200, {"b": "é"})
    etag = part.headers["ETag"]
    assert server.request("GET", f"/stream/{uuid}?path=/a/1", headers={"If-None-Match": etag}).status_code == 304
    assert refusal(server.request("GET", f"/stream/{uuid}?path=/c")) == (404, "path_not_found")
    assert refusal(server.request("GET", f"/stream/{uuid}?path=/a&path=/a")) == INVALID_ARGUMENT


def test_a_large_part_is_streamed_in_pieces(server: Server, uuid: str) -> None:
    server.put(uuid, json.dumps({"a": "x" * 200_000, "b": 1}))
    part = server.request("GET", f"/stream/{uuid}?path=/a")
    assert (part.headers["Transfer-Encoding"], msgspec.msgpack.decode(part.content)) == ("chunked", "x" * 200_000)


# GET /get -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed() -> Iterator[Server]:
    """A server with 40 UUIDs as keys, in order in `MIXED`, among 2,000 other keys, many of which look alike."""
    with running() as own:
        for number in range(1_000):
            own.put(f"{number:04x}", "0")
            own.put(f"name/{number}", "0")
        for number, key in enumerate(MIXED):
            own.put(key, str(number))
            own.put(f"{key}/x", "0")
            own.put(key.replace("-", "_"), "0")
        own.put(MIXED[0].upper(), "0")
        yield own


MIXED = [f"{number:02x}0e8400-e29b-41d4-a716-446655440000" for number in range(0, 240, 6)]


def page_of(response: httpx.Response) -> tuple[list[str], str | None]:
    page = response.json()
    return [entry["key"] for entry in page["entries"]], page["next"]


def test_all_entries_whose_keys_are_uuids_are_listed(mixed: Server) -> None:
    response = mixed.request("GET", "/get")
    assert (response.status_code, page_of(response)) == (200, (MIXED, None))
    assert response.json()["entries"][3] == mixed.get(MIXED[3]).json()
    assert response.json()["revision"] == mixed.revision()


@pytest.mark.parametrize("limit", [1, 7, 39, 40, 41])
def test_pages_of_uuids_have_exactly_the_limit(mixed: Server, limit: int) -> None:
    seen: list[str] = []
    after: str | None = ""
    pages = 0
    while after is not None:
        keys, after = page_of(mixed.request("GET", "/get", params={"limit": limit, "after": after}))
        assert 0 < len(keys) <= limit
        seen += keys
        pages += 1
    assert (seen, pages) == (MIXED, -(-40 // limit))


def test_a_list_of_uuids_takes_prefix_after_and_values(mixed: Server) -> None:
    assert page_of(mixed.request("GET", "/get?prefix=1")) == ([key for key in MIXED if key[0] == "1"], None)
    assert page_of(mixed.request("GET", f"/get?after={MIXED[37]}")) == (MIXED[38:], None)
    assert page_of(mixed.request("GET", "/get?prefix=name/")) == ([], None)
    assert "value" not in mixed.request("GET", "/get?values=false&limit=1").json()["entries"][0]
    assert refusal(mixed.request("GET", "/get?limit=0")) == INVALID_ARGUMENT


def test_a_list_of_uuids_can_be_messagepack(mixed: Server) -> None:
    page = msgspec.msgpack.decode(mixed.request("GET", "/get?limit=3", headers={"Accept": MESSAGEPACK}).content)
    assert ([entry["key"] for entry in page["entries"]], page["next"]) == (MIXED[:3], MIXED[2])


@pytest.mark.parametrize("accept", [MESSAGEPACK, NDJSON])
@pytest.mark.parametrize("query", ["", "?prefix=absent"])
def test_a_stream_of_an_empty_store_is_empty(accept: str, query: str) -> None:
    with running() as empty, Wire(empty) as wire:
        wire.send(message("GET", f"/stream{query}", f"Accept: {accept}"), message("GET", "/health/live"))
        answer = wire.answer()
        seen = (answer.status, answer.headers["content-type"], answer.body, wire.answer().status)
    assert seen == (200, accept, b"", 200)


def test_expired_entries_are_not_streamed(server: Server, key: str) -> None:
    server.put(f"{key}/a", "1", params={"ttl": 0.1})
    server.put(f"{key}/b", "1")
    while server.get(f"{key}/a").status_code == 200:
        pass
    assert [entry["key"] for entry in sequence(server.request("GET", f"/stream?prefix={key}"))] == [f"{key}/b"]


@pytest.mark.parametrize("accept", ["application/json", "text/html", f"{MESSAGEPACK};q=0, {NDJSON};q=0"])
def test_a_stream_of_all_entries_in_another_media_type_is_not_acceptable(server: Server, accept: str) -> None:
    response = server.request("GET", "/stream", headers={"Accept": accept})
    assert (refusal(response), response.headers["Content-Type"]) == ((406, "not_acceptable"), "application/json")


@pytest.mark.parametrize("query", ["limit=5", "after=a", "path=/a", "prefix=a&prefix=b", "prefix=" + "x" * 513])
def test_an_unknown_parameter_of_a_stream_is_refused(server: Server, query: str) -> None:
    assert refusal(server.request("GET", f"/stream?{query}")) == INVALID_ARGUMENT


# A store larger than its reader takes -------------------------------------------------------------------------

LARGE_BYTES = 200_000
LARGE_ENTRIES = 300
GROWTH_BYTES = 8 * 2**20


@pytest.fixture(scope="module")
def large() -> Iterator[Server]:
    """60 MB in entries of 200 KB."""
    body = b'"%b"' % (b"x" * LARGE_BYTES)
    with running() as started:
        with Wire(started) as wire:
            for number in range(LARGE_ENTRIES):
                wire.send(message("PUT", f"/kv/{number:03}", "Prefer: return=minimal", body=body))
                assert wire.answer().status == 201
        yield started


def resident_bytes(server: Server) -> int:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{server.pid}/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


def forget_peak(server: Server) -> None:
    """Begin anew to note the most memory that the process had."""
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")


STREAMS = {"messagepack": ("/stream", MESSAGEPACK), "ndjson": ("/stream", NDJSON), "list": ("/kv", "application/json")}


@pytest.mark.parametrize("kind", STREAMS)
def test_a_slow_reader_takes_little_memory_and_does_not_delay_others(large: Server, kind: str) -> None:
    target, accept = STREAMS[kind]
    forget_peak(large)
    before = resident_bytes(large)
    with Wire(large, receive_buffer_bytes=16 * 1024) as reader, Wire(large) as other:
        reader.send(message("GET", target, f"Accept: {accept}"))
        for _ in range(20):
            assert reader.socket.recv(16 * 1024, socket.MSG_WAITALL) != b""
            assert other.send(message("GET", "/health/live")).answer().status == 200
    assert resident_bytes(large) - before < GROWTH_BYTES


@pytest.mark.parametrize("kind", STREAMS)
def test_a_large_store_is_streamed_completely_in_little_memory(large: Server, kind: str) -> None:
    target, accept = STREAMS[kind]
    forget_peak(large)
    before = resident_bytes(large)
    with Wire(large) as reader:
        body = reader.send(message("GET", target, f"Accept: {accept}")).answer().body
    growth = resident_bytes(large) - before
    if kind == "messagepack":
        entries = messagepack_sequence(body)
    elif kind == "ndjson":
        entries = [json.loads(line) for line in body.splitlines()]
    else:
        entries = json.loads(body)["entries"]
    seen = [(entry["key"], len(entry["value"])) for entry in entries]
    assert seen == [(f"{number:03}", LARGE_BYTES) for number in range(LARGE_ENTRIES)]
    assert growth < GROWTH_BYTES
