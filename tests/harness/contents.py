"""The exact contents that a store must have, and random batches of changes for it."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from unittest.mock import patch

from driving import Driver
from msgspec.structs import replace

from leasehold.engines.file import engine as file
from leasehold.engines.file import journal, ownership, reserve, snapshot
from leasehold.engines.file.engine import FileEngine
from leasehold.engines.file.snapshot import StoredState
from leasehold.errors import ServiceError
from leasehold.limits import KIB
from leasehold.model import Change, Deletion, Entry, Lease, LeaseEnd, Touched, name_of

KEYS = 6
LOCKS = 4
VALUE_BYTES = (1, 1, 20, 700, 3000)
"""Sizes within one sector, and over several."""
TTL = 10**15
"""Microseconds. So far in the future that nothing expires."""


@dataclass(frozen=True)
class Contents:
    """A store at one revision, with every token and time."""

    revision: int = 0
    entries: Mapping[str, Entry] = field(default_factory=dict)
    leases: Mapping[str, Lease] = field(default_factory=dict)

    def after(self, changes: Sequence[Change], revision: int | None = None) -> "Contents":
        entries, leases = dict(self.entries), dict(self.leases)
        for change in changes:
            if isinstance(change, Entry):
                entries[change.key] = change
            elif isinstance(change, Lease):
                leases[change.lock] = change
            elif isinstance(change, Deletion):
                entries.pop(change.key, None)
            else:
                leases.pop(change.lock, None)
        return Contents(changes[-1].revision if revision is None else revision, entries, leases)

    def __str__(self) -> str:
        names = [f"{key}@{entry.revision}" for key, entry in sorted(self.entries.items())]
        locks = [f"{lock}@{lease.revision}#{lease.token}" for lock, lease in sorted(self.leases.items())]
        return f"revision {self.revision} with {' '.join(names + locks) or 'nothing'}"


def in_files(state: StoredState) -> Contents:
    return Contents(state.revision, state.entries, state.leases)


def in_memory(driver: Driver) -> Contents:
    entries = driver.run(driver.engine.scan("", None, 10_000))
    leases = driver.run(driver.engine.leases("", None, 10_000))
    return Contents(
        driver.engine.revision,
        {entry.key: entry for entry in entries.records},
        {lease.lock: lease for lease in leases.records},
    )


# Batches ------------------------------------------------------------------------------------------------------


def random_batch(rng: random.Random, before: Contents, now: int, *, most: int) -> list[Change]:
    """Up to `most` operations after `before`, reduced to the last state of each name, as the commit would write it."""
    changes: dict[str, Change] = {}
    contents = before
    for revision in range(before.revision + 1, before.revision + 1 + rng.randint(1, most)):
        of_lock = rng.random() < 0.4
        change = _lock_change(rng, contents, revision, now) if of_lock else _entry_change(rng, contents, revision, now)
        contents = contents.after([change])
        changes.pop(name_of(change), None)  # so that they stay in the order of revisions
        changes[name_of(change)] = change
    return list(changes.values())


def _entry_change(rng: random.Random, contents: Contents, revision: int, now: int) -> Change:
    key = f"key/{rng.randrange(KEYS)}"
    if rng.random() < 0.25:
        return Deletion(key, revision)
    value = b'"%d %b"' % (revision, rng.choice("xyz").encode() * rng.choice(VALUE_BYTES))
    before = contents.entries.get(key)
    created_at = now if before is None else before.created_at
    return Entry(key, value, revision, created_at, now, rng.choice([None, now + TTL]))


def _lock_change(rng: random.Random, contents: Contents, revision: int, now: int) -> Change:
    lock = f"lock/{rng.randrange(LOCKS)}"
    lease = contents.leases.get(lock)
    if lease is None:
        lease_id = f"{rng.getrandbits(128):032x}"
        return Lease(lock, lease_id, revision, revision, now, now + TTL, TTL, "alice", b'{"host":"a"}')
    if rng.random() < 0.5:
        return replace(lease, revision=revision, expires_at=now + TTL)
    return LeaseEnd(lock, revision)


QUIET, SINGLE, BATCH = "quiet", "single", "batch"


def random_way(rng: random.Random) -> str:
    """How a batch arrives: alone on an idle lane (small stores write a new snapshot), alone by chance, or gathered."""
    return rng.choice([QUIET, SINGLE, BATCH, BATCH])


def batch_for(rng: random.Random, way: str, before: Contents, now: int) -> list[Change]:
    return random_batch(rng, before, now, most=6 if way == BATCH else 1)


def try_commit(driver: Driver, changes: Sequence[Change], way: str) -> ServiceError | None:
    """Commit exactly these changes. Returns the refusal."""
    assert isinstance(driver.engine, FileEngine)
    if way == QUIET:
        driver.engine._gathered_at = float("-inf")
    names = [name_of(change) for change in changes]
    touched = names if way == QUIET else [*names, "another"]
    return driver.decide_and_commit(Touched(touched), lambda _view, _revision, _now: changes)


# Sizes --------------------------------------------------------------------------------------------------------


@contextmanager
def small_sizes(rng: random.Random) -> Iterator[None]:
    """Small limits, because there are many runs: a few entries make a store large, and fill a chunk or a block."""
    with ExitStack() as stack:
        for module, name, size in (
            (journal, "FIRST_CHUNK_BYTES", 4 * KIB),
            (journal, "CHUNK_BYTES", 8 * KIB),
            (reserve, "RESERVE_BYTES", 0),
            (ownership, "LATELY_NANOSECONDS", 0),  # otherwise the time would decide which operations happen
            (file, "SMALL_STORE_BYTES", rng.choice([1, 3, 6]) * KIB),
            (file, "MIN_JOURNAL_BYTES", rng.choice([6, 12, 1000]) * KIB),
            (snapshot, "CHUNK_ENTRIES", rng.choice([1, 3, 1000])),
            (snapshot, "BLOCK_BYTES", rng.choice([256, 1024, 512 * KIB])),
        ):
            stack.enter_context(patch.object(module, name, size))
        yield
