"""Moves a whole store into an empty one, of the same or another engine.

Everything goes along, of all namespaces: the records of all kinds, also expired ones; the removals that are still
known; the head, the compacted revision and the incarnation; the quota. So the history, ETags, fencing tokens and leases
stay valid. Of a namespace that was deleted, the revision goes along, so that no token is given out twice. What an
engine derives from these, such as the table `batches`, it makes anew. A kind that is added later needs no change here.

No service may use either store meanwhile. Opening a source or a target keeps all services away until it is closed, and
fails if one is running. The target gets its content in one step, `Target.publish`, after everything that was written
was read back and compared. So if the process is killed at any point, the source is unchanged, and the target is either
empty or complete.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import cache
from typing import Final, NamedTuple, Protocol

import msgspec
from msgspec.structs import replace

from leasehold.engines.file.fields import JSON, names_of
from leasehold.engines.state import Description
from leasehold.errors import ServiceError, unavailable
from leasehold.model import KINDS, AnyKind, Binary, Record, Value, storable
from leasehold.namespaces import DEFAULT_NAMESPACE
from leasehold.progress import Progress
from leasehold.values import decode

Form = Callable[[Record], bytes]
"""Encodes a record for the digest."""

_encode: Final = msgspec.msgpack.Encoder(enc_hook=storable).encode
_encode_sorted: Final = msgspec.json.Encoder(order="sorted").encode


class Head(msgspec.Struct, frozen=True):
    """What the space of a namespace has beside its records. Changes up to `compacted_revision` are not known."""

    incarnation: str
    revision: int
    compacted_revision: int


class RemovedName(NamedTuple):
    """A name that was removed at this revision and does not exist now."""

    name: str
    revision: int


class SpaceSource(Protocol):
    """The space of a namespace at one moment, which no service can use."""

    @property
    def head(self) -> Head:
        """The head of the space."""

    async def count(self, kind: AnyKind) -> int:
        """The number of records. For the display of progress only."""

    def records(self, kind: AnyKind) -> AsyncGenerator[Sequence[Record]]:
        """All records in the order of the UTF-8 bytes of their names, expired ones included.

        A page has a limited number of records, and the memory that they take is limited if the engine does not keep all
        records in memory. The caller must close the generator.
        """

    def removals(self, kind: AnyKind) -> AsyncGenerator[Sequence[RemovedName]]:
        """All removals after the compacted revision, in the order of the UTF-8 bytes of their names, in pages."""


class SpaceTarget(SpaceSource, Protocol):
    """A space that is filled. Until `Target.write`, the methods of SpaceSource read what it had before."""

    async def add(self, kind: AnyKind, records: Sequence[Record]) -> None:
        """Add records. No name comes twice."""

    async def add_removals(self, kind: AnyKind, removals: Sequence[RemovedName]) -> None:
        """Add removals. No name comes twice, and none has a record."""


class Source(Protocol):
    """A store at one moment, which no service can use."""

    @property
    def namespaces(self) -> Mapping[str, Description]:
        """All namespaces, with `default` and those that were deleted, in the order of their names."""

    def space(self, namespace: str) -> SpaceSource:
        """The space of a namespace that exists."""


class Target(Protocol):
    """A store that is filled. Until `write`, `namespaces` is what it had before; then, what was written."""

    is_empty: bool
    """Nothing was ever written. Otherwise only what Source has may be called."""

    @property
    def namespaces(self) -> Mapping[str, Description]:
        """See Source."""

    def space(self, namespace: str) -> SpaceTarget:
        """The space of a namespace, which need not exist yet."""

    async def write(self, namespaces: Mapping[str, Description], heads: Mapping[str, Head]) -> None:
        """Complete what was added, in a place where no service sees it. `heads`: those of the spaces."""

    async def publish(self) -> None:
        """Make it the content of the store, durably and in one step. Raises `unavailable` if that may not be done."""


class KindSummary(msgspec.Struct, frozen=True):
    """The records and removals of a kind: their numbers, and a digest of them. Equal values have equal digests."""

    records: int
    removals: int
    digest: str


class SpaceSummary(msgspec.Struct, frozen=True):
    """The whole of a space. `kinds` has the summaries by `Kind.plural`."""

    head: Head
    kinds: dict[str, KindSummary]


class Summary(msgspec.Struct, frozen=True):
    """The whole of a store. `spaces` are those of the namespaces that exist."""

    namespaces: Mapping[str, Description]
    spaces: dict[str, SpaceSummary]

    @property
    def heads(self) -> Mapping[str, Head]:
        """The heads of the spaces."""
        return {name: space.head for name, space in self.spaces.items()}

    def records(self, plural: str) -> int:
        """The number of records of a kind in all namespaces."""
        return sum(space.kinds[plural].records for space in self.spaces.values())


class Moved(msgspec.Struct, frozen=True):
    """The result of a move. `was_complete`: the target had everything already, from a move that was interrupted."""

    summary: Summary
    was_complete: bool


async def move(source: Source, target: Target, progress: Progress) -> Moved:
    """Fill an empty target with everything in `source`, compare, and publish it.

    A target that has all of it already is only compared. Any other target that is not empty is refused. Raises
    ServiceError; then the target is as it was, unless the message says that this is unknown.
    """
    if not target.is_empty:
        if target.namespaces == source.namespaces and _heads(target) == _heads(source):
            before = await _summary(target, progress)
            if before == await _summary(source, progress):
                return Moved(before, was_complete=True)
        raise unavailable("the target is not empty; nothing was changed")
    copied = await _summary(source, progress, into=target)
    progress.begin("writing")
    await target.write(copied.namespaces, copied.heads)
    written = await _summary(target, progress)
    if written != copied:
        raise unavailable("the target does not hold what was written to it; nothing was changed")
    progress.begin("making it durable")
    await target.publish()
    return Moved(copied, was_complete=False)


def _existing(store: Source | Target) -> Sequence[str]:
    """The names of the namespaces that were not deleted."""
    return [name for name, description in store.namespaces.items() if not description.is_deleted]


def _heads(store: Source | Target) -> Mapping[str, Head]:
    return {name: store.space(name).head for name in _existing(store)}


async def _summary(store: Source | Target, progress: Progress, *, into: Target | None = None) -> Summary:
    """Read a whole store. Everything that is read is also added to `into`."""
    spaces = {
        name: await _summary_of_space(store.space(name), name, progress, None if into is None else into.space(name))
        for name in _existing(store)
    }
    return Summary(store.namespaces, spaces)


async def _summary_of_space(
    space: SpaceSource, namespace: str, progress: Progress, into: SpaceTarget | None
) -> SpaceSummary:
    """Read a whole space. Everything that is read is also added to `into`."""
    of_others = "" if namespace == DEFAULT_NAMESPACE else f" of {namespace}"
    kinds = {}
    for kind in KINDS:
        step = f"{'comparing' if into is None else 'copying'} {kind.plural}{of_others}"
        progress.begin(step, await space.count(kind), kind.plural)
        digest, form = hashlib.sha256(), form_of(kind)
        records = removals = 0
        async with aclosing(space.records(kind)) as pages:
            async for page in pages:
                for record in page:
                    digest.update(form(record))
                if into is not None:
                    await into.add(kind, page)
                records += len(page)
                progress.done = records
                await asyncio.sleep(0)  # so that the progress is shown; a store in memory never waits
        async with aclosing(space.removals(kind)) as removed:
            async for names in removed:
                for name in names:
                    digest.update(_encode(name))
                if into is not None:
                    await into.add_removals(kind, names)
                removals += len(names)
        kinds[kind.plural] = KindSummary(records, removals, digest.hexdigest())
    return SpaceSummary(space.head, kinds)


@cache
def form_of(kind: AnyKind) -> Form:
    """How records of a kind are encoded for the digest. Records with equal JSON values are encoded equally.

    PostgreSQL orders the members of an object in its own way. Raises `unavailable` for a value that cannot be read.
    """
    texts = names_of(kind.record, JSON)

    def form(record: Record) -> bytes:
        try:
            return _encode(replace(record, **{name: _ordered(getattr(record, name)) for name in texts}))
        except ServiceError as error:
            reason = "has a value that cannot be read: write or delete it, then begin again"
            raise unavailable(f"the {kind.name} {record.name!r} {reason}") from error

    return form


def _ordered(value: Value) -> Value:
    """The same JSON value as text in which the members of objects are sorted. Bytes are returned as they are."""
    return value if isinstance(value, Binary) else _encode_sorted(decode(value))
