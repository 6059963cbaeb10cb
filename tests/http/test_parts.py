"""Parts of a value are read, written and deleted by JSON Pointers (RFC 6901)."""

from typing import Any

import pytest
from running import Server, refusal, tag_of

PATH_NOT_FOUND = (404, "path_not_found")
INVALID_PATH = (400, "invalid_path")
CONFLICT = (409, "conflict")

DOCUMENT = '{"a": {"b": [10, {"c": null}]}, "": 1, "x/y": 2, "m~n": 3, "~1": 4, "0": 5, "ä ö": 6, "-": 7}'


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


@pytest.fixture
def document(server: Server, key: str) -> str:
    """The key of a value with all kinds of members."""
    server.put(key, DOCUMENT)
    return key


# Reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a", {"b": [10, {"c": None}]}),
        ("/a/b", [10, {"c": None}]),
        ("/a/b/0", 10),
        ("/a/b/1/c", None),
        ("/", 1),
        ("/x~1y", 2),
        ("/m~0n", 3),
        ("/~01", 4),
        ("/0", 5),
        ("/ä ö", 6),
        ("/-", 7),
    ],
)
def test_a_part_is_read(server: Server, document: str, path: str, expected: Any) -> None:
    assert server.get(document, params={"path": path}).json()["value"] == expected


def test_a_part_is_answered_with_its_path_and_the_metadata_of_the_entry(server: Server, document: str) -> None:
    whole = server.get(document).json()
    part = server.get(document, params={"path": "/a/b/0"}).json()
    assert part == whole | {"value": 10, "path": "/a/b/0"}


def test_the_empty_path_is_the_whole_value(server: Server, document: str) -> None:
    assert server.get(document, params={"path": ""}).json()["value"] == server.value(document)


def test_several_paths_give_each_part_under_its_path(server: Server, document: str) -> None:
    response = server.get(document, params={"path": ["/a/b/0", "/x~1y", "/a/b/1"]})
    assert response.json()["value"] == {"/a/b/0": 10, "/x~1y": 2, "/a/b/1": {"c": None}}


def test_several_parts_are_answered_without_a_member_path(server: Server, document: str) -> None:
    assert "path" not in server.get(document, params={"path": ["/a", "/0"]}).json()


def test_several_raw_parts_are_one_object(server: Server, document: str) -> None:
    assert server.get(f"{document}?raw&path=/0&path=/-").json() == {"/0": 5, "/-": 7}


@pytest.mark.parametrize(
    "path",
    [
        "/b",
        "/a/c",
        "/a/b/2",
        "/a/b/-",
        "/a/b/-1",
        "/a/b/01",
        "/a/b/0/x",
        "/a/b/1/c/d",
        "/a/",
        "/a/b/9999999999999999999",
    ],
)
def test_a_missing_part_is_not_found(server: Server, document: str, path: str) -> None:
    response = server.get(document, params={"path": path})
    assert (refusal(response), response.json()["path"]) == (PATH_NOT_FOUND, path)


def test_one_missing_part_among_several_is_not_found(server: Server, document: str) -> None:
    assert refusal(server.get(document, params={"path": ["/a", "/b"]})) == PATH_NOT_FOUND


def test_a_part_of_an_absent_key_is_not_found(server: Server, key: str) -> None:
    assert refusal(server.get(key, params={"path": "/a"})) == (404, "not_found")


@pytest.mark.parametrize("path", ["a", "a/b", "#/a", "/~", "/~2", "/a~", "/a/~b", "/\0"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_an_invalid_pointer_is_refused(server: Server, document: str, method: str, path: str) -> None:
    response = server.request(method, f"/kv/{document}", params={"path": path}, content=b"1")
    assert (refusal(response), server.get(f"{document}?raw").json()["0"]) == (INVALID_PATH, 5)


def test_a_path_with_more_segments_than_the_nesting_limit_is_refused(server: Server, document: str) -> None:
    assert refusal(server.get(document, params={"path": "/a" * 129})) == INVALID_PATH


def test_a_hundred_paths_are_accepted(server: Server, document: str) -> None:
    assert server.get(document, params={"path": ["/0"] * 100}).json()["value"] == {"/0": 5}


def test_more_than_a_hundred_paths_are_refused(server: Server, document: str) -> None:
    response = server.get(document, params={"path": ["/0"] * 101})
    assert (refusal(response), response.json()["limit"]) == ((400, "invalid_argument"), 100)


def test_a_plus_in_a_query_is_a_space(server: Server, document: str) -> None:
    assert server.get(f"{document}?path=/%C3%A4+%C3%B6").json()["value"] == 6


# Writing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize(
    ("before", "path", "after"),
    [
        ("{}", "/a", {"a": "new"}),
        ('{"a": 1, "b": 2}', "/a", {"a": "new", "b": 2}),
        ("{}", "/a/b/c", {"a": {"b": {"c": "new"}}}),
        ('{"a": {"x": 1}}', "/a/b/c", {"a": {"x": 1, "b": {"c": "new"}}}),
        ('{"a": [1, 2, 3]}', "/a/1", {"a": [1, "new", 3]}),
        ('{"a": [1, 2, 3]}', "/a/-", {"a": [1, 2, 3, "new"]}),
        ('{"a": []}', "/a/-", {"a": ["new"]}),
        ("[[1], [2]]", "/1/-", [[1], [2, "new"]]),
        ('[{"a": 1}]', "/0/b", [{"a": 1, "b": "new"}]),
        ("{}", "/", {"": "new"}),
        ("{}", "/x~1y", {"x/y": "new"}),
        ("{}", "/m~0n", {"m~n": "new"}),
        ("{}", "/~01", {"~1": "new"}),
        ("{}", "/0", {"0": "new"}),
        ('{"-": 1}', "/-", {"-": "new"}),
        ('"whole"', "", "new"),
        ('{"a": 1}', "", "new"),
    ],
)
def test_a_part_is_written(server: Server, key: str, method: str, before: str, path: str, after: Any) -> None:
    if method == "PUT" and path.endswith("-"):
        method = "POST"  # see test_a_put_that_would_append_is_refused_and_changes_nothing
    server.put(key, before)
    written = server.request(method, f"/kv/{key}", params={"path": path}, content=b'"new"')
    assert (written.status_code, server.value(key)) == (200, after)


@pytest.mark.parametrize("before", [None, "[]", '{"a": [1]}', '{"-": 1, "a": {"-": 1}}'])
@pytest.mark.parametrize("path", ["/-", "/a/-", "/a/b/-"])
def test_a_put_that_would_append_is_refused_and_changes_nothing(
    server: Server, key: str, before: str | None, path: str
) -> None:
    if before is not None:
        server.put(key, before)
    entry = server.get(key).json().get("revision")
    refused = server.request("PUT", f"/kv/{key}", params={"path": path}, content=b'"new"')
    assert (refusal(refused), "POST" in refused.json()["message"]) == ((400, "invalid_argument"), True)
    assert server.get(key).json().get("revision") == entry


@pytest.mark.parametrize(
    ("path", "after"),
    [
        ("/a", {"a": "new"}),
        ("/a/b", {"a": {"b": "new"}}),
        ("/-", ["new"]),
        ("/a/-", {"a": ["new"]}),
        ("/0", {"0": "new"}),
        ("", "new"),
    ],
)
def test_a_write_of_a_part_of_an_absent_key_creates_the_entry(server: Server, key: str, path: str, after: Any) -> None:
    created = server.put(key, '"new"', params={"path": path})
    assert (created.status_code, server.value(key)) == (201, after)


def test_a_write_of_a_part_is_answered_with_the_part_and_its_path(server: Server, document: str) -> None:
    written = server.put(document, "[true]", params={"path": "/a/b/1/c"}).json()
    assert written == server.get(document, params={"path": "/a/b/1/c"}).json()
    assert (written["value"], written["path"]) == ([True], "/a/b/1/c")


@pytest.mark.parametrize("before", ['"text"', "1", "true", "null", '{"a": "text"}', '{"a": null}', '{"a": 0}'])
def test_a_path_through_a_value_that_is_no_container_is_a_conflict(server: Server, key: str, before: str) -> None:
    entry = server.put(key, before).json()
    refused = server.put(key, "1", params={"path": "/a/b"})
    assert (refusal(refused), server.get(key).json()) == (CONFLICT, entry)


def test_a_path_that_indexes_a_list_by_a_name_is_a_conflict(server: Server, key: str) -> None:
    entry = server.put(key, "[1]").json()
    refused = server.put(key, "1", params={"path": "/name"})
    assert (refusal(refused), server.get(key).json()) == (CONFLICT, entry)


@pytest.mark.parametrize("path", ["/1", "/2", "/0/1", "/9999999999999999999"])
def test_a_write_beyond_the_end_of_a_list_is_refused(server: Server, key: str, path: str) -> None:
    entry = server.put(key, "[[0]]").json()
    refused = server.put(key, "1", params={"path": path})
    assert (refusal(refused), server.get(key).json()) == (PATH_NOT_FOUND, entry)


def test_a_part_that_is_not_json_is_refused_and_changes_nothing(server: Server, document: str) -> None:
    entry = server.get(document).json()
    refused = server.put(document, "[", params={"path": "/a"})
    assert (refusal(refused), server.get(document).json()) == ((400, "invalid_json"), entry)


# Deleting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "path", "after"),
    [
        ('{"a": 1, "b": 2}', "/a", {"b": 2}),
        ('{"a": {"b": 1}}', "/a/b", {"a": {}}),
        ('{"0": 1, "1": 2}', "/0", {"1": 2}),
        ('[{"a": 1}]', "/0/a", [{}]),
        ('{"": 1}', "/", {}),
        ('{"x/y": 1, "m~n": 2}', "/x~1y", {"m~n": 2}),
        ('{"a": null}', "/a", {}),
    ],
)
def test_a_part_is_deleted(server: Server, key: str, before: str, path: str, after: Any) -> None:
    server.put(key, before)
    deleted = server.delete(key, params={"path": path})
    assert (deleted.status_code, server.value(key)) == (200, after)


@pytest.mark.parametrize(
    ("before", "path", "after"), [("[1, 2, 3]", "/1", [1, 3]), ('{"a": [[0], 1]}', "/a/0/0", {"a": [[], 1]})]
)
@pytest.mark.parametrize("headers", [{}, {"If-Match": "*"}, {"If-None-Match": '"0"'}], ids=str)
def test_a_deletion_by_index_needs_if_match_so_that_a_repetition_is_refused(
    server: Server, key: str, before: str, path: str, after: Any, headers: dict[str, str]
) -> None:
    entry = server.put(key, before).json()
    etag = server.get(key).headers["ETag"]
    refused = server.delete(key, params={"path": path}, headers=headers)
    assert (refusal(refused), server.get(key).json()) == ((428, "precondition_required"), entry)
    assert "If-Match" in refused.json()["message"]
    statuses = [server.delete(key, params={"path": path}, headers={"If-Match": etag}).status_code for _ in range(2)]
    assert (statuses, server.value(key)) == ([200, 412], after)


def test_the_deletion_of_a_part_is_answered_with_key_path_and_revision(server: Server, document: str) -> None:
    before = server.get(document).json()["revision"]
    response = server.delete(document, params={"path": "/a/b"})
    expected = {"key": document, "path": "/a/b", "deleted": True, "revision": before + 1}
    assert (response.json(), response.headers["ETag"]) == (expected, tag_of(server, before + 1))


def test_a_deletion_at_the_empty_path_deletes_the_entry(server: Server, document: str) -> None:
    server.delete(document, params={"path": ""})
    assert refusal(server.get(document)) == (404, "not_found")


@pytest.mark.parametrize("path", ["/b", "/a/b/2", "/a/b/-", "/a/b/0/x"])
def test_a_deletion_of_a_missing_part_is_not_found_and_changes_nothing(
    server: Server, document: str, path: str
) -> None:
    entry = server.get(document).json()
    refused = server.delete(document, params={"path": path})
    assert (refusal(refused), server.get(document).json()) == (PATH_NOT_FOUND, entry)


def test_a_deletion_of_a_part_of_an_absent_key_is_not_found(server: Server, key: str) -> None:
    assert refusal(server.delete(key, params={"path": "/a"})) == (404, "not_found")


def test_parts_that_are_too_large_together_are_refused_and_each_alone_is_answered(server: Server, key: str) -> None:
    assert server.put(key, "[" * 20 + '"' + "a" * 1_000_000 + '"' + "]" * 20).status_code == 201
    paths = ["/0" * levels for levels in range(5)]
    refused = server.get(key, params={"path": paths})
    assert (refusal(refused), refused.json()["limit"]) == ((413, "too_large"), 2 * 1024 * 1024)
    assert [server.get(key, params={"path": path}).status_code for path in paths] == [200] * 5


def test_a_missing_container_becomes_an_object_even_if_the_segment_is_a_number(server: Server, key: str) -> None:
    assert server.put(key, "1", params={"path": "/list/0"}).status_code == 201
    assert server.value(key) == {"list": {"0": 1}}
