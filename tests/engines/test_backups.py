"""The text of a backup, the check that it is complete, and the restore of a backup into a store."""

import json
import random
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from itertools import count
from pathlib import Path

import pytest
from databases import ENGINES, Database, commit, opened, read, run, shared_server_url, writing
from driving import INCARNATION, Driver, FrozenClock, file_driver
from harness.contents import Contents, in_memory, random_batch
from harness.killed_before_a_step import KILLED_BEFORE_A_STEP
from volumes import Volume

from leasehold.engines import moment_of, open_engine, restore_store
from leasehold.engines.backups import StoreMoment, backup_text, read_backup, store_backup_text
from leasehold.engines.base import Engine, Moment
from leasehold.engines.file.disk import OsDisk
from leasehold.engines.file.offline import _read_quietly
from leasehold.engines.file.recovery import Paths
from leasehold.engines.file.snapshot import snapshot_text
from leasehold.engines.seals import SEAL_BYTES, Seal
from leasehold.engines.state import StoredState, empty_state, snapshot_of
from leasehold.errors import ServiceError
from leasehold.limits import MIB
from leasehold.model import ENTRY, LEASE, Binary, Content, Entry, Lease, Usage, Value
from leasehold.namespaces import DEFAULT_NAMESPACE
from leasehold.values import UNREADABLE

NOW = FrozenClock().now
_numbers = count(1)
STORES: dict[str, Callable[[Path], str]] = {
    "file": lambda folder: str(folder / "data.json"),
    "postgres": lambda _: Database(shared_server_url(), f"backup_{next(_numbers)}").create().url,
}

VALUES: tuple[Value, ...] = (
    *(Binary("image/png", Content(range(256))), Binary("text/plain; charset=utf-8", Content())),
    *(b"null", b"-0.0", b"1e300", b"18446744073709551615", b"[]", b'{"b":1,"a":[{}]}', b"true"),
    '"🦊 \u2028"'.encode(),
)
LARGE = b'"' + b"x" * 300_000 + b'"'


def some_entries(seed: int, number: int) -> list[Entry]:
    rng = random.Random(seed)
    entries = []
    for revision in range(1, number + 1):
        created = NOW + rng.randrange(10**9)
        expires = None if rng.random() < 0.7 else NOW + 10**15 + revision
        key = f"{rng.choice(['users/', 'größe/', 'Z', '~'])}{revision:04}"
        value = rng.choice(VALUES) if revision % 50 else LARGE
        entries.append(Entry(key, value, revision, created, created + rng.randrange(2), expires))
    return entries


async def pages(entries: Sequence[Entry]) -> AsyncGenerator[Sequence[Entry]]:
    for entry in entries:
        yield [entry]


def text_of(moment: Moment) -> bytes:
    async def gather() -> bytes:
        return b"".join([chunk async for chunk in backup_text(moment)])

    return run(gather())


def written(path: Path, entries: Sequence[Entry], revision: int = 10_000) -> Path:
    path.write_bytes(text_of(Moment(INCARNATION, revision, pages(sorted(entries, key=lambda entry: entry.key)))))
    return path


def state_in(path: Path) -> StoredState:
    """What a backup of one namespace has."""
    backup = read_backup(OsDisk(), path, NOW)
    assert not backup.has_several
    return backup.states[DEFAULT_NAMESPACE]


def by_key(entries: Sequence[Entry]) -> dict[str, Entry]:
    return {entry.key: entry for entry in entries}


# The text -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 300])
def test_a_backup_that_is_read_has_the_entries_that_were_written(number: int, tmp_path: Path) -> None:
    entries = some_entries(number, number)
    state = state_in(written(tmp_path / "backup.json", entries))
    assert (state.of(ENTRY).by_name, state.revision, state.incarnation) == (by_key(entries), 10_000, INCARNATION)


def test_a_backup_is_json_with_one_line_per_entry(tmp_path: Path) -> None:
    text = written(tmp_path / "backup.json", some_entries(1, 20)).read_text()
    assert len(json.loads(text)["entries"]) == 20
    assert [json.loads(line.rstrip(","))["key"] for line in text.split("\n")[1:-2]] == sorted(
        entry.key for entry in some_entries(1, 20)
    )


def test_a_backup_can_be_opened_as_data_json(tmp_path: Path) -> None:
    entries = some_entries(2, 20)
    written(tmp_path / "data.json", entries)
    with file_driver(tmp_path) as driver:
        assert in_memory(driver) == Contents(10_000, by_key(entries), compacted_revision=10_000)


def refused(path: Path) -> str:
    with pytest.raises(ServiceError) as caught:
        read_backup(OsDisk(), path, NOW)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_a_backup_is_refused_if_it_is_cut_at_any_byte(tmp_path: Path) -> None:
    path = written(tmp_path / "backup.json", some_entries(3, 5))
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert "nothing was restored" in refused(path)


def test_a_backup_is_refused_if_any_byte_was_changed(tmp_path: Path) -> None:
    path = written(tmp_path / "backup.json", some_entries(4, 3))
    whole = path.read_bytes()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1
        path.write_bytes(changed)
        assert refused(path)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"username": "alice"}', b"[1]", b"not json", b"\xff"])
def test_a_file_that_is_not_a_backup_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "backup.json"
    path.write_bytes(content)
    assert refused(path)


def test_a_missing_backup_file_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "backup.json") == "backup.json cannot be read: No such file or directory"


def test_no_chunk_of_a_backup_is_empty() -> None:
    """It would end the body of a response. The last entry fills a chunk."""

    async def chunks() -> list[bytes]:
        entries = [Entry("a", b"1", 1, NOW, NOW), Entry("b", LARGE, 2, NOW, NOW)]
        return [chunk async for chunk in backup_text(Moment(INCARNATION, 2, pages(entries)))]

    assert all(run(chunks()))


def test_large_entries_are_in_small_chunks() -> None:
    """Those of a backup are made on the event loop; those of `data.json` are copied beside it."""
    entries = [Entry(f"a{number:02}", b'"%b"' % (b"a" * 100_000), 1, NOW, NOW) for number in range(30)]
    entries.append(Entry("b", Binary("image/png", Content(bytes(5 * MIB))), 1, NOW, NOW))

    async def chunks() -> list[bytes]:
        return [chunk async for chunk in backup_text(Moment(INCARNATION, 1, pages(entries)))]

    backup = run(chunks())
    assert max(map(len, backup)) < 2 * MIB
    state = empty_state()
    state.of(ENTRY).by_name.update(by_key(entries))
    state.revision = state.compacted_revision = 1
    state.incarnation = INCARNATION
    snapshot = snapshot_of(state)
    assert max(map(len, snapshot_text(snapshot))) < 2 * MIB
    assert b"".join(backup).startswith(b"".join(snapshot_text(snapshot)).removesuffix(b"}\n"))


@pytest.mark.parametrize("size", [1, 7, SEAL_BYTES, 10_000_000])
def test_the_seal_is_verified_for_chunks_of_any_size(size: int, tmp_path: Path) -> None:
    text = written(tmp_path / "backup.json", some_entries(5, 10)).read_bytes()
    seal = Seal()
    for begin in range(0, len(text), size):
        seal.take(text[begin : begin + size])
    seal.check("the backup")


def test_a_backup_fails_and_names_the_entry_if_a_value_cannot_be_read() -> None:
    entries = [*some_entries(6, 3), Entry("~poisoned", UNREADABLE, 4, NOW, NOW)]
    with pytest.raises(ServiceError) as caught:
        text_of(Moment(INCARNATION, 4, pages(entries)))
    assert caught.value.message.startswith("the entry '~poisoned' has a value that cannot be read")


# Moments ------------------------------------------------------------------------------------------------------


async def gathered(moment: Moment) -> list[Entry]:
    return [entry for page in [page async for page in moment.pages] for entry in page]


async def moment_in(store: str) -> tuple[Moment, list[Entry]]:
    """The moment of `default` in a store, and its entries."""
    async with moment_of(store, now=NOW) as of_store:
        moment = await of_store.moment_of(DEFAULT_NAMESPACE)
        return moment, await gathered(moment)


@pytest.mark.parametrize("kind", sorted(ENGINES))
def test_a_moment_has_the_entries_at_its_revision_and_no_later_changes(kind: str, tmp_path: Path) -> None:
    clock = FrozenClock()
    with Driver(ENGINES[kind](tmp_path, clock).space()) as driver:
        driver.commit(*((f"k{number:04}", b"%d" % number) for number in range(1500)))
        driver.commit(("k0000", None))
        driver.put("expiring", expires_at=clock.now + 1)
        clock.now += 1
        before = {key: driver.read(key) for key in driver.values()}
        revision = driver.space.revision
        moment = driver.run(driver.space.moment())
        first = driver.run(anext(moment.pages))
        driver.commit(("k0001", b'"later"'), ("k1499", None), ("new", b"1"))
        entries = [*first, *driver.run(gathered(moment))]
        assert {entry.key: entry for entry in entries} == before
        assert [entry.key for entry in entries] == sorted(before)
        assert (moment.revision, moment.incarnation) == (revision, driver.space.incarnation)


def test_a_moment_of_files_in_use_has_what_the_running_service_committed(tmp_path: Path) -> None:
    rng = random.Random(7)
    with file_driver(tmp_path) as driver:
        for _ in range(30):
            contents = in_memory(driver)
            changes = random_batch(rng, contents, NOW, most=5)
            driver.decide_and_commit([str(number) for number in range(rng.randint(1, 2))], lambda *_, c=changes: c)
            moment, entries = run(moment_in(str(tmp_path / "data.json")))
            assert by_key(entries) == in_memory(driver).entries
            assert (moment.revision, moment.incarnation) == (driver.space.revision, INCARNATION)


class DiskOfAReader(OsDisk):
    """Calls `between` before one of the operations with which files are read."""

    def __init__(self, at: int, between: Callable[[], None]) -> None:
        self._left = at
        self._between = between

    @property
    def has_called(self) -> bool:
        return self._left <= 0

    def _pass(self) -> None:
        self._left -= 1
        if not self._left:
            self._between()

    def open(self, path: Path, *, writable: bool = False) -> int:
        self._pass()
        return super().open(path, writable=writable)

    def read(self, file: int, size: int) -> bytes:
        self._pass()
        return super().read(file, size)

    def close(self, file: int) -> None:
        self._pass()
        super().close(file)

    def names(self, folder: Path) -> list[str]:
        self._pass()
        return super().names(folder)


@pytest.mark.parametrize("has_changes_since", [False, True])
def test_a_moment_of_files_in_use_lacks_nothing_if_a_checkpoint_ends_while_they_are_read(
    *, has_changes_since: bool, tmp_path: Path
) -> None:
    """The checkpoint removes the journal, which has changes. It ends before each operation of the reader, in turn."""
    with Volume(tmp_path) as volume:
        volume.create("team-a")

        def between() -> None:
            volume.checkpoint()
            if has_changes_since:
                volume.put(DEFAULT_NAMESPACE, ("later", b"1"))
                volume.put("team-a", ("later", b"1"))

        for step in count(1):
            key = f"key-{step}"
            volume.put(DEFAULT_NAMESPACE, (key, b"1"))
            volume.put("team-a", (key, b"1"))
            disk = DiskOfAReader(step, between)
            paths = Paths(tmp_path / "data.json")
            state, report = _read_quietly(paths, disk, NOW)
            for found in (state, report.namespaces.states["team-a"]):
                assert key in found.of(ENTRY).by_name, step
            if not disk.has_called:
                break
        assert step > 10


# Restore ------------------------------------------------------------------------------------------------------


async def opened_contents(engine: Engine) -> tuple[int, str, dict[str, Entry], list[Lease]]:
    space = engine.space()
    await space.open()
    try:
        found: list[Entry] = []
        after = None
        while True:
            page = await space.scan(ENTRY, "", after, 10)
            found += page.records
            if (after := page.next_after) is None:
                break
        leases = (await space.scan(LEASE, "", None, 10)).records
        return space.revision, space.incarnation, by_key(found), leases
    finally:
        await space.close()


@pytest.mark.parametrize("kind", STORES)
def test_a_restored_store_has_the_entries_of_the_backup_and_a_new_incarnation(kind: str, tmp_path: Path) -> None:
    entries = some_entries(8, 300)
    backup = state_in(written(tmp_path / "backup.json", entries))
    url = STORES[kind](tmp_path)
    restored = run(restore_store(url, backup, advance=5, keep=None, now=NOW))
    revision, incarnation, found, leases = run(opened_contents(open_engine(url)))
    assert restored.revision == revision == 10_005
    assert by_key([_in_order(entry) for entry in found.values()]) == by_key([_in_order(entry) for entry in entries])
    assert incarnation not in ("", INCARNATION)
    assert leases == []


@pytest.mark.parametrize("kind", STORES)
def test_the_usage_of_a_restored_store_is_that_of_its_entries(kind: str, tmp_path: Path) -> None:
    """And it stays so: on PostgreSQL the next commit continues it."""
    entries = some_entries(16, 100)
    backup = state_in(written(tmp_path / "backup.json", entries))
    url = STORES[kind](tmp_path)
    run(restore_store(url, backup, advance=0, keep=None, now=NOW))

    async def usages() -> list[Usage]:
        engine = open_engine(url)
        await engine.open()
        space = engine.space()
        await space.open()
        first = (await engine.namespace("default")).usage
        assert await commit(space, ["new"], writing("new", b"1")) is None
        second = (await engine.namespace("default")).usage
        await space.close()
        await engine.close()
        return [first, second]

    size = sum(len(entry.key.encode()) + len(entry.value) for entry in entries)
    assert run(usages()) == [Usage(100, size), Usage(101, size + 4)]


def _in_order(entry: Entry) -> Entry:
    """Sorted members, because JSONB does not keep their order."""
    value = entry.value
    if isinstance(value, bytes) and b"{" in value:
        value = json.dumps(json.loads(value), sort_keys=True).encode()
    return Entry(entry.key, value, entry.revision, entry.created_at, entry.updated_at, entry.expires_at)


@pytest.mark.parametrize("kind", STORES)
def test_a_restore_into_a_store_that_is_not_empty_is_refused_and_changes_nothing(kind: str, tmp_path: Path) -> None:
    url = STORES[kind](tmp_path)
    backup = state_in(written(tmp_path / "backup.json", some_entries(9, 5)))

    async def fill() -> None:
        space = open_engine(url).space()
        await space.open()
        assert await commit(space, ["mine"], writing("mine", b"1")) is None
        await space.close()

    run(fill())
    before = run(opened_contents(open_engine(url)))
    with pytest.raises(ServiceError) as caught:
        run(restore_store(url, backup, advance=0, keep=None, now=NOW))
    assert "is not empty: with --replace" in caught.value.message
    assert run(opened_contents(open_engine(url))) == before


@pytest.mark.parametrize("kind", STORES)
def test_a_replaced_store_is_saved_and_the_new_head_is_larger_than_both_old_ones(kind: str, tmp_path: Path) -> None:
    url = STORES[kind](tmp_path)
    older, newer = some_entries(10, 30), some_entries(11, 40)
    first = state_in(written(tmp_path / "first.json", older, revision=100))
    second = state_in(written(tmp_path / "second.json", newer, revision=50))
    run(restore_store(url, first, advance=7, keep=None, now=NOW))
    incarnation = run(opened_contents(open_engine(url)))[1]

    async def keep(store: StoreMoment) -> Path:
        kept = tmp_path / "kept.json"
        kept.write_bytes(b"".join([chunk async for chunk in store_backup_text(store)]))
        return kept

    restored = run(restore_store(url, second, advance=1, keep=keep, now=NOW))
    assert restored.revision == 108
    assert restored.kept is not None
    kept = state_in(restored.kept)
    assert (kept.revision, kept.incarnation, kept.of(ENTRY).by_name.keys()) == (107, incarnation, by_key(older).keys())
    assert run(opened_contents(open_engine(url)))[2].keys() == by_key(newer).keys()


def test_a_restore_is_refused_if_the_files_are_in_use(tmp_path: Path) -> None:
    backup = state_in(written(tmp_path / "backup.json", some_entries(12, 5)))
    with file_driver(tmp_path), pytest.raises(ServiceError) as caught:
        run(restore_store(str(tmp_path / "data.json"), backup, advance=0, keep=None, now=NOW))
    assert caught.value.message == "data.json is in use by another process"


def test_servers_on_a_database_see_the_restored_entries_and_the_new_incarnation(tmp_path: Path) -> None:
    url = STORES["postgres"](tmp_path)
    backup = state_in(written(tmp_path / "backup.json", some_entries(13, 5)))

    async def keep(_: StoreMoment) -> Path:
        return tmp_path

    async def scenario() -> None:
        async with opened(url) as space:
            assert await commit(space, ["mine"], writing("mine", b"1")) is None
            before = space.incarnation
            restored = await restore_store(url, backup, advance=0, keep=keep, now=NOW)
            for key in backup.of(ENTRY).by_name:
                assert isinstance(await read(space, key), Entry)
            assert await read(space, "mine") is None
            assert space.incarnation != before
            assert await commit(space, ["mine"], writing("mine", b"1")) is None
            mine = await read(space, "mine")
            assert isinstance(mine, Entry)
            assert mine.revision == restored.revision + 1

    run(scenario())


# Killed restores ----------------------------------------------------------------------------------------------

KILLED_AT = f"""{KILLED_BEFORE_A_STEP}
import asyncio, sys
from pathlib import Path
from leasehold.engines import restore_store
from leasehold.engines.backups import read_backup, store_backup_text

async def keep(store):
    Path(sys.argv[3]).write_bytes(b"".join([chunk async for chunk in store_backup_text(store)]))
    return Path(sys.argv[3])

backup = read_backup(disk.OsDisk(), Path(sys.argv[1]), 0).states["default"]
disk.OsDisk = KilledDisk
for line in sys.stdin:
    steps = int(line)
    restoring = os.fork()
    if restoring == 0:
        asyncio.run(restore_store(sys.argv[2], backup, advance=0, keep=keep, now=0))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(restoring, 0)[1]), flush=True)
"""
"""For each line, a restore in a process of its own. They are forked, because the imports take longer than a restore."""


@pytest.mark.parametrize("kind", STORES)
def test_a_restore_that_is_killed_at_any_step_has_replaced_everything_or_nothing(kind: str, tmp_path: Path) -> None:
    """The restore is killed before each use of the disk or the database connection, until one run completes."""
    url = STORES[kind](tmp_path)
    before = state_in(written(tmp_path / "before.json", some_entries(14, 5), revision=100))
    after = written(tmp_path / "after.json", some_entries(15, 30), revision=200)
    run(restore_store(url, before, advance=0, keep=None, now=NOW))
    found: dict[str, Entry] = {}
    steps = completed = 0
    command = [sys.executable, "-c", KILLED_AT, str(after), url, str(tmp_path / "kept.json")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as restores:
        assert restores.stdin is not None
        assert restores.stdout is not None
        for steps in range(200):
            restores.stdin.write(f"{steps}\n")
            ended = int(restores.stdout.readline())
            revision, _, found, _ = run(opened_contents(open_engine(url)))
            if ended == 0:
                break
            assert ended == -signal.SIGKILL
            if revision == 200:
                # Killed between the last change and its end.
                assert found.keys() == by_key(some_entries(15, 30)).keys()
                completed += 1
                run(restore_store(url, before, advance=0, keep=_kept_in(tmp_path), now=NOW))
            else:
                assert (revision, found.keys()) == (100, before.of(ENTRY).by_name.keys())
    assert steps > 10
    assert completed > 0
    assert found.keys() == by_key(some_entries(15, 30)).keys()


def _kept_in(folder: Path) -> Callable[[StoreMoment], Awaitable[Path]]:
    async def keep(_: StoreMoment) -> Path:
        return folder

    return keep
