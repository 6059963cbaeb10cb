"""Power cuts while namespaces are created, written, checkpointed and deleted: the store opens, and nothing is lost.

The simulated disk is that of `power_cuts`.
"""

import asyncio
import random
from collections.abc import Mapping
from contextlib import suppress

from structlog.testing import capture_logs
from volumes import Volume, in_state, put

from harness import Finding
from harness.power_cuts import DATA, FOLDER, MemoryDisk, PowerCutError
from leasehold.engines.file.namespaces import NamespacesSnapshot, StoredNamespaces
from leasehold.engines.file.storage import Storage
from leasehold.engines.state import StoredState, snapshot_of
from leasehold.errors import ServiceError
from leasehold.model import QuotaChange
from leasehold.namespaces import DEFAULT_NAMESPACE

NAMES = ("default", "a", "b", "c")
CUTS = 6
"""At each operation."""

Contents = Mapping[str, object]


def contents_in(state: StoredState, namespaces: StoredNamespaces) -> Contents:
    """As `Volume.contents`."""
    found: dict[str, object] = {DEFAULT_NAMESPACE: in_state(state)}
    for name, head in namespaces.heads.items():
        if name != DEFAULT_NAMESPACE:
            found[name] = head.revision if head.is_deleted else in_state(namespaces.states[name])
    return found


class Cuts:
    """Cuts the power at each operation, and starts from what is left. Each namespace has one of its allowed states."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self.allowed: dict[str, list[object]] = {"default": [(0, {})]}
        """By namespace. None: it does not exist and never has."""
        self.finding = Finding()

    def cut(self, disk: MemoryDisk) -> None:
        allowed = {name: list(states) for name, states in self.allowed.items()}
        for _ in range(CUTS):
            if self.finding.violations:  # the others are usually of the same kind
                return
            self.finding.figures["states"] += 1
            left = disk.after_kill() if self._chance.random() < 0.25 else disk.after_cut(self._chance)
            try:
                self._start_twice(left, allowed)
            except ServiceError as error:
                self.finding.violations.append(f"the start was refused: {error.message}")

    def _start_twice(self, disk: MemoryDisk, allowed: Mapping[str, list[object]]) -> None:
        disk.cut_at = self._chance.randrange(12)
        found: Contents | None = None
        with suppress(PowerCutError):
            storage = Storage(DATA, disk)
            state, namespaces = storage.open(0, lambda: "00000f")
            found = contents_in(state, namespaces)
            self._expect(found, allowed)
            self._bring_to_rest(storage, state, namespaces)
        disk.cut_at = -1
        again = contents_in(*Storage(DATA, disk.after_cut(self._chance)).open(0, lambda: "00000f"))
        self._expect(again, allowed if found is None else {name: [state] for name, state in found.items()})

    def _bring_to_rest(self, storage: Storage, state: StoredState, namespaces: StoredNamespaces) -> None:
        """The checkpoint of a start."""
        snapshots = {name: snapshot_of(each) for name, each in namespaces.states.items()}
        others = NamespacesSnapshot(namespaces.log, namespaces.sequence, namespaces.heads, snapshots)
        if storage.has_old_journal or storage.snapshot_revision < 0 or self._chance.random() < 0.5:
            storage.checkpoint_alone(snapshot_of(state), others if namespaces.sequence else None)
        else:
            storage.rotate()
            storage.checkpoint(snapshot_of(state), others if namespaces.sequence else None)

    def _expect(self, found: Contents, allowed: Mapping[str, list[object]]) -> None:
        for name in {*found, *allowed}:
            if found.get(name) not in allowed.get(name, [None]):
                self.finding.violations.append(f"{name} is {found.get(name)} instead of {allowed.get(name)}")


def live(disk: MemoryDisk, cuts: Cuts, rng: random.Random, life: int) -> None:
    """A process: changes of all kinds, several at a time; then a kill or a stop."""
    volume = Volume(FOLDER, disk=disk, first_incarnation=life * 1000 + 1).__enter__()
    disk.watcher = cuts  # type: ignore[assignment] # it has the method that is called
    for _ in range(rng.randint(4, 12)):
        if rng.random() < 0.25:
            volume.run(checkpoint(volume, rng))
        else:
            change(volume, cuts, rng)
    if rng.random() < 0.4:
        volume.__exit__(None, None, None)
    else:
        volume.kill()
    disk.watcher = None


async def checkpoint(volume: Volume, rng: random.Random) -> None:
    """A checkpoint, which may be under way during the next changes."""
    inside = volume.engine.volume
    if rng.random() < 0.5:
        await inside.checkpoint()
    elif inside.storage is not None:
        inside.start_checkpoint(inside.storage, rotates=rng.random() < 0.6)


def change(volume: Volume, cuts: Cuts, rng: random.Random) -> None:
    """Change one to three namespaces at the same time."""
    engine = volume.engine
    before = volume.contents()
    names = rng.sample(NAMES, rng.randint(1, 3))

    async def change_all() -> None:
        await asyncio.gather(*(change_one(name) for name in names))

    async def change_one(name: str) -> None:
        state = before.get(name)
        if not isinstance(state, tuple):
            revision = state or 0
            cuts.allowed[name] = [state, (revision, {})]
            await engine.create(name, QuotaChange(rng.choice((None, 100)), None))
            cuts.allowed[name] = [(revision, {})]
            return
        revision, values = state
        if name != DEFAULT_NAMESPACE and rng.random() < 0.25:
            cuts.allowed[name] = [state, revision + 1]
            await engine.delete(name)
            cuts.allowed[name] = [revision + 1]
            return
        key, value = rng.choice("xyz"), b"%d" % rng.randrange(100)
        removes = key in values and rng.random() < 0.3
        after = {each: values[each] for each in values if each != key} | ({} if removes else {key: value})
        cuts.allowed[name] = [state, (revision + 1, after)]
        assert await put(engine, engine.space(name), (key, None if removes else value)) is None
        cuts.allowed[name] = [(revision + 1, after)]

    volume.run(change_all())
    assert volume.contents() == {name: states[0] for name, states in cuts.allowed.items()}


def keep_namespaces(seed: int, *, lives: int) -> Finding:
    """Run this many processes one after another, and cut the power at each of their operations. Ends at a violation."""
    rng, cuts, disk = random.Random(seed), Cuts(seed + 1), MemoryDisk({})
    with capture_logs():
        for life in range(lives):
            live(disk, cuts, rng, life)
            if cuts.finding.violations:
                break
    return cuts.finding
