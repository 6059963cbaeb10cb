"""ETags and conditional requests (RFC 9110, section 13), on reads and writes."""

import re
from collections.abc import Callable
from contextlib import ExitStack

import httpx
import pytest
from running import Server, Wire, message, refusal, running, tag_of

FAILED = (412, "precondition_failed")
MESSAGEPACK = "application/vnd.msgpack"

Write = Callable[[Server, str, dict[str, str]], httpx.Response]
WRITES: dict[str, Write] = {
    "POST": lambda server, key, headers: server.put(key, '{"a": 2}', headers=headers),
    "PUT": lambda server, key, headers: server.request("PUT", f"/kv/{key}", content=b'{"a": 2}', headers=headers),
    "POST path": lambda server, key, headers: server.put(key, "2", params={"path": "/a"}, headers=headers),
    "merge patch": lambda server, key, headers: server.patch(key, '{"a": 2}', headers=headers),
    "JSON patch": lambda server, key, headers: server.patch(
        key, '[{"op": "replace", "path": "/a", "value": 2}]', kind="json-patch", headers=headers
    ),
    "DELETE": lambda server, key, headers: server.delete(key, headers=headers),
    "DELETE path": lambda server, key, headers: server.delete(key, params={"path": "/a"}, headers=headers),
}
every_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


def revision_of(server: Server, key: str) -> int:
    revision = server.put(key, '{"a": 1}').json()["revision"]
    assert isinstance(revision, int)
    return revision


# ETags --------------------------------------------------------------------------------------------------------


def test_the_etag_is_the_revision_in_the_incarnation_of_the_store(server: Server, key: str) -> None:
    revision = revision_of(server, key)
    etag = server.get(key).headers["ETag"]
    assert re.fullmatch(rf'"{revision}\.[0-9a-f]{{6}}"', etag)
    assert etag == tag_of(server, revision)


@every_write
def test_a_write_answers_with_the_etag_of_the_new_revision(server: Server, key: str, write: Write) -> None:
    revision_of(server, key)
    response = write(server, key, {})
    expected = None if response.request.method == "DELETE" and "path" not in response.json() else response.json()
    etag = None if expected is None else tag_of(server, expected["revision"])
    assert response.headers.get("ETag") == etag


@pytest.mark.parametrize(
    ("query", "accept", "suffix"),
    [
        ("", "application/json", ""),
        ("?raw", "application/json", "-raw"),
        ("", MESSAGEPACK, "-msgpack"),
        ("?raw", MESSAGEPACK, "-raw-msgpack"),
    ],
)
def test_each_representation_has_its_own_strong_etag(
    server: Server, key: str, query: str, accept: str, suffix: str
) -> None:
    revision = revision_of(server, key)
    assert server.get(key + query, headers={"Accept": accept}).headers["ETag"] == tag_of(server, revision, suffix)


# Reads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "sent", ['"{}"', 'W/"{}"', "*", '"1", "{}"', '"other" , W/"x","{}"', '"a,b","{}"', '"{}",', ',, "1",,"{}" ,']
)
def test_a_read_with_the_current_etag_is_not_modified(server: Server, key: str, method: str, sent: str) -> None:
    revision = revision_of(server, key)
    response = server.request(method, f"/kv/{key}", headers={"If-None-Match": sent.format(revision)})
    assert (response.status_code, response.headers["ETag"], response.content) == (304, tag_of(server, revision), b"")


@pytest.mark.parametrize("sent", ['"0"', 'W/"0"', '"{}-raw"', '"{}-msgpack"', '"0{}"', '""', '"x{}"', '"0", "{}0"'])
def test_a_read_with_another_etag_is_answered_in_full(server: Server, key: str, sent: str) -> None:
    revision = revision_of(server, key)
    assert server.get(key, headers={"If-None-Match": sent.format(revision)}).status_code == 200


@pytest.mark.parametrize(
    ("query", "accept"), [("?raw", "application/json"), ("", MESSAGEPACK), ("?raw", MESSAGEPACK), ("?path=/a", "*/*")]
)
def test_each_representation_is_not_modified_by_its_own_etag(server: Server, key: str, query: str, accept: str) -> None:
    revision_of(server, key)
    etag = server.get(key + query, headers={"Accept": accept}).headers["ETag"]
    again = server.get(key + query, headers={"Accept": accept, "If-None-Match": etag})
    assert (again.status_code, again.headers["ETag"]) == (304, etag)


def test_if_none_match_of_an_absent_key_is_not_found(server: Server, key: str) -> None:
    assert refusal(server.get(key, headers={"If-None-Match": "*"})) == (404, "not_found")


@pytest.mark.parametrize("sent", ['"{}"', "*", '"{}-raw"', '"{}-msgpack"', '"{}-raw-msgpack"', '"1", "{}"'])
def test_a_read_if_match_of_the_current_revision_is_answered(server: Server, key: str, sent: str) -> None:
    revision = revision_of(server, key)
    assert server.get(key, headers={"If-Match": sent.format(revision)}).status_code == 200


@pytest.mark.parametrize("sent", ['"0"', 'W/"{}"', '"{}0"', '"x"', '"0", "{}0"', '"{}-gzip"'])
def test_a_read_if_match_of_another_revision_fails(server: Server, key: str, sent: str) -> None:
    revision = revision_of(server, key)
    assert refusal(server.get(key, headers={"If-Match": sent.format(revision)})) == FAILED


def test_if_match_is_checked_before_if_none_match(server: Server, key: str) -> None:
    revision = revision_of(server, key)
    headers = {"If-Match": '"0"', "If-None-Match": f'"{revision}"'}
    assert refusal(server.get(key, headers=headers)) == FAILED


# Writes -------------------------------------------------------------------------------------------------------


@every_write
@pytest.mark.parametrize("sent", ['"{}"', "*", '"{}-raw"', '"{}-msgpack"', '"1" ,"{}"', '"a,b", "{}"'])
def test_a_write_if_match_of_the_current_revision_is_done(server: Server, key: str, sent: str, write: Write) -> None:
    revision = revision_of(server, key)
    assert write(server, key, {"If-Match": sent.format(revision)}).status_code == 200


@every_write
@pytest.mark.parametrize("sent", ['"0"', 'W/"{}"', '"0", "{}0"', '"{}0"', '"x"', '"{}-gzip"'])
def test_a_write_if_match_of_another_revision_fails_and_changes_nothing(
    server: Server, key: str, sent: str, write: Write
) -> None:
    revision = revision_of(server, key)
    response = write(server, key, {"If-Match": sent.format(revision)})
    assert (refusal(response), server.value(key)) == (FAILED, {"a": 1})


@every_write
@pytest.mark.parametrize("sent", ["*", '"{}"', 'W/"{}"', '"{}-raw"', '"{}-msgpack"', '"1", "{}"'])
def test_a_write_if_none_match_of_the_current_revision_fails_and_changes_nothing(
    server: Server, key: str, sent: str, write: Write
) -> None:
    revision = revision_of(server, key)
    response = write(server, key, {"If-None-Match": sent.format(revision)})
    assert (refusal(response), server.value(key)) == (FAILED, {"a": 1})


@every_write
def test_a_write_if_none_match_of_another_revision_is_done(server: Server, key: str, write: Write) -> None:
    revision = revision_of(server, key)
    others = f'"{revision + 1}", W/"{revision + 2}"'
    assert write(server, key, {"If-None-Match": others}).status_code == 200


@every_write
def test_a_failed_write_has_the_current_revision_in_the_etag_and_in_the_body(
    server: Server, key: str, write: Write
) -> None:
    revision = revision_of(server, key)
    response = write(server, key, {"If-Match": '"0"'})
    assert (response.headers["ETag"], response.json()["revision"]) == (tag_of(server, revision), revision)


def test_a_retry_with_the_etag_of_a_failed_write_succeeds(server: Server, key: str) -> None:
    revision_of(server, key)
    failed = server.put(key, "3", headers={"If-Match": '"0"'})
    assert server.put(key, "3", headers={"If-Match": failed.headers["ETag"]}).status_code == 200


def test_if_none_match_star_creates_a_key_that_is_absent(server: Server, key: str) -> None:
    assert server.put(key, "1", headers={"If-None-Match": "*"}).status_code == 201


@pytest.mark.parametrize("sent", ["*", '"1"'])
def test_if_match_does_not_create_a_key_that_is_absent(server: Server, key: str, sent: str) -> None:
    response = server.put(key, "1", headers={"If-Match": sent})
    seen = (refusal(response), response.json()["revision"], "ETag" in response.headers, server.get(key).status_code)
    assert seen == (FAILED, None, False, 404)


@pytest.mark.parametrize("write", [WRITES["merge patch"], WRITES["JSON patch"], WRITES["DELETE"]])
def test_a_condition_on_a_change_of_an_absent_key_is_not_found(server: Server, key: str, write: Write) -> None:
    assert refusal(write(server, key, {"If-Match": "*"})) == (404, "not_found")


def test_both_conditions_must_hold(server: Server, key: str) -> None:
    revision = revision_of(server, key)
    headers = {"If-Match": f'"{revision}"', "If-None-Match": f'"{revision}"'}
    assert refusal(server.put(key, "2", headers=headers)) == FAILED


def test_two_headers_with_conditions_are_one_list(server: Server, key: str) -> None:
    revision = revision_of(server, key)
    headers = [("If-Match", '"0"'), ("If-Match", f'"{revision}"')]
    assert server.put(key, "2", headers=headers).status_code == 200


def at_once(server: Server, sent: bytes) -> list[int]:
    """The statuses of 64 clients that send the same at the same time."""
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(server)) for _ in range(64)]
        for wire in wires:
            wire.send(sent)
        return sorted(wire.answer().status for wire in wires)


def test_of_many_writers_at_the_same_revision_one_succeeds(any_server: Server, key: str) -> None:
    etag = f'"{revision_of(any_server, key)}"'
    assert at_once(any_server, message("PUT", f"/kv/{key}", f"If-Match: {etag}", body=b"2")) == [200] + [412] * 63


def test_of_many_creators_of_the_same_key_one_succeeds(any_server: Server, key: str) -> None:
    assert at_once(any_server, message("PUT", f"/kv/{key}", "If-None-Match: *", body=b"2")) == [201] + [412] * 63


def test_of_many_deletions_of_the_same_key_one_succeeds(any_server: Server, key: str) -> None:
    revision_of(any_server, key)
    assert at_once(any_server, message("DELETE", f"/kv/{key}")) == [200] + [404] * 63


# Incarnations: "{}" is the revision, "{}.{}" the revision in the incarnation of the store ---------------------

OF_ANOTHER = ['"{0}.abcdef"', '"{0}.abcdef-raw"', '"{0}.ABCDEF"', '"{0}."', '"{0}.{1}0"', '"{1}"', '"{1}.{0}"']


def filled(server: Server, sent: str, revision: int) -> str:
    """`sent` with the revision in the place of {0}, and the incarnation in that of {1}."""
    return sent.format(revision, tag_of(server, revision).strip('"').partition(".")[2])


@every_write
@pytest.mark.parametrize(
    "sent", ['"{0}.{1}"', '"{0}.{1}-raw"', '"{0}.{1}-raw-msgpack"', '"{0}.abcdef", "{0}.{1}"', '"{0}"']
)
def test_a_write_if_match_accepts_the_etag_of_this_incarnation_and_the_bare_revision(
    server: Server, key: str, sent: str, write: Write
) -> None:
    revision = revision_of(server, key)
    assert write(server, key, {"If-Match": filled(server, sent, revision)}).status_code == 200


@every_write
@pytest.mark.parametrize("sent", OF_ANOTHER)
def test_a_write_if_match_of_another_incarnation_fails_and_changes_nothing(
    server: Server, key: str, sent: str, write: Write
) -> None:
    revision = revision_of(server, key)
    response = write(server, key, {"If-Match": filled(server, sent, revision)})
    assert (refusal(response), server.value(key)) == (FAILED, {"a": 1})
    assert response.headers["ETag"] == tag_of(server, revision)


@every_write
@pytest.mark.parametrize(("sent", "status"), [('"{0}.{1}"', 412), ('W/"{0}.{1}-raw"', 412), ('"{0}.abcdef"', 200)])
def test_a_write_if_none_match_compares_the_incarnation_of_the_etag(
    server: Server, key: str, sent: str, status: int, write: Write
) -> None:
    revision = revision_of(server, key)
    assert write(server, key, {"If-None-Match": filled(server, sent, revision)}).status_code == status


@pytest.mark.parametrize("sent", ['"{0}.{1}"', 'W/"{0}.{1}"', '"{0}.abcdef", "{0}.{1}"', '"{0}"', 'W/"{0}"'])
def test_a_read_is_not_modified_by_a_tag_of_this_incarnation_or_the_bare_revision(
    server: Server, key: str, sent: str
) -> None:
    revision = revision_of(server, key)
    response = server.get(key, headers={"If-None-Match": filled(server, sent, revision)})
    assert (response.status_code, response.headers["ETag"]) == (304, tag_of(server, revision))


@pytest.mark.parametrize("sent", [*OF_ANOTHER, 'W/"{0}.abcdef"', '"{0}.{1}-raw"'])
def test_a_read_is_answered_in_full_to_a_tag_of_another_incarnation(server: Server, key: str, sent: str) -> None:
    revision = revision_of(server, key)
    assert server.get(key, headers={"If-None-Match": filled(server, sent, revision)}).status_code == 200


def test_etags_of_a_memory_store_do_not_match_after_a_restart() -> None:
    """What has the same revision after a restart is something else."""
    with running("memory:") as server:
        before = server.put("a", '"before"').headers["ETag"]
        server.restart()
        server.put("a", '"after"')
        assert server.get("a", headers={"If-None-Match": before}).json()["value"] == "after"
        assert refusal(server.put("a", '"overwritten"', headers={"If-Match": before})) == FAILED


# ETags that a compressing proxy has changed -------------------------------------------------------------------

BY_A_PROXY = [
    'W/"{0}.{1}"',
    '"{0}.{1}-gzip"',
    '"{0}.{1};gzip"',
    '"{0}.{1}-br"',
    '"{0}.{1}--gzip"',
    '"{0}.{1}-raw-gzip"',
]
BY_A_PROXY += ['W/"{0}.{1}-zstd"', 'W/"{0}"', '"{0}-gzip"', '"1", W/"{0}.{1}"']


@every_write
@pytest.mark.parametrize("sent", BY_A_PROXY)
def test_an_etag_that_a_proxy_changed_does_not_match_and_the_error_says_why(
    server: Server, key: str, sent: str, write: Write
) -> None:
    revision = revision_of(server, key)
    response = write(server, key, {"If-Match": filled(server, sent, revision)})
    assert (refusal(response), server.value(key)) == (FAILED, {"a": 1})
    assert "a proxy that compresses has changed the ETag" in response.json()["message"]
    assert write(server, key, {"If-Match": f'"{response.json()["revision"]}"'}).status_code == 200


@pytest.mark.parametrize("sent", ['W/"1.{1}"', '"{0}.abcdef-gzip"', '"{0}.{1}-tar"', '"other-gzip"', 'W/"x"'])
def test_the_error_for_any_other_etag_does_not_mention_a_proxy(server: Server, key: str, sent: str) -> None:
    revision = revision_of(server, key)
    response = server.put(key, "2", headers={"If-Match": filled(server, sent, revision)})
    assert (refusal(response), response.json()["message"]) == (FAILED, "the entry is at another revision")


def test_a_read_if_match_of_an_etag_that_a_proxy_changed_says_why(server: Server, key: str) -> None:
    revision = revision_of(server, key)
    response = server.get(key, headers={"If-Match": filled(server, '"{0}.{1}-gzip"', revision)})
    assert refusal(response) == FAILED
    assert "a proxy that compresses" in response.json()["message"]


# Malformed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        "",
        ",",
        "1",
        "42, 43",
        '"1',
        '1"',
        '"1" "2"',
        '"1"2"',
        "'1'",
        '* , "1"',
        '"1", *',
        "**",
        'w/"1"',
        'W/ "1"',
        '"a"b"',
    ],
)
@pytest.mark.parametrize("name", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_malformed_condition_is_refused(server: Server, key: str, method: str, name: str, sent: str) -> None:
    server.put(key, "1")
    response = server.request(method, f"/kv/{key}", content=b"2", headers={name: sent})
    assert (refusal(response), server.value(key)) == ((400, "invalid_argument"), 1)
