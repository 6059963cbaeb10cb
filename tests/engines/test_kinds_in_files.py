"""What the file engine does for any kind of record, and the removals that it keeps over a restart."""

from pathlib import Path
from typing import cast

import msgspec
import pytest
from driving import INCARNATION, Driver, file_driver
from store_files import (
    DATA,
    LATER,
    TIME,
    document,
    killed_with_journal,
    lease_line,
    line,
    refusal,
    removal_line,
)

from leasehold.engines import base
from leasehold.engines.file.disk import OsDisk
from leasehold.engines.file.documents import read_document, read_snapshot
from leasehold.engines.file.engine import FileEngine
from leasehold.engines.file.offline import advance_files, restore_files
from leasehold.engines.file.snapshot import snapshot_text
from leasehold.engines.state import StoredState, empty_state, snapshot_of
from leasehold.errors import ServiceError
from leasehold.model import (
    ENTRY,
    KINDS,
    LEASE,
    AnyKind,
    Change,
    Deletion,
    Entry,
    JsonText,
    Kind,
    Lease,
    LeaseEnd,
    Record,
    Revision,
    Time,
    Touched,
)
from leasehold.namespaces import DEFAULT_NAMESPACE

T1, T2 = 1_769_860_800_000_001, 1_769_860_801_500_000


def text_of(state: StoredState) -> bytes:
    return b"".join(snapshot_text(snapshot_of(state)))


def written(folder: Path, content: bytes) -> Path:
    (folder / DATA).write_bytes(content)
    return folder / DATA


def read(folder: Path, content: bytes) -> StoredState:
    return read_snapshot(OsDisk(), written(folder, content), 0)


# A new kind ---------------------------------------------------------------------------------------------------


class Note(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=90):
    """A kind of record that only these tests have."""

    title: str
    revision: Revision
    body: JsonText
    written_at: Time
    pages: int = msgspec.field(name="page_count")
    expires_at: Time | None = None
    tags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.title


class NoteRemoval(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=91):
    title: str
    revision: int


NOTE = cast("AnyKind", Kind("note", "notes", cast("type[Entry]", Note), cast("type[Deletion]", NoteRemoval)))
NOTES = {
    "a": Note("a", 3, b'{"text":"x"}', T1, 7),
    "b/c": Note("b/c", 9, b"null", T1, 1, T2, ("x",)),
}
NOTE_LINES = (
    f'{{"title":"a","revision":3,"body":{{"text":"x"}},"written_at":"{TIME}","page_count":7}}',
    f'{{"title":"b/c","revision":9,"body":null,"written_at":"{TIME}","page_count":1,"expires_at":"{LATER}","tags":["x"]}}',
)
WITH_NOTES = document(9, line("a", "1", 1), compacted=9).replace(
    b"\n]}\n", f'\n], "notes": [\n{NOTE_LINES[0]},\n{NOTE_LINES[1]}\n]}}\n'.encode()
)


def test_a_new_kind_is_written_and_read_according_to_its_annotations(tmp_path: Path) -> None:
    state = empty_state()
    state.contents[NOTE] = type(state.contents[ENTRY])()
    state.revision, state.compacted_revision, state.incarnation = 9, 9, INCARNATION
    state.of(ENTRY).by_name["a"] = Entry("a", b"1", 1, T1, T1)
    state.by_name(NOTE).update(cast("dict[str, Record]", dict(reversed(NOTES.items()))))
    assert text_of(state) == WITH_NOTES
    for found in (
        read_snapshot(OsDisk(), written(tmp_path, WITH_NOTES), 0, [*KINDS, NOTE]),
        read_document(WITH_NOTES.replace(b'{"', b'{ "'), DATA, 0, [*KINDS, NOTE]),
    ):
        assert found.by_name(NOTE) == cast("dict[str, Record]", NOTES)


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        ('"title":"b/c"', '"title":"a"', "line 5: note 'a' occurs twice"),
        ('"title":"b/c"', '"title":"b//c"', 'line 5: note "b//c": segments of a key'),
        (
            '"revision":9,"body"',
            '"revision":10,"body"',
            "line 5: note 'b/c' has a revision greater than that of the store",
        ),
        ('"revision":3', '"revision":0', 'line 4: note "a": it is not as Leasehold writes it'),
        ('"body":null', '"body":"\\u0000"', 'line 5: note "b/c": a string contains U+0000'),
        (LATER, "tomorrow", 'line 5: note "b/c": it is not as Leasehold writes it'),
        ('"page_count":7', '"pages":7', 'line 4: note "a": it is not as Leasehold writes it'),
        ('"tags":["x"]', '"tags":[1]', 'line 5: note "b/c": it is not as Leasehold writes it'),
    ],
)
def test_a_new_kind_is_validated_according_to_its_annotations(good: str, bad: str, reason: str, tmp_path: Path) -> None:
    assert good.encode() in WITH_NOTES
    with pytest.raises(ServiceError) as caught:
        read_snapshot(OsDisk(), written(tmp_path, WITH_NOTES.replace(good.encode(), bad.encode())), 0, [*KINDS, NOTE])
    assert reason in caught.value.message


def test_the_line_of_a_lease_is_the_same_as_in_version_0_1_0() -> None:
    state = empty_state()
    state.of(LEASE).by_name["l"] = Lease("l", "id-of-l", 3, 3, T1, T2, 1_499_999, "alice", b'{"n":1}')
    state.revision = state.compacted_revision = 9
    state.incarnation = INCARNATION
    assert text_of(state) == document(9, leases=[lease_line("l", 3)], compacted=9)


# Removals -----------------------------------------------------------------------------------------------------

REMOVALS = [removal_line("b", 4), removal_line("a/c", 7), removal_line("m", 8, "lease")]
WITH_REMOVALS = document(9, line("a", "1", 1), leases=[lease_line("l", 3)], compacted=2, removals=REMOVALS)


def test_removals_are_read_and_written_in_the_same_text(tmp_path: Path) -> None:
    state = read(tmp_path, WITH_REMOVALS)
    assert (state.compacted_revision, state.revision) == (2, 9)
    assert state.of(ENTRY).removals == {"b": 4, "a/c": 7}
    assert state.of(LEASE).removals == {"m": 8}
    assert text_of(state) == WITH_REMOVALS


@pytest.mark.parametrize(
    "text",
    [
        document(0),
        document(9, line("a", "1", 1)),
        document(9, line("a", "1", 1), compacted=9),
        document(9, line("a", "1", 1), compacted=5),
        document(9, removals=REMOVALS[:2]),
        document(9, leases=[lease_line("l", 3)], removals=REMOVALS[2:]),
    ],
)
def test_any_removals_are_read_and_written_in_the_same_text(text: bytes, tmp_path: Path) -> None:
    assert text_of(read(tmp_path, text)) == text
    assert text_of(read_document(text.replace(b'":', b'" : '), DATA, 0)) == text


def test_a_file_without_removals_has_no_history_before_its_revision(tmp_path: Path) -> None:
    of_0_1_0 = document(9, line("a", "1", 1), compacted=9).replace(f'"incarnation": "{INCARNATION}", '.encode(), b"")
    of_another_tool = b'{"a": 1, "b": 2}'
    for content, revision in ((of_0_1_0, 9), (of_another_tool, 2)):
        state = read(tmp_path, content)
        assert (state.revision, state.compacted_revision) == (revision, revision)
        assert not state.of(ENTRY).removals


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        (REMOVALS[1], removal_line("b", 7), 'line 7: removal "b": the file has it twice'),
        (REMOVALS[1], removal_line("a", 7), 'line 7: removal "a": the file also has the entry itself'),
        (REMOVALS[1], removal_line("a//c", 7), 'line 7: removal "a//c": segments of a key'),
        (REMOVALS[1], removal_line("a/c", 10), 'line 7: removal "a/c": its revision is not between'),
        (REMOVALS[1], removal_line("a/c", 2), 'line 7: removal "a/c": its revision is not between'),
        (REMOVALS[1], removal_line("a/c", 7, "note"), "line 7: removal \"a/c\": there is no kind 'note'"),
        (REMOVALS[1], removal_line("a/c", 0), 'line 7: removal "a/c": it is not as Leasehold writes it'),
        (REMOVALS[1], REMOVALS[1].replace("name", "key"), "line 7: removal: it is not as Leasehold writes it"),
        (REMOVALS[2], removal_line("l", 8, "lease"), 'line 8: removal "l": the file also has the lease itself'),
        ('"compacted_revision": 2', '"compacted_revision": 10', "compacted_revision is greater than its revision"),
        ('"compacted_revision": 2', '"compacted_revision": -1', "compacted_revision is not a number"),
        (f"{REMOVALS[2]}\n]", f'{REMOVALS[2]}\n], "compacted_revision": 5', 'line 6: removal "b": its revision is not'),
        ('"compacted_revision": 2, ', "", 'line 6: removal "b": its revision is not between'),
    ],
)
def test_an_invalid_removal_is_refused_with_its_line_and_name(good: str, bad: str, reason: str, tmp_path: Path) -> None:
    assert good.encode() in WITH_REMOVALS
    written(tmp_path, WITH_REMOVALS.replace(good.encode(), bad.encode()))
    assert reason in refusal(tmp_path)


def test_removals_that_are_not_a_list_are_refused(tmp_path: Path) -> None:
    written(tmp_path, document(9).replace(b"0}", b'0, "removals": {}}'))
    assert "removals is not a list" in refusal(tmp_path)


# Restarts -----------------------------------------------------------------------------------------------------


def changes(driver: Driver, kind: AnyKind, after: int) -> list[Change]:
    return driver.run(driver.space.changes(kind, after, "", 1000)).changes


def test_removals_are_known_after_a_kill_and_after_a_normal_stop(tmp_path: Path) -> None:
    killed_with_journal(tmp_path, [("a", b"1"), ("b", b"2")], [("a", None), ("b", None)], [("b", b"3")])
    with file_driver(tmp_path) as driver:
        found = changes(driver, ENTRY, 2)
        assert [(change.name, change.revision, type(change)) for change in found] == [
            ("a", 3, Deletion),
            ("b", 5, Entry),
        ]
        driver.decide_and_commit(
            Touched({LEASE: ["l"]}),
            lambda _view, revision, now: [Lease("l", "id", 6, revision + 1, now, T2, 1, "", b"1")],
        )
        driver.decide_and_commit(Touched({LEASE: ["l"]}), lambda _view, revision, _now: [LeaseEnd("l", revision + 1)])
    assert removal_line("l", 7, "lease").encode() in (tmp_path / DATA).read_bytes()
    with file_driver(tmp_path) as again:
        assert changes(again, ENTRY, 2) == found
        assert changes(again, LEASE, 6) == [LeaseEnd("l", 7)]


def test_a_checkpoint_keeps_the_removals_before_it(tmp_path: Path) -> None:
    with file_driver(tmp_path) as driver:
        driver.commit(("a", b"1"), ("b", b"2"))
        driver.commit(("a", None))
        driver.run(driver.space.volume.checkpoint())  # type: ignore[attr-defined] # it is a file's
        driver.commit(("b", None))
        driver.kill()
    state = read_snapshot(OsDisk(), tmp_path / DATA, 0)
    assert (state.revision, state.of(ENTRY).removals) == (3, {"a": 3})
    with file_driver(tmp_path) as again:
        assert changes(again, ENTRY, 0) == [Deletion("a", 3), Deletion("b", 4)]


def test_the_history_of_a_file_of_0_1_0_begins_at_its_revision(tmp_path: Path) -> None:
    written(tmp_path, document(9, line("a", "1", 1), compacted=9))
    with file_driver(tmp_path) as driver:
        driver.commit(("a", None))
        driver.kill()
    with file_driver(tmp_path) as again:
        assert changes(again, ENTRY, 9) == [Deletion("a", 10)]
        with pytest.raises(ServiceError) as caught:
            changes(again, ENTRY, 8)
    assert caught.value.code == "revision_compacted"


def test_removals_far_before_the_head_are_dropped_when_a_journal_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[list[tuple[str, bytes | None]]] = [
        [(f"k{number}", value)] for value in (b"1", None) for number in range(10)
    ]
    killed_with_journal(tmp_path, *batches)
    monkeypatch.setattr(base, "HISTORY_CHANGES", 5)
    with file_driver(tmp_path) as driver:
        assert changes(driver, ENTRY, 15) == [Deletion(f"k{number}", 11 + number) for number in range(5, 10)]
    state = read_snapshot(OsDisk(), tmp_path / DATA, 0)
    assert (state.compacted_revision, len(state.of(ENTRY).removals)) == (15, 5)


def test_a_store_that_was_advanced_or_restored_has_no_earlier_history(tmp_path: Path) -> None:
    """Readers may have seen changes between the old state and the new one that this store does not have."""
    path, make_incarnation = written(tmp_path, WITH_REMOVALS), lambda: "0a1b2c"
    head = advance_files(path, OsDisk(), by=100, make_incarnation=make_incarnation, now=T1)
    advanced = read_snapshot(OsDisk(), path, 0)
    backup = read(tmp_path, WITH_REMOVALS)
    restore_files(path, OsDisk(), backup, advance=5, replace=True, make_incarnation=make_incarnation, now=T1)
    restored = read_snapshot(OsDisk(), path, 0)
    assert (head, advanced.of(ENTRY).by_name, set(advanced.of(LEASE).by_name)) == (
        109,
        backup.of(ENTRY).by_name,
        {"l"},
    )
    for state, revision in ((advanced, 109), (restored, 14)):
        assert (state.revision, state.compacted_revision) == (revision, revision)
        assert not any(contents.removals for contents in state.contents.values())


def test_another_namespace_is_refused_by_the_engine(tmp_path: Path) -> None:
    engine = FileEngine(tmp_path / DATA)
    assert engine.space() is engine.space(DEFAULT_NAMESPACE)
    with pytest.raises(ServiceError) as caught:
        engine.space("another")
    assert caught.value.code == "no_such_namespace"
