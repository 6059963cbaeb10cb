"""Values that are bytes: written with their media type, read as they are, and shown in JSON and MessagePack."""

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from callers import BOTH, READER, WRITER
from contract import sequence
from databases import STORES
from running import Server, Wire, message, refusal, running, tag_of, until
from watching import EVENTS, LINES, PACKED, Watch

JSON = "application/json"
MESSAGEPACK = "application/vnd.msgpack"
OCTETS = "application/octet-stream"
PNG = "image/png"
PIXELS = b'\x89PNG\r\n\x1a\n\x00\xff{"not": json}'
CONFLICT = (409, "conflict")
NOT_ACCEPTABLE = (406, "not_acceptable")
UNSUPPORTED = (415, "unsupported_media_type")


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


def store(
    server: Server, key: str, data: bytes = PIXELS, media: str = PNG, *, method: str = "PUT", **options: Any
) -> httpx.Response:
    """Write bytes."""
    headers = {"Content-Type": media} | options.pop("headers", {})
    return server.request(method, f"/kv/{key}", content=data, headers=headers, **options)


def shown(server: Server, key: str, query: str = "") -> Any:
    """The entry as JSON."""
    return server.get(f"{key}{query}", headers={"Accept": JSON}).json()


# Writing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_bytes_are_stored_as_they_are_with_their_media_type(server: Server, key: str, method: str) -> None:
    every_byte = bytes(range(256))
    created = store(server, key, every_byte, OCTETS, method=method)
    assert (created.status_code, created.headers["Location"]) == (201, f"/kv/{key}")
    assert created.headers["ETag"] == tag_of(server, created.json()["revision"])
    replaced = store(server, key, every_byte + b"\0", OCTETS, method=method)
    assert replaced.status_code == 200
    told = replaced.json()
    assert (told["media"], told["size"], "value" in told) == (OCTETS, 257, False)
    assert told["created_at"] == created.json()["created_at"]
    read = server.get(key)
    assert (read.content, read.headers["Content-Type"]) == (every_byte + b"\0", OCTETS)


@pytest.mark.parametrize(
    "media",
    [
        OCTETS,
        PNG,
        "image/svg+xml",
        "application/pdf",
        "text/plain",
        "text/plain; charset=iso-8859-1",
        "image/x.y-z;q=1",
    ],
)
def test_the_default_media_types_are_stored_with_their_parameters(server: Server, key: str, media: str) -> None:
    assert store(server, key, media=media).status_code == 201
    assert server.get(key).headers["Content-Type"] == media
    assert shown(server, key)["media"] == media


def test_a_media_type_is_compared_and_kept_in_lower_case(server: Server, key: str) -> None:
    assert store(server, key, media="IMAGE/PNG; Name=A").status_code == 201
    assert shown(server, key)["media"] == "image/png; Name=A"


@pytest.mark.parametrize(
    "media",
    [
        "text/html",
        "video/mp4",
        "application/zip",
        "application/ld+json",
        "image",
        "image/",
        "text/plain; a",
        "image/*;",
    ],
)
def test_other_media_types_are_refused_with_the_accepted_ones(server: Server, key: str, media: str) -> None:
    refused = store(server, key, media=media)
    assert refusal(refused) == UNSUPPORTED
    expected = f"{JSON}, {MESSAGEPACK}, {OCTETS}, image/*, application/pdf, text/plain"
    assert refused.headers["Accept"] == expected
    assert server.get(key).status_code == 404


@pytest.mark.parametrize("media", [JSON, "application/x-www-form-urlencoded", MESSAGEPACK, "application/msgpack"])
def test_json_and_messagepack_are_never_stored_as_bytes(server: Server, key: str, media: str) -> None:
    body = b"\x01" if "msgpack" in media else b"1"
    assert store(server, key, body, media).status_code == 201
    assert server.value(key) == 1


def test_a_compressed_body_is_refused(server: Server, key: str) -> None:
    assert refusal(store(server, key, headers={"Content-Encoding": "gzip"})) == UNSUPPORTED


def test_no_bytes_are_a_value(server: Server, key: str) -> None:
    assert store(server, key, b"", OCTETS).json()["size"] == 0
    read = server.get(key)
    assert (read.status_code, read.content, read.headers["Content-Length"]) == (200, b"", "0")
    assert shown(server, f"{key}?base64")["value"] == ""


def test_bytes_replace_json_and_json_replaces_bytes(server: Server, key: str) -> None:
    server.put(key, '{"a": 1}')
    assert store(server, key).status_code == 200
    assert server.get(key).content == PIXELS
    server.put(key, '{"a": 2}')
    assert server.value(key) == {"a": 2}
    assert "media" not in server.get(key).json()
    store(server, key)
    assert server.delete(key).json()["deleted"] is True
    assert server.get(key).status_code == 404


def test_the_answer_to_a_write_may_be_messagepack_or_minimal(server: Server, key: str) -> None:
    told = msgspec.msgpack.decode(store(server, key, headers={"Accept": MESSAGEPACK}).content)
    assert (told["media"], told["size"], "value" in told) == (PNG, len(PIXELS), False)
    minimal = store(server, key, headers={"Prefer": "return=minimal"})
    assert (minimal.json()["media"], minimal.headers["Preference-Applied"]) == (PNG, "return=minimal")


def test_the_limit_of_a_value_applies_to_bytes(server: Server, key: str) -> None:
    largest = bytes(1024 * 1024)
    assert store(server, key, largest).status_code == 201
    assert server.get(key).content == largest
    too_large = store(server, key, largest + b"\0")
    assert (refusal(too_large), too_large.json()["limit"]) == ((413, "too_large"), len(largest))


# Reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", PNG),
        ("*/*", PNG),
        ("image/*", PNG),
        ("IMAGE/PNG", PNG),
        ("image/avif,image/webp,image/*,*/*;q=0.8", PNG),
        (f"{JSON}, */*", PNG),
        (f"{JSON}, image/*;q=0.9", JSON),
        (f"{JSON}, */*;q=0.1", JSON),
        (JSON, JSON),
        ("application/*", JSON),
        (MESSAGEPACK, MESSAGEPACK),
        (f"image/png;q=0, {MESSAGEPACK}", MESSAGEPACK),
        (f"image/png;q=0.5, {MESSAGEPACK}", MESSAGEPACK),
    ],
)
def test_accept_decides_between_the_bytes_and_the_entry(server: Server, key: str, accept: str, expected: str) -> None:
    store(server, key)
    read = server.get(key, headers={"Accept": accept})
    assert (read.status_code, read.headers["Content-Type"]) == (200, expected)
    if expected == PNG:
        assert (read.content, read.headers["Content-Length"]) == (PIXELS, str(len(PIXELS)))
    assert read.headers["Vary"] == "Accept"


def test_without_accept_the_answer_is_the_bytes(server: Server, key: str) -> None:
    store(server, key)
    with Wire(server) as wire:
        for _ in range(2):  # the second time with a known header block
            answer = wire.send(message("GET", f"/kv/{key}")).answer()
            assert (answer.headers["content-type"], answer.body) == (PNG, PIXELS)


@pytest.mark.parametrize("accept", ["text/html", "image/gif", f"image/png;q=0, {JSON};q=0"])
def test_bytes_of_another_type_than_accepted_are_not_acceptable(server: Server, key: str, accept: str) -> None:
    store(server, key)
    refused = server.get(key, headers={"Accept": accept})
    assert refusal(refused) == NOT_ACCEPTABLE
    assert PNG in refused.json()["message"]
    assert "ETag" not in refused.headers


def test_json_is_not_acceptable_for_a_client_that_accepts_bytes_only(server: Server, key: str) -> None:
    assert server.get(key, headers={"Accept": PNG}).status_code == 404
    server.put(key, "1")
    assert refusal(server.get(key, headers={"Accept": PNG})) == NOT_ACCEPTABLE


def test_the_entry_as_json_has_media_and_size_and_no_value(server: Server, key: str) -> None:
    written = store(server, key, params={"ttl": 1000}).json()
    entry = shown(server, key)
    assert entry == written
    assert list(entry) == ["key", "media", "size", "revision", "created_at", "updated_at", "expires_at"]
    assert (entry["key"], entry["media"], entry["size"]) == (key, PNG, len(PIXELS))


def test_base64_is_sent_only_if_it_is_asked_for(server: Server, key: str) -> None:
    store(server, key)
    entry = shown(server, f"{key}?base64")
    assert base64.b64decode(entry["value"], validate=True) == PIXELS
    assert (entry["media"], entry["size"]) == (PNG, len(PIXELS))
    assert shown(server, f"{key}?base64=false") == shown(server, key)
    # It asks for the entry, so Accept need not exclude the bytes.
    assert server.get(f"{key}?base64").json() == entry
    assert refusal(server.get(f"{key}?base64", headers={"Accept": PNG})) == NOT_ACCEPTABLE
    server.put(key, "[1]")
    assert server.get(f"{key}?base64").json()["value"] == [1]


def test_a_malformed_flag_is_refused_whatever_the_value_is(server: Server, key: str, uuid: str) -> None:
    for write in (store, lambda server, key: server.put(key, "1")):
        write(server, key)
        write(server, uuid)
        targets = (f"/kv/{key}?", f"/get/{uuid}?", f"/kv?key={key}&", f"/kv?prefix={key}&", f"/stream?prefix={key}&")
        for target in targets:
            for accept in (LINES if target.startswith("/stream") else JSON, MESSAGEPACK):
                refused = server.request("GET", f"{target}base64=maybe", headers={"Accept": accept})
                assert (refused.status_code, b"base64 is true or false" in refused.content) == (400, True)
        put = {"op": "put", "key": f"{key}/new", "value": 1}
        assert refusal(transact(server, put, query="?base64=maybe")) == (400, "invalid_argument")
        assert server.get(f"{key}/new").status_code == 404


def test_messagepack_has_the_bytes_as_binary_data(server: Server, key: str) -> None:
    written = store(server, key).json()
    for query in ("", "?base64"):
        entry = msgspec.msgpack.decode(server.get(f"{key}{query}", headers={"Accept": MESSAGEPACK}).content)
        assert entry == written | {"value": PIXELS}


def test_raw_is_the_value_alone(server: Server, key: str) -> None:
    store(server, key)
    assert server.get(f"{key}?raw").content == PIXELS
    packed = server.get(f"{key}?raw", headers={"Accept": MESSAGEPACK})
    assert msgspec.msgpack.decode(packed.content) == PIXELS
    assert packed.headers["ETag"].endswith('-raw-msgpack"')
    text = server.get(f"{key}?raw&base64", headers={"Accept": JSON})
    assert base64.b64decode(text.json()) == PIXELS
    refused = server.get(f"{key}?raw", headers={"Accept": JSON})
    assert (refusal(refused), refused.json()["message"]) == (NOT_ACCEPTABLE, f"available media types: {PNG}")


def test_head_has_the_headers_of_the_bytes(server: Server, key: str) -> None:
    store(server, key)
    head = server.request("HEAD", f"/kv/{key}")
    assert (head.status_code, head.content) == (200, b"")
    got = server.get(key)
    for name in ("Content-Type", "Content-Length", "ETag", "Accept-Ranges", "Cache-Control"):
        assert head.headers[name] == got.headers[name]
    ranged = server.request("HEAD", f"/kv/{key}", headers={"Range": "bytes=0-1"})
    assert (ranged.status_code, ranged.headers["Content-Length"]) == (200, str(len(PIXELS)))


@pytest.mark.parametrize(
    ("media", "disposition"),
    [
        (OCTETS, None),
        (PNG, None),
        ("application/pdf", None),
        ("text/plain; charset=utf-8", None),
        ("image/svg+xml", "attachment"),
        ("Image/SVG+xml; charset=utf-8", "attachment"),
    ],
)
def test_a_browser_saves_what_it_would_run_and_guesses_no_type(
    server: Server, key: str, media: str, disposition: str | None
) -> None:
    store(server, key, b"<svg onload='alert(1)'>", media)
    read = server.get(key)
    assert read.headers["X-Content-Type-Options"] == "nosniff"
    assert read.headers.get("Content-Disposition") == disposition


# ETags and conditions -----------------------------------------------------------------------------------------


def test_each_representation_has_its_etag_and_matches_only_itself(server: Server, key: str) -> None:
    revision = store(server, key).json()["revision"]
    suffixes = {"*/*": "-bytes", JSON: "", MESSAGEPACK: "-msgpack"}
    for accept, suffix in suffixes.items():
        read = server.get(key, headers={"Accept": accept})
        assert read.headers["ETag"] == tag_of(server, revision, suffix)
        assert read.headers["Cache-Control"] == "no-cache"
        for sent in suffixes.values():
            headers = {"Accept": accept, "If-None-Match": tag_of(server, revision, sent)}
            again = server.get(key, headers=headers)
            assert again.status_code == (304 if sent == suffix else 200)
            if sent == suffix:
                assert (again.headers["ETag"], again.content) == (tag_of(server, revision, suffix), b"")


def test_if_match_accepts_the_etag_of_any_representation(server: Server, key: str) -> None:
    revision = store(server, key).json()["revision"]
    tag = tag_of(server, revision, "-bytes")
    assert server.get(key, headers={"If-Match": tag}).status_code == 200
    replaced = store(server, key, b"2", headers={"If-Match": tag})
    assert replaced.status_code == 200
    stale = store(server, key, b"3", headers={"If-Match": tag})
    assert (refusal(stale), stale.json()["revision"]) == ((412, "precondition_failed"), replaced.json()["revision"])
    assert refusal(server.get(key, headers={"If-Match": tag})) == (412, "precondition_failed")
    assert refusal(store(server, key, headers={"If-None-Match": "*"})) == (412, "precondition_failed")
    assert server.get(key).content == b"2"


def test_bytes_expire_and_keep_their_expiry(server: Server, key: str) -> None:
    expires_at = store(server, key, params={"ttl": 1000}).json()["expires_at"]
    assert store(server, key, params={"ttl": "keep"}).json()["expires_at"] == expires_at
    store(server, key, params={"ttl": 0.1})
    until(lambda: server.get(key).status_code == 404)


def test_bytes_are_written_under_a_lease(server: Server, key: str, lock: str) -> None:
    lease_id = server.lease(lock)["lease_id"]
    assert store(server, key, headers={"If-Lease": lease_id}).status_code == 201
    server.release(lock, lease_id)
    assert refusal(store(server, key, b"2", headers={"If-Lease": lease_id})) == (412, "lease_lost")
    assert server.get(key).content == PIXELS


def test_a_read_waits_for_bytes(server: Server, key: str) -> None:
    revision = store(server, key).json()["revision"]
    tag = tag_of(server, revision, "-bytes")
    unchanged = server.get(f"{key}?wait=0", headers={"If-None-Match": tag})
    assert (unchanged.status_code, unchanged.headers["ETag"]) == (304, tag)
    # The client has another representation.
    assert server.get(f"{key}?wait=60", headers={"If-None-Match": tag_of(server, revision)}).content == PIXELS


# Ranges -------------------------------------------------------------------------------------------------------

DIGITS = b"0123456789"


def ranged(server: Server, key: str, text: str, **headers: str) -> httpx.Response:
    return server.get(key, headers={"Range": text} | headers)


@pytest.mark.parametrize(
    ("asked", "content", "content_range"),
    [
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=0-", DIGITS, "bytes 0-9/10"),
        ("bytes=5-99", b"56789", "bytes 5-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-99", DIGITS, "bytes 0-9/10"),
        ("Bytes=1-1", b"1", "bytes 1-1/10"),
        ("bytes=, 1-2 ,", b"12", "bytes 1-2/10"),
        ("bytes=1-2, 50-60", b"12", "bytes 1-2/10"),
    ],
)
def test_a_range_is_sent_alone(server: Server, key: str, asked: str, content: bytes, content_range: str) -> None:
    store(server, key, DIGITS)
    part = ranged(server, key, asked)
    assert (part.status_code, part.content) == (206, content)
    assert (part.headers["Content-Range"], part.headers["Content-Type"]) == (content_range, PNG)
    assert part.headers["Content-Length"] == str(len(content))
    assert part.headers["ETag"] == server.get(key).headers["ETag"]
    assert server.get(key).headers["Accept-Ranges"] == "bytes"


def test_several_ranges_are_the_parts_of_one_body(server: Server, key: str) -> None:
    store(server, key, DIGITS)
    several = ranged(server, key, "bytes=8-, 0-1,-1")
    kind, _, boundary = several.headers["Content-Type"].partition("; boundary=")
    assert (several.status_code, kind, "Content-Range" in several.headers) == (206, "multipart/byteranges", False)
    parts = [(b"8-9", b"89"), (b"0-1", b"01"), (b"9-9", b"9")]
    expected = b"".join(
        b"--%b\r\nContent-Type: image/png\r\nContent-Range: bytes %b/10\r\n\r\n%b\r\n" % (boundary.encode(), *part)
        for part in parts
    )
    assert several.content == expected + b"--%b--\r\n" % boundary.encode()


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=99-100", "bytes=-0", "bytes=10-11, 20-"])
def test_a_range_without_a_byte_is_not_satisfiable(server: Server, key: str, asked: str) -> None:
    store(server, key, DIGITS)
    refused = ranged(server, key, asked)
    assert (refusal(refused), refused.headers["Content-Range"]) == ((416, "range_not_satisfiable"), "bytes */10")
    assert (refused.json()["size"], "ETag" in refused.headers) == (10, False)


@pytest.mark.parametrize(
    "asked",
    [
        *(
            "bytes",
            "bytes=",
            "bytes=a-b",
            "bytes=4-2",
            "bytes=1",
            "bytes=--1",
            "bytes 1-2",
            "lines=1-2",
            "bytes=1-2;3-4",
        ),
        *("bytes=0-15,1-15", "bytes=" + ",".join(["0-0"] * 17), "bytes=1-2,x"),
    ],
)
def test_a_malformed_or_excessive_range_is_ignored(server: Server, key: str, asked: str) -> None:
    store(server, key, DIGITS * 2)
    assert (ranged(server, key, asked).status_code, ranged(server, key, asked).content) == (200, DIGITS * 2)


def test_no_bytes_have_no_range(server: Server, key: str) -> None:
    store(server, key, b"")
    assert refusal(ranged(server, key, "bytes=0-")) == (416, "range_not_satisfiable")
    assert ranged(server, key, "bytes=-5").status_code == 200


def test_a_range_is_sent_only_if_the_etag_in_if_range_is_that_of_the_bytes(server: Server, key: str) -> None:
    revision = store(server, key, DIGITS).json()["revision"]
    tag = tag_of(server, revision, "-bytes")
    assert ranged(server, key, "bytes=1-2", **{"If-Range": tag}).content == b"12"
    assert ranged(server, key, "bytes=1-2", **{"If-Range": f'"{revision}-bytes"'}).content == b"12"
    others = (
        *(f"W/{tag}", tag_of(server, revision), tag_of(server, revision - 1, "-bytes"), '"other"', "*", tag[1:]),
        "Sat, 28 Nov 2026 00:00:00 GMT",
    )
    for other in others:
        whole = ranged(server, key, "bytes=1-2", **{"If-Range": other})
        assert (whole.status_code, whole.content) == (200, DIGITS), other
    # Conditions come before the range; If-Range alone has no meaning.
    assert ranged(server, key, "bytes=1-2", **{"If-None-Match": tag}).status_code == 304
    assert ranged(server, key, "bytes=1-2", **{"If-Match": '"0"'}).status_code == 412
    assert server.get(key, headers={"If-Range": '"other"'}).content == DIGITS


def test_a_range_of_anything_else_is_ignored(server: Server, key: str) -> None:
    store(server, key, DIGITS)
    assert ranged(server, key, "bytes=1-2", Accept=JSON).status_code == 200
    assert ranged(server, f"{key}?base64", "bytes=1-2").status_code == 200
    server.put(key, '"0123456789"')
    read = ranged(server, key, "bytes=1-2")
    assert (read.status_code, read.json()["value"], "Accept-Ranges" in read.headers) == (200, "0123456789", False)


# Paths and patches --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "query", "media", "body"),
    [
        ("GET", "?path=/a", None, b""),
        ("GET", "?path=", None, b""),
        ("GET", "?path=/a&path=/b&raw", None, b""),
        ("PUT", "?path=/a", JSON, b"1"),
        ("PUT", "?path=", JSON, b"1"),
        ("POST", "?path=/-", JSON, b"1"),
        ("PUT", "?path=/a", PNG, b"1"),
        ("POST", "?increment", JSON, b"1"),
        ("POST", "?increment&path=/n", JSON, b"1"),
        ("PATCH", "", "application/merge-patch+json", b"{}"),
        ("PATCH", "", "application/json-patch+json", b'[{"op":"replace","path":"","value":1}]'),
        ("DELETE", "?path=/a", None, b""),
    ],
)
def test_paths_and_patches_on_bytes_are_a_conflict(
    server: Server, key: str, method: str, query: str, media: str | None, body: bytes
) -> None:
    store(server, key)
    headers = {} if media is None else {"Content-Type": media}
    response = server.request(method, f"/kv/{key}{query}", headers=headers, content=body)
    assert refusal(response) == CONFLICT
    assert server.get(key).content == PIXELS


def test_bytes_are_no_part_of_a_value(server: Server, key: str) -> None:
    assert refusal(store(server, key, params={"path": "/a"})) == CONFLICT
    assert server.get(key).status_code == 404
    server.put(key, "{}")
    assert refusal(store(server, key, params={"path": "/a"})) == CONFLICT
    assert refusal(store(server, key, method="POST", params={"increment": ""})) == UNSUPPORTED
    assert server.value(key) == {}


# Lists and streams --------------------------------------------------------------------------------------------


def fill(server: Server, prefix: str) -> list[dict[str, Any]]:
    """Two entries with bytes and one with JSON. Returns them as JSON shows them."""
    store(server, f"{prefix}a")
    server.put(f"{prefix}b", "[1]")
    store(server, f"{prefix}c", b"", OCTETS)
    return [shown(server, f"{prefix}{name}") for name in "abc"]


def with_bytes(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As MessagePack shows them."""
    return [entries[0] | {"value": PIXELS}, entries[1], entries[2] | {"value": b""}]


def with_base64(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entries[0] | {"value": base64.b64encode(PIXELS).decode()}, entries[1], entries[2] | {"value": ""}]


def test_lists_have_no_base64_in_json_and_binary_data_in_messagepack(server: Server, key: str) -> None:
    entries = fill(server, f"{key}/")
    for query in (f"/kv?prefix={key}/", f"/kv?key={key}/a&key={key}/b&key={key}/c"):
        assert server.request("GET", query).json()["entries"] == entries
        assert server.request("GET", f"{query}&base64").json()["entries"] == with_base64(entries)
        for base64_or_not in ("", "&base64"):
            packed = server.request("GET", f"{query}{base64_or_not}", headers={"Accept": MESSAGEPACK})
            assert msgspec.msgpack.decode(packed.content)["entries"] == with_bytes(entries)
        for accept in (JSON, MESSAGEPACK):
            bare = server.request("GET", f"{query}&values=false&base64", headers={"Accept": accept})
            found = (msgspec.json if accept == JSON else msgspec.msgpack).decode(bare.content)["entries"]
            assert found == [{name: part for name, part in each.items() if name != "value"} for each in entries]


def test_streams_have_no_base64_in_json_and_binary_data_in_messagepack(server: Server, key: str) -> None:
    entries = fill(server, f"{key}/")
    stream = f"/stream?prefix={key}/"
    assert sequence(server.request("GET", stream)) == with_bytes(entries)
    assert sequence(server.request("GET", stream, headers={"Accept": LINES})) == entries
    assert sequence(server.request("GET", f"{stream}&base64", headers={"Accept": LINES})) == with_base64(entries)


def test_entries_by_uuid_may_be_bytes(server: Server, uuid: str) -> None:
    store(server, uuid)
    assert server.request("GET", f"/get/{uuid.upper()}").content == PIXELS
    assert server.request("GET", f"/get/{uuid}", headers={"Accept": JSON}).json() == shown(server, uuid)
    assert ranged(server, uuid, "bytes=0-1").content == PIXELS[:2]
    listed = server.request("GET", f"/get?prefix={uuid}&base64").json()["entries"]
    assert listed == [shown(server, f"{uuid}?base64")]


def test_the_bytes_of_one_entry_are_streamed(server: Server, uuid: str) -> None:
    data = bytes(range(256)) * 2000
    revision = store(server, uuid, data, "image/svg+xml").json()["revision"]
    streamed = server.request("GET", f"/stream/{uuid}")
    assert (streamed.content, streamed.headers["Content-Type"]) == (data, "image/svg+xml")
    assert (streamed.headers["Transfer-Encoding"], "Content-Length" in streamed.headers) == ("chunked", False)
    assert (streamed.headers["Content-Disposition"], "Accept-Ranges" in streamed.headers) == ("attachment", False)
    tag = tag_of(server, revision, "-bytes")
    assert streamed.headers["ETag"] == tag
    same = server.request("GET", f"/stream/{uuid}", headers={"If-None-Match": tag})
    assert (same.status_code, same.headers["ETag"]) == (304, tag)
    packed = server.request("GET", f"/stream/{uuid}", headers={"Accept": MESSAGEPACK, "If-None-Match": tag})
    assert (msgspec.msgpack.decode(packed.content), packed.headers["ETag"][-9:]) == (data, '-msgpack"')
    assert refusal(server.request("GET", f"/stream/{uuid}", headers={"Accept": PNG})) == NOT_ACCEPTABLE
    assert refusal(server.request("GET", f"/stream/{uuid}?path=/a")) == CONFLICT
    server.put(uuid, "1")
    assert refusal(server.request("GET", f"/stream/{uuid}", headers={"Accept": PNG})) == NOT_ACCEPTABLE


# Transactions -------------------------------------------------------------------------------------------------


def transact(server: Server, *do: Any, checks: Any = (), query: str = "", accept: str = JSON) -> httpx.Response:
    return server.request("POST", f"/txn{query}", json={"if": list(checks), "do": do}, headers={"Accept": accept})


def test_a_transaction_writes_and_reads_bytes(server: Server, key: str) -> None:
    text = base64.b64encode(PIXELS).decode()
    put = {"op": "put", "key": f"{key}/a", "base64": text, "media": "IMAGE/png", "ttl": 1000}
    done = transact(server, put, {"op": "put", "key": f"{key}/b", "base64": ""}, {"op": "get", "key": f"{key}/a"})
    assert done.status_code == 200
    first, second, read = done.json()["results"]
    assert (first["media"], first["size"], "value" in first, "expires_at" in first) == (PNG, len(PIXELS), False, True)
    assert (second["media"], second["size"]) == (OCTETS, 0)
    assert first["revision"] == second["revision"] == done.json()["revision"]
    assert read == shown(server, f"{key}/a")
    assert (server.get(f"{key}/a").content, server.get(f"{key}/b").content) == (PIXELS, b"")


def test_a_transaction_shows_base64_if_asked_and_binary_data_in_messagepack(server: Server, key: str) -> None:
    entry = store(server, key).json()
    read = {"op": "get", "key": key}
    assert transact(server, read, query="?base64").json()["results"] == [shown(server, f"{key}?base64")]
    others = [{"op": "get", "key": f"{key}/missing"}, {"op": "put", "key": f"{key}/new", "value": 1}]
    packed = msgspec.msgpack.decode(transact(server, read, *others, accept=MESSAGEPACK).content)
    assert packed["results"][0] == entry | {"value": PIXELS}
    assert packed["results"][1] == {"key": f"{key}/missing", "revision": None}
    assert packed["results"][2]["revision"] == packed["revision"]


@pytest.mark.parametrize(
    "put",
    [
        *({"base64": text} for text in ("a", "YQ", "YQ==\n", "YR==", "Y-_=", "é", 1, None, ["YQ=="])),
        *({"base64": "YQ==", "media": media} for media in ("text/html", JSON, "image", "", 1, "image/*")),
        *({"base64": "YQ==", **more} for more in ({"value": 1}, {"path": "/a"}, {"spam": 1})),
        {"value": 1, "media": PNG},
    ],
)
def test_a_malformed_write_of_bytes_is_refused(server: Server, key: str, put: dict[str, Any]) -> None:
    refused = transact(server, {"op": "put", "key": key} | put)
    assert (refusal(refused), refused.json()["index"]) == ((400, "invalid_argument"), 0)
    assert server.get(key).status_code == 404


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "put", "value": 1, "path": "/a"},
        {"op": "increment", "value": 1},
        {"op": "merge", "value": {}},
        {"op": "patch", "patch": []},
    ],
)
def test_an_operation_on_a_part_of_bytes_refuses_the_transaction(
    server: Server, key: str, operation: dict[str, Any]
) -> None:
    store(server, key)
    other = {"op": "put", "key": f"{key}/other", "value": 1}
    refused = transact(server, other, operation | {"key": key})
    assert (refusal(refused), refused.json()["index"], refused.json()["key"]) == (CONFLICT, 1, key)
    assert (server.get(key).content, server.get(f"{key}/other").status_code) == (PIXELS, 404)


def test_checks_see_bytes_as_a_value_that_is_equal_to_no_json(server: Server, key: str) -> None:
    revision = store(server, key).json()["revision"]
    read = {"op": "get", "key": key}
    holds = [{"key": key, "revision": revision}, {"key": key, "exists": True}]
    assert transact(server, read, checks=holds).status_code == 200
    for check in ({"value": base64.b64encode(PIXELS).decode()}, {"path": "/a", "value": 1}, {"value": None}):
        failed = transact(server, read, checks=[{"key": key} | check], query="?current")
        assert refusal(failed) == (412, "precondition_failed")
        assert failed.json()["failed"] == [
            {"index": 0, "key": key, "revision": revision, "current": shown(server, key)}
        ]


# Watch --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [EVENTS, LINES, PACKED])
@pytest.mark.parametrize("query", ["", "&values=false"])
def test_a_watch_reports_media_and_size(server: Server, key: str, accept: str, query: str) -> None:
    before = store(server, f"{key}/before").json()
    with Watch(server, f"prefix={key}/&snapshot{query}", accept=accept) as watch:
        events = watch.ready()
        after = store(server, f"{key}/after", b"\0\n", OCTETS).json()
        events.append(watch.next())
    has_bytes = accept == PACKED and not query
    expected = [before | ({"value": PIXELS} if has_bytes else {}), after | ({"value": b"\0\n"} if has_bytes else {})]
    assert [(event.name, event.data) for event in events] == [("put", data) for data in expected]
    assert events[-1].id == after["revision"]


# Permissions --------------------------------------------------------------------------------------------------


def test_a_caller_that_may_only_write_is_told_nothing_of_what_is_stored(secret_file: Any) -> None:
    with running(environment={"LEASEHOLD_AUTH_SECRET_FILE": str(secret_file)}) as guarded:
        store(guarded, "a", headers=BOTH)
        told = store(guarded, "a", headers=WRITER)
        assert list(told.json()) == ["key", "revision", "updated_at"]
        conflict = guarded.patch("a", "{}", headers=WRITER)
        assert (refusal(conflict), "bytes" in conflict.json()["message"]) == (CONFLICT, False)
        assert guarded.get("a", headers=WRITER).status_code == 403
        assert guarded.get("a", headers=READER).content == PIXELS


# The setting --------------------------------------------------------------------------------------------------


def with_types(types: str, store: str = "memory:") -> Any:
    return running(store, environment={"LEASEHOLD_BINARY_TYPES": types})


@pytest.mark.parametrize("engine", STORES)
def test_the_operator_decides_which_media_types_are_stored(engine: str, tmp_path: Path) -> None:
    with with_types("text/html, Video/*", STORES[engine](tmp_path)) as own:
        assert store(own, "a", media="text/html").status_code == 201
        assert own.get("a").headers["Content-Disposition"] == "attachment"
        assert store(own, "b", media="video/mp4").status_code == 201
        assert "Content-Disposition" not in own.get("b").headers
        refused = store(own, "c", media=PNG)
        assert (refusal(refused), refused.headers["Accept"]) == (
            UNSUPPORTED,
            f"{JSON}, {MESSAGEPACK}, text/html, video/*",
        )
        put = {"op": "put", "key": "d", "base64": "YQ==", "media": "video/mp4"}
        assert transact(own, put).status_code == 200
        assert refusal(transact(own, put | {"media": PNG})) == (400, "invalid_argument")


def test_all_types_but_json_and_messagepack_can_be_allowed() -> None:
    with with_types("*/*") as own:
        assert store(own, "a", media="x/y").status_code == 201
        assert own.get("a").headers["Content-Disposition"] == "attachment"
        for media in ("application/ld+json", "text/json", "application/x+msgpack"):
            assert refusal(store(own, "b", media=media)) == UNSUPPORTED
        own.put("b", "1")
        assert own.value("b") == 1


def test_bytes_can_be_forbidden() -> None:
    with with_types("none") as own:
        assert refusal(store(own, "a", media=OCTETS)) == UNSUPPORTED
        assert refusal(transact(own, {"op": "put", "key": "a", "base64": ""})) == (400, "invalid_argument")
        assert own.put("a", "1").status_code == 201


def test_the_description_names_the_types_that_are_stored() -> None:
    with with_types("image/*,text/html") as own:
        content = json.loads(own.client.get("/openapi.json").content)["paths"]["/kv/{key}"]["put"]["requestBody"]
        assert list(content["content"]) == [JSON, MESSAGEPACK, "image/*", "text/html"]
