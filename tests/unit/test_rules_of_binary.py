"""Values that are bytes: which operations are legal, what a read gives, and that plain puts have the same rules."""

import gc
import json
import random
from base64 import b64encode
from typing import Any

import msgspec
import pytest
from driving import stored_state

from leasehold import values
from leasehold.engines.memory.state import State
from leasehold.errors import ServiceError
from leasehold.http.routing.ranges import parse_ranges
from leasehold.limits import MAX_MEDIA_TYPE_CHARACTERS, MAX_RANGES, MIB
from leasehold.model import (
    Binary,
    Condition,
    Content,
    Delete,
    Deleted,
    Entry,
    ExistenceCheck,
    Found,
    Increment,
    JsonPatch,
    MergePatch,
    NotModified,
    Operation,
    Put,
    Read,
    Transaction,
    Value,
    ValueCheck,
    Written,
)
from leasehold.rules import evaluate, evaluate_read
from leasehold.times import format_time
from leasehold.values.binary import PIECE_BYTES, base64_pieces
from leasehold.values.entry_text import (
    binary_pieces,
    entry_json,
    entry_json_with_base64,
    entry_messagepack,
    entry_messagepack_pieces,
    packed_pieces,
    stored_entry_json,
)
from leasehold.values.steps import Encoded, joined

HEAD = 10
NOW = 1_000_000
PNG = Binary("image/png", Content(b"\0\xff"))
NOTHING = Binary("image/png", Content())


def entry_of(value: Value) -> Entry:
    return Entry("a", value, 5, 1, 1)


def outcome_of(operation: Operation, value: Value | None = PNG, *, max_value_bytes: int = 100) -> Any:
    state = State(stored_state({} if value is None else {"a": entry_of(value)}, HEAD))
    [outcome], changes = evaluate([operation], state, HEAD, NOW, max_value_bytes=max_value_bytes)
    assert bool(changes) != isinstance(outcome, ServiceError)
    return outcome


def code_of(outcome: Any) -> str:
    assert isinstance(outcome, ServiceError), outcome
    return outcome.code


@pytest.mark.parametrize("before", [PNG, NOTHING, b"1", None])
@pytest.mark.parametrize("after", [PNG, NOTHING, b"2"])
def test_a_whole_value_is_replaced_by_any_other(before: Value | None, after: Value) -> None:
    general = outcome_of(Put("a", after, ttl=5), before)
    assert isinstance(general, Written)
    assert (general.entry.value, general.created, general.entry.expires_at) == (after, before is None, NOW + 5)
    plain = outcome_of(Put("a", after), before)
    assert (plain.entry.value, plain.created) == (after, before is None)


def test_bytes_are_deleted() -> None:
    assert outcome_of(Delete("a")) == Deleted("a", HEAD + 1)


@pytest.mark.parametrize(
    "operation",
    [
        Put("a", b"1", ()),
        Put("a", b"1", ("x",)),
        Put("a", PNG, ("x",)),
        Increment("a", 1),
        Increment("a", 1, ("x",)),
        MergePatch("a", {}),
        JsonPatch("a", ()),
        Delete("a", ("x",)),
    ],
)
@pytest.mark.parametrize("before", [PNG, NOTHING])
def test_bytes_have_no_parts(operation: Operation, before: Binary) -> None:
    assert code_of(outcome_of(operation, before)) == "conflict"


@pytest.mark.parametrize("before", [b"{}", None])
def test_bytes_are_no_part(before: Value | None) -> None:
    assert code_of(outcome_of(Put("a", PNG, ("x",)), before)) == "conflict"


def test_the_size_of_bytes_is_limited_as_that_of_json() -> None:
    assert isinstance(outcome_of(Put("a", PNG), max_value_bytes=2), Written)
    large = Binary("image/png", Content(b"123"))
    assert code_of(outcome_of(Put("a", large), max_value_bytes=2)) == "too_large"
    assert isinstance(outcome_of(Put("a", large), large, max_value_bytes=2), Written)  # no larger than before


@pytest.mark.parametrize("value", [None, "AP8=", 0])
def test_bytes_are_equal_to_no_json_value(value: Any) -> None:
    checks = (ExistenceCheck("a"), ValueCheck("a", (), value))
    refused = outcome_of(Transaction(checks, (Read("a"),), shows_current=True))
    assert code_of(refused) == "precondition_failed"
    [failed] = refused.details["failed"]
    assert failed["index"] == 1
    assert b'"media":"image/png","size":2' in bytes(failed["current"])


def test_a_transaction_reads_bytes() -> None:
    state = State(stored_state({"a": entry_of(NOTHING)}, HEAD))
    [outcome], _ = evaluate([Transaction((), (Read("a"),))], state, HEAD, NOW, max_value_bytes=9)
    assert outcome.results == (Found(entry_of(NOTHING)),)  # type: ignore[union-attr]


# Reads --------------------------------------------------------------------------------------------------------


def read(read: Read, value: Value = PNG) -> Any:
    try:
        return evaluate_read(read, entry_of(value), "5f3a9c")
    except ServiceError as error:
        return error.code


def test_a_part_of_bytes_cannot_be_read() -> None:
    assert read(Read("a", ((),))) == "conflict"
    assert read(Read("a", (("x",), ("y",)))) == "conflict"


def test_the_condition_on_bytes_depends_on_their_media_type() -> None:
    asked: list[str] = []

    def condition_of(media: str) -> Condition:
        asked.append(media)
        return Condition(if_none_match=(5,), if_range=((5, "5f3a9c"),))

    assert read(Read("a", None, Condition(if_none_match=(4,)), condition_of)) == NotModified(5, "image/png")
    assert asked == ["image/png"]
    assert read(Read("a", None, Condition(if_none_match=(5,)))) == NotModified(5, "image/png")
    # JSON has the other condition.
    assert read(Read("a", None, Condition(if_none_match=(4,)), condition_of), b"1") == Found(entry_of(b"1"))
    assert read(Read("a", None, None, lambda _: Condition(if_match=(4,)))) == "precondition_failed"
    assert read(Read("a", None, None, lambda _: None)) == Found(entry_of(PNG))


@pytest.mark.parametrize(
    ("tags", "is_ranged"),
    [(None, True), ((5,), True), (((5, "5f3a9c"),), True), ((), False), ((4,), False), (((5, "other"),), False)],
)
def test_a_range_is_read_if_the_entry_has_the_tag(tags: Any, *, is_ranged: bool) -> None:
    found = read(Read("a", None, None, lambda _: Condition(if_range=tags)))
    assert found == Found(entry_of(PNG), None, is_ranged)


def test_an_unreadable_value_is_not_taken_for_no_bytes() -> None:
    assert read(Read("a"), values.UNREADABLE) == "internal"
    for show in (entry_json, entry_json_with_base64, stored_entry_json, entry_messagepack):
        with pytest.raises(ServiceError):
            show(entry_of(values.UNREADABLE))


@pytest.mark.parametrize("size", [0, 1, 0xFFFF, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES - 1])
@pytest.mark.parametrize("expires_at", [None, NOW])
def test_bytes_of_any_size_are_shown_in_all_forms(size: int, expires_at: int | None) -> None:
    """Large ones in pieces."""
    data = bytes(number % 251 for number in range(size))
    value = Binary("image/png", Content(data))
    entry = Entry('k"ü', value, 7, NOW, NOW, expires_at)
    base64, time = b64encode(data).decode(), format_time(NOW)
    expected: dict[str, object] = {"key": 'k"ü', "media": "image/png", "size": size, "value": base64, "revision": 7}
    expected |= {"created_at": time, "updated_at": time} | ({} if expires_at is None else {"expires_at": time})
    assert list(json.loads(whole(entry_json_with_base64(entry))).items()) == list(expected.items())
    expected["value"] = data
    packed = whole(entry_messagepack_pieces(entry))
    assert packed == msgspec.msgpack.encode(expected) == entry_messagepack(entry)
    assert whole(binary_pieces(value)) == msgspec.msgpack.encode(data)
    stored = json.loads(whole(stored_entry_json(entry)))
    assert (stored["base64"], stored["media"], stored["revision"]) == (base64, "image/png", 7)


def whole(encoded: Encoded) -> bytes:
    if isinstance(encoded, bytes):
        return encoded
    pieces = list(encoded)
    assert max(map(len, pieces)) <= PIECE_BYTES * 4 // 3
    return b"".join(pieces)


def test_the_collector_is_not_paused_while_a_piece_is_sent() -> None:
    """The client may not read for a long time."""
    text = json.dumps([[1, 2]] * 40_000).encode()
    pieces = []
    for piece in packed_pieces(text):
        assert gc.isenabled()
        pieces.append(piece)
    assert len(pieces) > 1
    assert msgspec.msgpack.decode(b"".join(pieces)) == json.loads(text)


def test_items_are_joined_unless_one_is_in_pieces() -> None:
    assert joined([b"a", b"b"]) == b"ab"
    assert joined([]) == b""
    in_pieces = joined([b"a", iter([b"b", b"", b"c"]), b"d"])
    assert list(in_pieces) == [b"a", b"b", b"", b"c", b"d"]


# Media types, base64, ranges ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("image/png", "image/png"),
        ("Image/PNG;Name=A", "image/png;Name=A"),
        ('text/plain; charset="utf-8"; x=y', 'text/plain; charset="utf-8"; x=y'),
        ("application/vnd.a+b", "application/vnd.a+b"),
        ("text/plain;", "text/plain"),
        ("image/" + "x" * (MAX_MEDIA_TYPE_CHARACTERS - 6), "image/" + "x" * (MAX_MEDIA_TYPE_CHARACTERS - 6)),
    ],
)
def test_a_media_type_is_kept_with_its_parameters(sent: str, kept: str) -> None:
    assert values.parse_media_type(sent) == kept


@pytest.mark.parametrize(
    "sent",
    [
        *(
            "",
            "image",
            "image/",
            "/png",
            "image/*",
            "*/*",
            "image/png/x",
            "image png",
            "image/png x",
            "image/png\r\nX: y",
        ),
        *(
            "text/plain; charset",
            "text/plain; =x",
            'text/plain; a="',
            'text/plain; a="\n"',
            "image/p\xe9g",
            "a/b; c=\u20ac",
        ),
        "image/" + "x" * (MAX_MEDIA_TYPE_CHARACTERS - 5),
    ],
)
def test_what_is_no_media_type_is_refused(sent: str) -> None:
    assert values.parse_media_type(sent) is None


@pytest.mark.parametrize(
    "text", ["A", "AA", "AA=", "AA===", "AA==AA==", "AB==", "A\nA=", " AA==", "_-==", "é", "=", "===="]
)
def test_only_base64_as_it_is_written_is_read(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        values.from_base64(text)


def test_base64_is_read_as_it_was_written() -> None:
    for size in range(7):
        data = bytes(range(249, 249 + size))
        assert values.from_base64(values.to_base64(data).decode()) == data


@pytest.mark.parametrize("size", [0, 1, 786_431, 786_432, 786_433, 2_000_000])
def test_base64_of_large_bytes_is_made_in_pieces(size: int) -> None:
    data = random.Random(size).randbytes(size)
    pieces = list(base64_pieces(data))
    assert b"".join(pieces) == b64encode(data) == values.to_base64(data)
    assert max(map(len, pieces), default=0) <= MIB


def test_a_binary_holds_content_and_counts_as_no_text() -> None:
    with pytest.raises(TypeError):
        Binary("image/png", b"x")  # type: ignore[arg-type] # as a caller without a type checker may do
    assert (bool(PNG), len(PNG), len(NOTHING)) == (False, 2, 0)


def test_ranges_are_bounded() -> None:
    assert parse_ranges(b"bytes=" + b",".join([b"0-0"] * MAX_RANGES), 100) == [range(1)] * MAX_RANGES
    assert parse_ranges(b"bytes=" + b",".join([b"0-0"] * (MAX_RANGES + 1)), 100) is None
    assert parse_ranges(b"bytes=0-" + b"9" * 18, 3) == [range(3)]
    assert parse_ranges(b"bytes=0-" + b"9" * 19, 3) is None
