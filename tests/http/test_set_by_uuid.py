"""`POST /set`: a value is created or replaced by UUID, or a part of it."""

import json
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
from running import Server, Wire, message, refusal, tag_of

MESSAGEPACK = "application/vnd.msgpack"
INVALID_KEY = (400, "invalid_key")
INVALID_ARGUMENT = (400, "invalid_argument")
INVALID_PATH = (400, "invalid_path")
NOT_FOUND = (404, "not_found")
ABSENT = "abcdef00-0000-4000-8000-ffffffffffff"


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


def set_(server: Server, body: Any, **options: Any) -> httpx.Response:
    return server.request("POST", "/set", content=json.dumps(body), **options)


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
