"""`GET /stream/{uuid}` and `GET /stream`: a value or all entries are streamed."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from contract import messagepack_sequence, sequence
from running import Server, Wire, message, refusal, running

MESSAGEPACK = "application/vnd.msgpack"
NDJSON = "application/x-ndjson"
INVALID_ARGUMENT = (400, "invalid_argument")
NOT_FOUND = (404, "not_found")


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


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


# Large stores and slow readers --------------------------------------------------------------------------------


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
