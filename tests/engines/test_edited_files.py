"""A `data.json` that was edited, or put in the place of another: it is read as it was meant, or refused in one line."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from driving import file_driver
from hypothesis import given, settings
from hypothesis import strategies as st
from running import leasehold, running

from leasehold.engines import inspect_file
from leasehold.engines.file.disk import OsDisk
from leasehold.engines.file.documents import read_document, read_snapshot
from leasehold.errors import ServiceError
from leasehold.keys import check_key
from leasehold.model import ENTRY, Binary, Content, Value
from leasehold.values import parse_json, parse_media_type, to_messagepack

TIME = "2026-01-31T12:00:00.000001Z"
HEAD = '{"leasehold": 1, "incarnation": "5f3a9c", "revision": 9, "entries": [\n'


def line(key: str, value: str, revision: int = 1) -> str:
    return f'{{"key":{key},"value":{value},"revision":{revision},"created_at":"{TIME}","updated_at":"{TIME}"}}'


def document(*lines: str) -> bytes:
    return (HEAD + ",\n".join(lines) + "\n]}\n").encode("utf-8", "surrogateescape")


def line_of_bytes(members: str, revision: int = 1) -> str:
    return line('"bytes"', "1", revision).replace('"value":1', members)


GOOD = line('"good"', "[1,2]")
PNG = '"media":"image/png","base64":"AP8="'


@pytest.mark.parametrize(
    "edited",
    [
        document(GOOD)[:-1],
        document(GOOD) + b"\n\n",
        document(GOOD).replace(b"\n", b"\r\n"),
        document(GOOD).replace(b"[1,2]", b"[1,\n  2]"),
        document(GOOD).replace(b'"value":', b'"value" : '),
        document(GOOD).replace(b'[1,2],"revision":1', b'[1,2],\n"revision":1'),
        json.dumps(json.loads(document(GOOD)), indent="\t").encode(),
        json.dumps(json.loads(document(GOOD)), sort_keys=True).encode(),
    ],
    ids=["no last line end", "two more", "CRLF", "in a value", "spaces", "between members", "indented", "sorted"],
)
def test_a_file_with_changed_white_space_has_the_same_entries(edited: bytes, tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(edited)
    assert inspect_file(path).counts["entries"] == 1
    with file_driver(tmp_path) as driver:
        assert driver.values() == {"good": b"[1,2]"}
        assert (driver.space.revision, driver.space.incarnation) == (9, "5f3a9c")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (line('"bad"', '"\udcff"'), 'entry "bad": a string is not UTF-8'),
        (line('"bad"', "1e999"), 'entry "bad": a number is out of range'),
        (line('"bad"', "-1E+400"), 'entry "bad": a number is out of range'),
        (line('"bad"', "1" * 30), 'entry "bad": an integer is outside'),
        (line('"bad"', '"\\u0000"'), 'entry "bad": a string contains U+0000'),
        (line('"bad"', '"\\ud800"'), "line 3: it is not a JSON object"),
        (line('"bad"', "[" * 200 + "]" * 200), 'entry "bad": nested deeper than 128 levels'),
        (line('"bad"', "[" * 5000 + "]" * 5000), "nested deeper than 128 levels"),
        (line('"a//b"', "1"), 'entry "a//b": segments of a key'),
        (line('"a\\u0007"', "1"), 'entry "a\\u0007": a key must not contain control characters'),
        (line('"' + "k" * 600 + '"', "1"), "a key must have 1 to 512 bytes"),
        (line('"bad"', "1").replace(TIME, "2026-13-31T12:00:00.000001Z"), 'entry "bad": it is not as Leasehold'),
        *(
            (line_of_bytes(members), 'entry "bytes": it is not as Leasehold')
            for members in (
                *(f'{PNG},"value":1', '"base64":"AP8="', '"media":"image/png"', '"media":"image/png","value":"AP8="'),
                *(PNG.replace("AP8=", text) for text in ("AP8", "AP9=", "AP8=AP8=", "A P8=", "\\u0000")),
                *('"media":1,"base64":"AP8="', '"media":"image/png","base64":1', f'{PNG},"size":3', f'{PNG},"more":1'),
                *('"media":"image/png","size":2', '"value":1,"size":1', '"media":"image/png","size":2,"value":1'),
            )
        ),
        (line_of_bytes(PNG.replace("png", "*")), 'entry "bytes": its media is not a media type'),
        (line_of_bytes(PNG.replace("image/png", "Image/png")), 'entry "bytes": its media is not a media type'),
        (line('"bad"', "1", 10), "entry 'bad' has a revision greater than that of the store"),
    ],
    ids=str,
)
def test_check_and_start_refuse_what_the_api_refuses_and_name_the_line_and_key(
    bad: str, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "data.json"
    content = document(GOOD, bad)
    path.write_bytes(content)
    for result in (leasehold("check", str(path)), leasehold("serve", "--port=0", f"--store={path}")):
        told = result.stderr.strip().splitlines()[-1]
        assert (result.returncode, reason in told, "line 3" in told) == (1, True, True), result.stderr
        assert "Traceback" not in result.stderr
    assert path.read_bytes() == content


def test_a_byte_order_mark_is_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(b"\xef\xbb\xbf" + document(GOOD))
    assert "byte order mark" in leasehold("check", str(path)).stderr


@pytest.mark.parametrize(
    "edited",
    [
        document(GOOD, line_of_bytes(PNG)),
        document(line_of_bytes(PNG), GOOD),
        document(GOOD, line_of_bytes('"base64":"AP8=","media":"image/png"')),
        document(GOOD, line_of_bytes(f'{PNG},"size":2')),
        document(GOOD, line_of_bytes('"media":"image/png","size":2,"value":"AP8="')),
        json.dumps(json.loads(document(GOOD, line_of_bytes(PNG))), indent=2).encode(),
    ],
    ids=["as written", "first", "another order", "with the size", "as in a list", "indented"],
)
def test_bytes_are_base64_in_a_member_of_their_own(edited: bytes, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_bytes(edited)
    with file_driver(tmp_path) as driver:
        assert driver.values() == {"bytes": Binary("image/png", Content(b"\0\xff")), "good": b"[1,2]"}
        driver.put("more")
    written = json.loads((tmp_path / "data.json").read_bytes())["entries"][0]
    assert list(written) == ["key", "media", "base64", "revision", "created_at", "updated_at"]
    assert (written["media"], written["base64"]) == ("image/png", "AP8=")


def test_the_list_of_all_entries_can_be_used_as_data_json(tmp_path: Path) -> None:
    with running(tmp_path / "first.json") as server:
        server.put("bytes", "\0", headers={"Content-Type": "image/png"})
        server.put("a/b", '{"n": 18446744073709551615, "f": 1e300}')
        server.put("c", '"é"', params={"ttl": "86400"})
        listed = server.request("GET", "/kv?base64")
    (tmp_path / "data.json").write_bytes(listed.content)
    with running(tmp_path / "data.json") as server:
        assert server.request("GET", "/kv?base64").json() == listed.json()
        assert server.lease("lock")["token"] > listed.json()["revision"]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("limit=1&after=A", "only a part of a list"),
        ("values=false", "it is not as Leasehold writes it"),
        ("prefix=A", "it is not as Leasehold writes it"),
    ],
)
def test_an_incomplete_list_is_refused_as_data_json(query: str, reason: str, tmp_path: Path) -> None:
    with running(tmp_path / "first.json") as server:
        server.put("A", "\0", headers={"Content-Type": "image/png"})
        server.put("a", "1")
        server.put("b", "2")
        listed = server.request("GET", f"/kv?{query}")
    (tmp_path / "data.json").write_bytes(listed.content)
    assert reason in leasehold("check", str(tmp_path / "data.json")).stderr


@pytest.mark.parametrize(
    "content", ['{"entries": [], "revision": 1, "next": null, "more": 1}', '{"leasehold": 1, "entries": []}']
)
def test_an_incorrect_document_of_leasehold_is_not_imported_as_a_plain_object(content: str, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(content)
    assert leasehold("check", str(tmp_path / "data.json")).returncode == 1


STORE = document(
    line_of_bytes('"media":"image/png","base64":"AP8="', 4),
    line('"a"', '{"b":[1.5,-0.0,"x\\n"]}'),
    line('"größe"', '"é"', 3),
    line('"z"', "12345678901234567890", 9),
)
PIECES = [b"1e999", b"9" * 25, b"\\ud800", b"\\u0000", b"\x01", b"\n", b" ", b"[" * 300, b'"', b"//"]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(STORE) - 1), st.integers(0, 12), st.binary(max_size=8) | st.sampled_from(PIECES))
def test_any_edited_file_is_refused_in_one_line_or_has_valid_entries(position: int, length: int, piece: bytes) -> None:
    edited = STORE[:position] + piece + STORE[position + length :]
    try:
        found, refusal = values_of(edited), ""
    except ServiceError as error:
        found, refusal = {}, error.message
    assert bool(refusal) is ("data.json cannot be used" in refusal)
    assert "\n" not in refusal
    for key, value in found.items():
        check_key(key)
        if isinstance(value, Binary):
            assert parse_media_type(value.media) == value.media
        else:
            parse_json(value)
            to_messagepack(value)


def values_of(content: bytes) -> dict[str, Value]:
    """The values that a start reads. They are the same as those that the reader for any layout finds."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "data.json"
        path.write_bytes(content)
        found = {key: entry.value for key, entry in read_snapshot(OsDisk(), path, 0).of(ENTRY).by_name.items()}
    whole = {key: entry.value for key, entry in read_document(content, "data.json", 0).of(ENTRY).by_name.items()}
    assert {key: decoded(value) for key, value in found.items()} == {
        key: decoded(value) for key, value in whole.items()
    }
    return found


def decoded(value: Value) -> object:
    return value if isinstance(value, Binary) else msgspec.json.decode(value)
