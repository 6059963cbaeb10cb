"""`/kv/{key}`: entries are created, replaced, read and deleted; their members, revisions and times."""

import re

import pytest
from running import Server, refusal

NOT_FOUND = (404, "not_found")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


# Create and replace -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_new_key_is_created(server: Server, key: str, method: str) -> None:
    created = server.request(method, f"/kv/{key}", content=b'{"name": "alice"}')
    assert (created.status_code, server.value(key)) == (201, {"name": "alice"})


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_an_existing_key_is_replaced(server: Server, key: str, method: str) -> None:
    server.put(key, '{"name": "alice", "age": 7}')
    replaced = server.request(method, f"/kv/{key}", content=b'{"name": "bob"}')
    assert (replaced.status_code, server.value(key)) == (200, {"name": "bob"})


@pytest.mark.parametrize("path", ["", "/a/b"])
def test_a_created_entry_is_answered_with_its_location(server: Server, key: str, path: str) -> None:
    created = server.put(f"{key}%2F%C3%A4", "1", params={"path": path})
    assert server.request("GET", created.headers["Location"]).json()["key"] == f"{key}/ä"


def test_a_replaced_entry_is_answered_without_location(server: Server, key: str) -> None:
    server.put(key, "1")
    assert "Location" not in server.put(key, "2").headers


def test_a_key_deleted_and_written_again_is_created_anew(server: Server, key: str) -> None:
    first = server.put(key, "1").json()
    server.delete(key)
    second = server.put(key, "2")
    assert (second.status_code, second.json()["created_at"] > first["created_at"]) == (201, True)


# An entry's members -------------------------------------------------------------------------------------------


def test_an_entry_has_exactly_the_documented_members(server: Server, key: str) -> None:
    server.put(key, '"alice"')
    assert list(server.get(key).json()) == ["key", "value", "revision", "created_at", "updated_at"]


def test_an_entry_with_a_ttl_also_has_its_expiry(server: Server, key: str) -> None:
    written = server.put(key, '"alice"', params={"ttl": 60}).json()
    assert list(written) == ["key", "value", "revision", "created_at", "updated_at", "expires_at"]


def test_a_write_and_a_read_answer_the_same_entry(server: Server, key: str) -> None:
    written = server.put(key, '{"a": [1]}', params={"ttl": 60}).json()
    assert server.get(key).json() == written


def test_times_are_rfc_3339_in_utc_with_microseconds(server: Server, key: str) -> None:
    entry = server.put(key, "1", params={"ttl": 60}).json()
    times = [entry["created_at"], entry["updated_at"], entry["expires_at"]]
    assert [time for time in times if not TIME.fullmatch(time)] == []


def test_a_new_entry_has_equal_times_of_creation_and_update(server: Server, key: str) -> None:
    entry = server.put(key, "1").json()
    assert entry["updated_at"] == entry["created_at"]


def test_a_replaced_entry_keeps_its_time_of_creation_and_has_a_later_update(server: Server, key: str) -> None:
    first, second = server.put(key, "1").json(), server.put(key, "2").json()
    assert (second["created_at"], second["updated_at"] > first["updated_at"]) == (first["created_at"], True)


# Revisions ----------------------------------------------------------------------------------------------------


def test_each_change_has_a_larger_revision(server: Server, key: str) -> None:
    revisions = [
        server.put(key, "{}").json()["revision"],
        server.put(key, "1", params={"path": "/a"}).json()["revision"],
        server.patch(key, '{"b": 2}').json()["revision"],
        server.delete(key, params={"path": "/a"}).json()["revision"],
        server.delete(key).json()["revision"],
        server.put(key, "{}").json()["revision"],
    ]
    assert revisions == sorted(set(revisions))


def test_a_write_of_the_same_value_is_a_change(server: Server, key: str) -> None:
    first, second = server.put(key, "1").json(), server.put(key, "1").json()
    assert second["revision"] > first["revision"]


def test_revisions_are_counted_for_the_whole_store(still_server: Server, key: str) -> None:
    first, second = still_server.put(f"{key}/a", "1").json(), still_server.put(f"{key}/b", "1").json()
    assert second["revision"] == first["revision"] + 1


def test_a_read_uses_no_revision(still_server: Server, key: str) -> None:
    still_server.put(key, "1")
    before = still_server.revision()
    still_server.get(key)
    still_server.request("HEAD", f"/kv/{key}")
    still_server.request("GET", "/kv", params={"prefix": key})
    assert still_server.revision() == before


def test_a_refused_write_uses_no_revision(still_server: Server, key: str) -> None:
    still_server.put(key, "1")
    before = still_server.revision()
    still_server.put(key, "nonsense")
    still_server.put(key, "2", headers={"If-None-Match": "*"})
    still_server.put(key, "2", params={"path": "/a"})
    still_server.patch(key, '[{"op": "remove", "path": "/a"}]', kind="json-patch")
    still_server.delete(f"{key}/absent")
    assert still_server.revision() == before


# Read ---------------------------------------------------------------------------------------------------------


def test_an_absent_key_is_not_found(server: Server, key: str) -> None:
    response = server.get(key)
    assert (refusal(response), response.json()["message"]) == (NOT_FOUND, "key does not exist")


def test_a_key_that_is_only_a_prefix_of_another_is_not_found(server: Server, key: str) -> None:
    server.put(f"{key}/a", "1")
    assert refusal(server.get(key)) == NOT_FOUND


def test_head_answers_with_the_headers_of_get(server: Server, key: str) -> None:
    server.put(key, '{"a": "ä"}')
    expected, actual = server.get(key), server.request("HEAD", f"/kv/{key}")
    names = ("ETag", "Content-Type", "Content-Length", "Vary")
    assert [actual.headers[name] for name in names] == [expected.headers[name] for name in names]


def test_head_of_an_absent_key_is_not_found(server: Server, key: str) -> None:
    assert server.request("HEAD", f"/kv/{key}").status_code == 404


@pytest.mark.parametrize("flag", ["raw", "raw=", "raw=true", "raw=1"])
def test_raw_answers_the_value_alone(server: Server, key: str, flag: str) -> None:
    server.put(key, '{ "a" : [1, null] }')
    assert server.get(f"{key}?{flag}").content == b'{"a":[1,null]}\n'


@pytest.mark.parametrize("flag", ["raw=false", "raw=0"])
def test_raw_false_answers_the_entry(server: Server, key: str, flag: str) -> None:
    server.put(key, "1")
    assert server.get(f"{key}?{flag}").json()["key"] == key


def test_raw_with_a_path_answers_the_part_alone(server: Server, key: str) -> None:
    server.put(key, '{"a": [1, {"b": null}]}')
    assert server.get(f"{key}?raw&path=/a/1").content == b'{"b":null}\n'


def test_raw_with_another_value_is_refused(server: Server, key: str) -> None:
    assert refusal(server.get(f"{key}?raw=maybe")) == (400, "invalid_argument")


def test_head_of_a_raw_value_has_its_length(server: Server, key: str) -> None:
    server.put(key, '"alice"')
    assert server.request("HEAD", f"/kv/{key}?raw").headers["Content-Length"] == "8"


# Delete -------------------------------------------------------------------------------------------------------


def test_a_deletion_is_answered_with_key_and_revision(server: Server, key: str) -> None:
    before = server.put(key, "1").json()["revision"]
    response = server.delete(key)
    expected = {"key": key, "deleted": True, "revision": before + 1}
    assert (response.status_code, response.json()) == (200, expected)


def test_a_deleted_entry_is_not_found(server: Server, key: str) -> None:
    server.put(key, "1")
    server.delete(key)
    assert refusal(server.get(key)) == NOT_FOUND


def test_a_deletion_of_an_absent_key_is_not_found(server: Server, key: str) -> None:
    assert refusal(server.delete(key)) == NOT_FOUND


def test_a_second_deletion_is_not_found(server: Server, key: str) -> None:
    server.put(key, "1")
    server.delete(key)
    assert refusal(server.delete(key)) == NOT_FOUND


def test_a_deletion_leaves_similar_keys(server: Server, key: str) -> None:
    for name in (f"{key}/a", f"{key}/a/b", f"{key}/ab"):
        server.put(name, "1")
    server.delete(f"{key}/a")
    assert [server.get(name).status_code for name in (f"{key}/a/b", f"{key}/ab")] == [200, 200]


# Parameters ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "query"),
    [
        ("GET", "tll=5"),
        ("GET", "ttl=5"),
        ("GET", "limit=5"),
        ("PUT", "tll=5"),
        ("PUT", "raw"),
        ("PATCH", "path=/a"),
        ("DELETE", "raw"),
        ("DELETE", "Path=/a"),
    ],
)
def test_an_unknown_parameter_is_refused(server: Server, key: str, method: str, query: str) -> None:
    server.put(key, "{}")
    headers = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
    response = server.request(method, f"/kv/{key}?{query}", content=b"{}", headers=headers)
    assert (refusal(response), response.json()["parameter"]) == ((400, "invalid_argument"), query.partition("=")[0])


@pytest.mark.parametrize("query", ["ttl=5&ttl=6", "path=/a&path=/b"])
def test_a_repeated_parameter_of_a_write_is_refused(server: Server, key: str, query: str) -> None:
    server.put(key, "{}")
    assert refusal(server.put(f"{key}?{query}", "1")) == (400, "invalid_argument")


@pytest.mark.parametrize("query", ["path=%ff", "path=%", "%ff=1", "path=%ED%A0%80"])
def test_a_query_that_is_not_percent_encoded_utf8_is_refused(server: Server, key: str, query: str) -> None:
    assert refusal(server.get(f"{key}?{query}")) == (400, "invalid_argument")
