"""The bytes of events in each representation."""

import json
import random
from itertools import groupby

import msgspec
import pytest
from executed_lines import lines_of
from msgspec.structs import replace

from leasehold.engines.base import revision_of
from leasehold.errors import ServiceError
from leasehold.http.event_formats import FORMATS, MANY_CHANGES, EventFormat, json_line
from leasehold.http.media_types import Media
from leasehold.model import Binary, Change, Content, Deletion, Entry, Lease, LeaseEnd, Value

TIME = 1_769_860_800_000_001
ENTRY = Entry("ä", b'{"a":"\xe2\x80\xa8"}', 7, TIME, TIME)
LEASE = Lease("l", "secret", 5, 8, TIME, TIME, 1, "ann", b'{"host":"a"}')
SSE = FORMATS[Media.EVENTS, True]
LINES = FORMATS[Media.NDJSON, True]
PACKED = FORMATS[Media.MESSAGEPACK, True]


def body(chunk: bytes) -> bytes:
    """What is in a chunk of a chunked response, which must be a single one."""
    size, _, rest = chunk.partition(b"\r\n")
    data = rest[: int(size, 16)]
    assert rest == data + b"\r\n"
    return data


def test_a_server_sent_event_has_its_data_first_and_its_id_last() -> None:
    lines = body(SSE.changes([ENTRY])).decode().split("\n")
    data = json.loads(lines[0].removeprefix("data: "))
    assert (data["key"], data["value"], lines[1:]) == ("ä", {"a": "\u2028"}, ["event: put", "id: 7", "", ""])


def test_no_line_has_a_character_that_unicode_counts_as_its_end() -> None:
    for encoding in (SSE, LINES):
        text = body(encoding.changes([ENTRY])).decode()
        assert len(text.splitlines()) == text.count("\n")
    assert json_line('"\x85\u2028\u2029é"'.encode()) == '"\\u0085\\u2028\\u2029é"'.encode()


def test_the_id_is_on_the_last_event_of_a_revision() -> None:
    changes: list[Change] = [Deletion("a", 3), Deletion("b", 3), Deletion("c", 4), LeaseEnd("l", 4), Deletion("d", 5)]
    events = [json.loads(line) for line in body(LINES.changes(changes)).splitlines()]
    assert [event.get("id") for event in events] == [None, 3, None, 4, 5]


def test_events_of_each_representation_have_the_same_members() -> None:
    line = json.loads(body(LINES.changes([Deletion("a", 3)])))
    packed = msgspec.msgpack.decode(body(PACKED.changes([Deletion("a", 3)])))
    assert line == packed == {"event": "delete", "id": 3, "data": {"key": "a", "revision": 3}}
    assert body(SSE.changes([Deletion("a", 3)])) == b'data: {"key":"a","revision":3}\nevent: delete\nid: 3\n\n'


@pytest.mark.parametrize(
    "entry",
    [
        ENTRY,
        Entry("k", b"[1.5,-1,null]", 9, TIME, TIME + 1, TIME + 1_000_000),
        Entry("large", b'"%b"' % (b"x" * 100_000), 9, TIME, TIME),
    ],
    ids=["plain", "changed, with an expiry", "large"],
)
@pytest.mark.parametrize("with_values", [True, False])
def test_an_entry_is_the_same_in_each_representation(entry: Entry, with_values: bool) -> None:  # noqa: FBT001
    encodings = [FORMATS[media, with_values] for media in (Media.EVENTS, Media.NDJSON, Media.MESSAGEPACK)]
    for events in ([each.changes([entry]) for each in encodings], [each.snapshot([entry]) for each in encodings]):
        text, line, packed = map(body, events)
        from_line, from_packed = json.loads(line), msgspec.msgpack.decode(packed)
        assert from_line == from_packed
        assert list(from_line["data"]) == list(from_packed["data"])
        assert json.loads(text.partition(b"\n")[0].removeprefix(b"data: ")) == from_line["data"]
        assert ("value" in from_line["data"]) is with_values


@pytest.mark.parametrize("encoding", FORMATS.values())
def test_the_secret_of_a_lease_is_never_told(encoding: EventFormat) -> None:
    assert b"secret" not in encoding.changes([LEASE]) + encoding.snapshot([LEASE])


def test_a_lock_is_held_or_free() -> None:
    held, free = (json.loads(line)["data"] for line in body(LINES.changes([LEASE, LeaseEnd("l", 9)])).splitlines())
    assert held == {
        "lock": "l",
        "state": "held",
        "token": 5,
        "owner": {"host": "a"},
        "expires_at": "2026-01-31T12:00:00.000001Z",
        "revision": 8,
    }
    assert free == {"lock": "l", "state": "free", "revision": 9}


@pytest.mark.parametrize("encoding", [SSE, LINES, PACKED])
def test_an_entry_that_cannot_be_read_has_no_value_and_the_others_go_on(encoding: EventFormat) -> None:
    unreadable = Entry("a", b"", 3, TIME, TIME)
    whole = body(encoding.changes([unreadable, ENTRY]))
    assert b"value" not in body(encoding.changes([unreadable]))
    assert whole == body(encoding.changes([unreadable])) + body(encoding.changes([ENTRY]))


def test_an_entry_that_messagepack_cannot_represent_has_no_value() -> None:
    packed = msgspec.msgpack.decode(body(PACKED.changes([Entry("a", b"1" + b"0" * 30, 3, TIME, TIME)])))
    assert (packed["event"], packed["id"], "value" in packed["data"]) == ("put", 3, False)


# Many changes at once -----------------------------------------------------------------------------------------

PLAIN_VALUES: list[Value] = [
    b"1",
    b'{"a":[1.5,null,"%d"]}',
    b'"\xe2\x80\xa8"',
    '"ä"'.encode(),
    b'"%b"' % (b"x" * 5_000),
]
OTHER_VALUES: list[Value] = [b"", b"1" + b"0" * 30, b'"%b"' % (b"x" * 70_000), Binary("image/png", Content(b"\x89"))]
"""Values that no format or not each format can show, a large one, and bytes."""
KEYS = ["a", "b/c", '","', '"', "\\", "\n", "\x7f", "é\u2028", "%b%d"]


def many_changes(rng: random.Random) -> list[Change]:
    """Changes of which most are plain: entries with small JSON values that do not expire, one for each revision."""
    count, others = rng.randrange(MANY_CHANGES, 3 * MANY_CHANGES), rng.choice([0, 0, 1, 3])
    entries = [
        Entry(rng.choice(KEYS), rng.choice(PLAIN_VALUES), 2 * number, TIME, TIME + rng.randrange(2))
        for number in range(1, count + 1)
    ]
    changes: list[Change] = [*entries]
    for place in rng.sample(range(1, count), k=others):
        entry = entries[place]
        substitutes: list[Change] = [
            replace(entry, value=rng.choice(OTHER_VALUES)),
            replace(entry, expires_at=TIME + 5),
            replace(entry, revision=changes[place - 1].revision),
            Deletion("gone", entry.revision),
        ]
        changes[place] = rng.choice(substitutes)
    return changes


@pytest.mark.parametrize("encoding", FORMATS.values())
def test_many_changes_have_the_events_that_they_have_alone(encoding: EventFormat) -> None:
    for seed in range(100):
        changes = many_changes(random.Random(seed))
        of_revisions = [list(group) for _, group in groupby(changes, revision_of)]
        assert max(map(len, of_revisions)) < MANY_CHANGES
        assert body(encoding.changes(changes)) == b"".join(body(encoding.changes(each)) for each in of_revisions)


@pytest.mark.parametrize("media", [Media.EVENTS, Media.NDJSON, Media.MESSAGEPACK])
def test_many_plain_entries_are_encoded_without_a_loop_over_them(media: Media) -> None:
    entries = [Entry(f"k{number}", b'{"a":1}', number, TIME, TIME) for number in range(1, 1_001)]
    FORMATS[media, True].changes(entries)  # the text of the time is in the cache then
    assert lines_of(lambda: FORMATS[media, True].changes(entries)) < 100
    entries[500] = Entry("k", b"1", 501, TIME, TIME, TIME + 1)
    assert lines_of(lambda: FORMATS[media, True].changes(entries)) > 1_000


def test_marks() -> None:
    assert body(LINES.ready(3)) == b'{"event":"ready","id":3,"data":{"revision":3}}\n'
    assert body(LINES.progress(3)) == b'{"event":"progress","id":3,"data":{"revision":3}}\n'
    assert body(LINES.reset(3)) == b'{"event":"reset","data":{"revision":3}}\n'
    end = ServiceError("revision_compacted", "too old", details={"oldest": 4})
    expected = {"error": "revision_compacted", "message": "too old", "oldest": 4}
    assert json.loads(body(LINES.end(end))) == {"event": "end", "data": expected}
