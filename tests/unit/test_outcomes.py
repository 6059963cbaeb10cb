"""Outcomes of changes can be stored and read back, in a form that does not change."""

from typing import get_args

import msgspec
import pytest

from leasehold.model import (
    Binary,
    Committed,
    Content,
    Deleted,
    DeletedEntries,
    Entry,
    Found,
    Lease,
    Leased,
    Memo,
    Missing,
    Released,
    StoredOutcome,
    Written,
    decode_memo,
    encode_memo,
)

ENTRY = Entry("k", b'{"a":1}', 7, 1, 2, 3)
BYTES = Entry("k", Binary("image/png", Content(b"\0\xff\xc0\xf5R")), 7, 1, 2)
LEASE = Lease("l", "id", 1, 2, 3, 4, 5, "alice", b"null")
OUTCOMES: list[StoredOutcome] = [
    Written(BYTES, created=False),
    Written(ENTRY, created=True),
    Written(ENTRY, created=False, path=("a", "0"), part=b"1"),
    Deleted("k", 8),
    Committed(8, (Written(ENTRY, created=True), Deleted("k", 8), Found(ENTRY), Missing("m"))),
    Leased(LEASE, 9),
    Released("l", 10),
    DeletedEntries(3, 11),
]
FINGERPRINT = b"12345678"


@pytest.mark.parametrize("outcome", OUTCOMES, ids=repr)
def test_an_outcome_is_read_back_as_it_was_stored(outcome: StoredOutcome) -> None:
    memo = decode_memo(encode_memo(Memo(FINGERPRINT, outcome)))
    assert memo == Memo(FINGERPRINT, outcome)
    assert type(memo.outcome) is type(outcome)


def test_every_outcome_of_a_change_can_be_stored() -> None:
    assert {type(outcome) for outcome in OUTCOMES} == set(get_args(StoredOutcome))


def test_the_stored_form_is_the_one_of_the_first_release_with_it() -> None:
    """If this fails, a store that was written before cannot be read."""
    stored = [msgspec.msgpack.decode(encode_memo(Memo(b"f", outcome))) for outcome in OUTCOMES]
    entry = [1, "k", b'{"a":1}', 7, 1, 2, 3]
    content = [1, "k", ["image/png", b"AP/A9VI="], 7, 1, 2, None]
    lease = [2, "l", "id", 1, 2, 3, 4, 5, "alice", b"null"]
    assert stored == [
        [b"f", [2, content, False, None, None]],
        [b"f", [2, entry, True, None, None]],
        [b"f", [2, entry, False, ["a", "0"], b"1"]],
        [b"f", [3, "k", 8]],
        [b"f", [5, 8, [[2, entry, True, None, None], [3, "k", 8], [1, entry, None, True], [4, "m"]]]],
        [b"f", [6, lease, 9]],
        [b"f", [7, "l", 10]],
        [b"f", [8, 3, 11]],
    ]


@pytest.mark.parametrize("stored", [b"", b"\x80", msgspec.msgpack.encode([b"f", ["Other"]]), b"\xc1"])
def test_anything_else_is_no_outcome(stored: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_memo(stored)
