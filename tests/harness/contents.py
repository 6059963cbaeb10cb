"""The exact contents that a store must have, and random batches of changes for it."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from unittest.mock import patch

from driving import Driver, set_pace
from msgspec.structs import replace as replaced

from leasehold.engines.file import journal, ownership, policy, reserve, snapshot
from leasehold.engines.file.records import MARKER
from leasehold.engines.file.space import FileSpace
from leasehold.engines.memory.space import InMemorySpace
from leasehold.engines.state import StoredState
from leasehold.errors import ServiceError
from leasehold.limits import KIB
from leasehold.model import (
    ENTRY,
    KIND_OF,
    KINDS,
    LEASE,
    RECEIPT,
    Binary,
    Change,
    Content,
    DeletedEntries,
    Deletion,
    Entry,
    Lease,
    LeaseEnd,
    Memo,
    Receipt,
    ReceiptEnd,
    Touched,
    Value,
    encode_memo,
    is_removal,
)

KEYS = 6
LOCKS = 4
REQUESTS = 6
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
    removals: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """The revision by kind and name."""
    compacted_revision: int = 0
    receipts: Mapping[str, Receipt] = field(default_factory=dict)

    def after(self, changes: Sequence[Change], revision: int | None = None) -> "Contents":
        entries, leases, removals = dict(self.entries), dict(self.leases), dict(self.removals)
        receipts = dict(self.receipts)
        for change in changes:
            removals.pop((KIND_OF[type(change)].name, change.name), None)
            if isinstance(change, Entry):
                entries[change.key] = change
            elif isinstance(change, Lease):
                leases[change.lock] = change
            elif isinstance(change, Receipt):
                receipts[change.request] = change
            elif isinstance(change, ReceiptEnd):
                receipts.pop(change.request, None)
            else:
                removed: dict[str, Entry] | dict[str, Lease] = entries if isinstance(change, Deletion) else leases
                removed.pop(change.name, None)
                removals[KIND_OF[type(change)].name, change.name] = change.revision
        return replace(
            self,
            revision=changes[-1].revision if revision is None else revision,
            entries=entries,
            leases=leases,
            removals=removals,
            receipts=receipts,
        )

    def __str__(self) -> str:
        names = [f"{key}@{entry.revision}" for key, entry in sorted(self.entries.items())]
        names += [f"{lock}@{lease.revision}#{lease.token}" for lock, lease in sorted(self.leases.items())]
        names += [f"{request}@{receipt.revision}" for request, receipt in sorted(self.receipts.items())]
        names += [f"no {kind} {name}@{revision}" for (kind, name), revision in sorted(self.removals.items())]
        since = f" since {self.compacted_revision}" if self.compacted_revision else ""
        return f"revision {self.revision}{since} with {' '.join(names) or 'nothing'}"


def in_files(state: StoredState) -> Contents:
    removals = {
        (kind.name, name): revision
        for kind in KINDS
        if kind.has_history
        for name, revision in state.contents[kind].removals.items()
    }
    entries, leases, receipts = state.of(ENTRY).by_name, state.of(LEASE).by_name, state.of(RECEIPT).by_name
    return Contents(state.revision, entries, leases, removals, state.compacted_revision, receipts)


def in_memory(driver: Driver) -> Contents:
    """What readers see: the records, and the removals that the history of changes tells of."""
    space = driver.space
    assert isinstance(space, InMemorySpace)
    reading = _in_memory(space)
    try:
        reading.send(None)
    except StopIteration as read:
        result: Contents = read.value
        return result
    raise AssertionError("a space in memory waits for nothing, so this needs no event loop")


async def _in_memory(space: InMemorySpace) -> Contents:
    compacted_revision = space._state.compacted_revision
    removals: dict[tuple[str, str], int] = {}
    for kind in KINDS:
        if not kind.has_history:
            continue
        changes = (await space.changes(kind, compacted_revision, "", 10_000)).changes
        removals |= {(kind.name, change.name): change.revision for change in changes if is_removal(change)}
    entries = (await space.scan(ENTRY, "", None, 10_000)).records
    leases = (await space.scan(LEASE, "", None, 10_000)).records
    return Contents(
        space.revision,
        {entry.key: entry for entry in entries},
        {lease.lock: lease for lease in leases},
        removals,
        compacted_revision,
        dict(space._state.records(RECEIPT)),
    )


# Batches ------------------------------------------------------------------------------------------------------


def random_batch(rng: random.Random, before: Contents, now: int, *, most: int) -> list[Change]:
    """Up to `most` changes after `before`, reduced to the last state of each name, as the commit would write it.

    Some changes of entries have the revision of the change before, as in a transaction.
    """
    changes: dict[str, Change] = {}
    contents = before
    revision = before.revision
    together: set[str] = set()
    """The entries that were changed at `revision`, while the next change may have it, too."""
    for _ in range(rng.randint(1, most)):
        of_lock = rng.random() < 0.4
        key = f"key/{rng.randrange(KEYS)}"
        if of_lock or not together or key in together or rng.random() < 0.4:
            revision += 1
            together = set()
        if of_lock:
            change: Change = _lock_change(rng, contents, revision, now)
        else:
            change = _entry_change(rng, key, contents, revision, now)
            together.add(key)
        contents = contents.after([change])
        changes.pop(change.name, None)  # so that they stay in the order of revisions
        changes[change.name] = change
    return list(changes.values())


def _entry_change(rng: random.Random, key: str, contents: Contents, revision: int, now: int) -> Change:
    if rng.random() < 0.25:
        return Deletion(key, revision)
    value: Value = b'"%d %b"' % (revision, rng.choice("xyz").encode() * rng.choice(VALUE_BYTES))
    if rng.random() < 0.2:
        value = Binary("image/png", Content(rng.randbytes(rng.choice(VALUE_BYTES)) + MARKER))
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
        return replaced(lease, revision=revision, expires_at=now + TTL)
    return LeaseEnd(lock, revision)


QUIET, SINGLE, BATCH = "quiet", "single", "batch"


def random_way(rng: random.Random) -> str:
    """How a batch arrives: alone on an idle lane (small stores write a new snapshot), alone by chance, or gathered."""
    return rng.choice([QUIET, SINGLE, BATCH, BATCH])


def batch_for(rng: random.Random, way: str, before: Contents, now: int) -> list[Change]:
    return random_batch(rng, before, now, most=6 if way == BATCH else 1)


def with_receipts(rng: random.Random, changes: Sequence[Change], before: Contents, now: int) -> list[Change]:
    """The changes, with receipts at some of their revisions, and sometimes the removal of old receipts after them.

    A receipt comes after all changes of its revision, as in the commit of a request with an idempotency key.
    """
    batch: list[Change] = []
    unused = [f"request/{number}" for number in range(REQUESTS)]
    rng.shuffle(unused)
    for place, change in enumerate(changes, start=1):
        batch.append(change)
        is_last_of_revision = place == len(changes) or changes[place].revision > change.revision
        if is_last_of_revision and unused and rng.random() < 0.3:
            memo = encode_memo(Memo(rng.randbytes(8), DeletedEntries(rng.randrange(9), change.revision)))
            batch.append(Receipt(unused.pop(), memo, change.revision, now + TTL))
    ended = [request for request in unused if request in before.receipts]
    if ended and rng.random() < 0.2:
        revision = batch[-1].revision + 1
        batch += [ReceiptEnd(request, revision) for request in ended[: rng.randint(1, len(ended))]]
    return batch


def try_commit(driver: Driver, changes: Sequence[Change], way: str) -> ServiceError | None:
    """Commit exactly these changes. Returns the refusal."""
    assert isinstance(driver.space, FileSpace)
    set_pace(driver.space, isolated=way == QUIET)
    touched = Touched({ENTRY: [change.name for change in changes]})
    return driver.decide_and_commit(touched, lambda _view, _revision, _now: changes)


# Sizes --------------------------------------------------------------------------------------------------------


@contextmanager
def small_sizes(rng: random.Random) -> Iterator[None]:
    """Small limits, because there are many runs: a few entries make a store large, and fill a chunk or a block."""
    with ExitStack() as stack:
        for module, name, size in (
            (journal, "FIRST_CHUNK_BYTES", 4 * KIB),
            (journal, "CHUNK_BYTES", 8 * KIB),
            (reserve, "RESERVE_BYTES", 0),
            (ownership, "RECENT_NANOSECONDS", 0),  # otherwise the time would decide which operations happen
            (policy, "SMALL_STORE_BYTES", rng.choice([1, 3, 6]) * KIB),
            (policy, "MIN_JOURNAL_BYTES", rng.choice([6, 12, 1000]) * KIB),
            (policy, "MAX_LAST_CHECKPOINT_BYTES", rng.choice([2, 1000]) * KIB),
            (snapshot, "CHUNK_BYTES", rng.choice([1, 300, 100_000])),
            (snapshot, "BLOCK_BYTES", rng.choice([256, 1024, 512 * KIB])),
        ):
            stack.enter_context(patch.object(module, name, size))
        yield
