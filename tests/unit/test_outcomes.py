"""Outcomes can be stored and read back."""

from typing import get_args

import msgspec
import pytest

from leasehold.model import (
    Binary,
    Committed,
    Content,
    Deleted,
    Entry,
    Expired,
    Found,
    Held,
    Lease,
    Leased,
    Missing,
    NotModified,
    Outcome,
    Released,
    Unchanged,
    Written,
    decode_outcome,
    encode_outcome,
)

ENTRY = Entry("k", b'{"a":1}', 7, 1, 2, 3)
BYTES = Entry("k", Binary("image/png", Content(b"\0\xff\xc0\xf5R")), 7, 1, 2)
LEASE = Lease("l", "id", 1, 2, 3, 4, 5, "alice", b"null")
OUTCOMES: list[Outcome] = [
    Found(ENTRY),
    Found(BYTES, None, is_ranged=False),
    Found(ENTRY, (b"1", b"2")),
    NotModified(7),
    NotModified(7, "image/png"),
    Written(BYTES, created=False),
    Written(ENTRY, created=True),
    Written(ENTRY, created=False, path=("a", "0"), part=b"1"),
    Deleted("k", 8),
    Missing("k"),
    Committed(8, (Written(ENTRY, created=True), Deleted("k", 8), Found(ENTRY), Missing("m"))),
    Leased(LEASE, 9),
    Held(LEASE, 9),
    Released("l", 10),
    Expired(11),
    Unchanged(),
]


@pytest.mark.parametrize("outcome", OUTCOMES, ids=repr)
def test_an_outcome_is_read_back_as_it_was_stored(outcome: Outcome) -> None:
    stored = encode_outcome(outcome)
    assert decode_outcome(stored) == outcome
    assert type(decode_outcome(stored)) is type(outcome)


def test_every_outcome_can_be_stored() -> None:
    assert {type(outcome) for outcome in OUTCOMES} == set(get_args(Outcome))


@pytest.mark.parametrize("stored", [b"", b"\x80", msgspec.msgpack.encode({"type": "Other"}), b"\xc1"])
def test_anything_else_is_no_outcome(stored: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_outcome(stored)
