"""Whether a whole history is linearizable, checked by the revisions in its answers in O(n log n).

Revisions order all changes of the store, so no search is needed. Each change has its place at its revision, and the
changes of one key form its chain of states. Then every answer must fit. `floor` is the largest revision that any answer
contained when an operation began: the operation must not see an older state. It must also not see changes that began
after it ended.

A change without an answer gets its place once a read has shown its state. One that still has no place may explain any
revision that no other change has taken, and each explains at most one.
"""

import itertools
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable
from functools import partial

from harness.histories import Change, History, Loss, Sight, Value

Place = tuple[int, Change | None]
"""A revision of a key and the change that made it. None: only the revision was seen, so a state exists there."""


def faults_by_revisions(history: History, head: int) -> list[str]:
    """The contradictions in a history. `head`: the revision of the store at its end."""
    ledger = _Ledger(history, head)
    ledger.place_answered()
    ledger.place_seen()
    ledger.chain()
    ledger.sweep()
    ledger.check_changes()
    ledger.check_losses()
    ledger.check_parts()
    ledger.check_nothing_is_invented()
    return ledger.faults


class _Ledger:
    def __init__(self, history: History, head: int) -> None:
        self.faults: list[str] = []
        self._history = history
        self._head = head
        self._by_mark = {change.mark: change for change in history.changes if change.mark}
        self._by_revision: dict[int, Change] = {}
        self._states: dict[tuple[str, int], Value] = {}
        """The value of a key at a revision, as a client saw it."""
        self._unnamed: dict[str, set[int]] = defaultdict(set)
        """Revisions of a key that were seen without their value and belong to no known change."""
        self._revisions: dict[str, list[int]] = {}
        self._chains: dict[str, list[Change | None]] = {}
        self._doubtful: dict[str, list[Change]] = defaultdict(list)
        """The changes of each key that may have happened or not."""
        self._unclaimed: list[range] = []
        """Revisions that no other change took. There may be millions: a server that doubts its revision skips many."""

    # Each change at its revision ------------------------------------------------------------------------------

    def place_answered(self) -> None:
        for change in self._history.changes:
            if change.ended is not None:
                self._place(change, change.revision)

    def place_seen(self) -> None:
        """Place changes by what was read. Values come first, because they identify the change."""
        for sight in self._history.sights:
            if sight.value is not None:
                self._place_value(sight, sight.value)
        for sight in self._history.sights:
            if sight.value is None and sight.revision is not None:
                self._place_revision(sight, sight.revision)

    def _place_value(self, sight: Sight, value: Value) -> None:
        whole, part = value
        made_by = self._by_mark.get(part or whole or "")
        if made_by is None or made_by.key != sight.key:
            self.faults.append(f"{sight}, which no client wrote")
            return
        if sight.revision is None:
            sight.revision = made_by.revision
            return
        if made_by.revision is None:
            self._place(made_by, sight.revision)
        elif made_by.revision != sight.revision:
            self.faults.append(f"{sight}, but it was written at {made_by.revision}")
        if self._states.setdefault((sight.key, sight.revision), value) != value:
            self.faults.append(f"{sight}, which was {self._states[sight.key, sight.revision]} at another time")

    def _place_revision(self, sight: Sight, revision: int) -> None:
        made_by = self._by_revision.get(revision)
        if made_by is None:
            self._unnamed[sight.key].add(revision)
        elif made_by.key != sight.key or not made_by.leaves_something:
            self.faults.append(f"{sight}, where there was {made_by}")

    def _place(self, change: Change, revision: int | None) -> None:
        assert revision is not None
        other = self._by_revision.setdefault(revision, change)
        if other is not change:
            self.faults.append(f"{change} and {other} have the same revision {revision}")
        change.revision = revision

    def chain(self) -> None:
        base, head = self._history.base, self._head
        claimed = sorted(revision for revision in self._by_revision if base < revision <= head)
        self._unclaimed = [
            range(before + 1, after)
            for before, after in itertools.pairwise((base, *claimed, head + 1))
            if after - before > 1
        ]
        chains: dict[str, list[Place]] = defaultdict(list)
        for change in self._history.changes:
            if change.revision is None:
                self._doubtful[change.key].append(change)
            else:
                chains[change.key].append((change.revision, change))
        for key, revisions in self._unnamed.items():
            chains[key] += [(revision, None) for revision in revisions]
            for revision in revisions:
                if not self._may_have(key, lambda each: each.leaves_something, revision - 1, revision + 1):
                    self.faults.append(f"{key} was seen at {revision}, a revision that no client wrote")
        for key, places in chains.items():
            places.sort(key=lambda place: place[0])
            self._revisions[key] = [revision for revision, _ in places]
            self._chains[key] = [change for _, change in places]

    def _may_have(
        self, key: str, is_such: Callable[[Change], bool], above: int, below: int, *, until: int | None = None
    ) -> bool:
        """Whether a change without an answer, begun before `until`, could explain it between two revisions."""
        last = self._last_unclaimed(below)
        if last <= above:
            return False
        return any(
            each.floor < last and is_such(each) and (until is None or each.began < until)
            for each in self._doubtful.get(key, ())
        )

    def _last_unclaimed(self, below: int) -> int:
        """The largest revision below this one that no other change took; 0 if there is none."""
        place = bisect_left(self._unclaimed, below, key=lambda gap: gap.start) - 1
        return min(self._unclaimed[place][-1], below - 1) if place >= 0 else 0

    def _before(self, key: str, revision: int) -> tuple[int, bool]:
        """The last revision of `key` below `revision`, and whether a state existed there."""
        place = bisect_left(self._revisions.get(key, ()), revision) - 1
        return self._at(key, place)

    def _at(self, key: str, place: int) -> tuple[int, bool]:
        if place < 0:
            return 0, False
        change = self._chains[key][place]
        return self._revisions[key][place], change is None or change.leaves_something

    # Real time ------------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Go through all beginnings and ends in order, with the largest revision known at each.

        An operation that begins at the moment another ends counts as concurrent.
        """
        operations = self._history.told
        events = [(each.began, 0, number) for number, each in enumerate(operations)]
        events += [(each.ended, 1, number) for number, each in enumerate(operations) if each.ended is not None]
        events.sort()
        known = self._history.base
        for _, is_end, number in events:
            operation = operations[number]
            if not is_end:
                operation.floor = known
            elif isinstance(operation, Sight):
                known = max(known, self._revealed_by(operation))
            else:
                assert operation.revision is not None
                known = max(known, operation.revision)

    def _revealed_by(self, sight: Sight) -> int:
        """Check a sight. Returns the largest revision that it contains."""
        if sight.head and sight.head < sight.floor:
            self.faults.append(f"a list is of revision {sight.head} when {sight.floor} was known")
        floor = max(sight.floor, sight.head)
        if sight.revision is None:
            return max(floor, self._told_by_presence(sight, floor))
        revisions = self._revisions.get(sight.key, [])
        place = bisect_right(revisions, sight.revision)
        if place < len(revisions) and revisions[place] <= floor:
            self.faults.append(f"{sight} is stale: it changed at {revisions[place]}, and {floor} was known")
        made_by = self._by_revision.get(sight.revision)
        if made_by is not None and made_by.began >= sight.ended:
            self.faults.append(f"{sight} was seen before it was written")
        return max(floor, sight.revision)

    def _told_by_presence(self, sight: Sight, floor: int) -> int:
        """Check a sight that only says whether a state existed: find the first such state from `floor` on."""
        revisions = self._revisions.get(sight.key, [])
        place = bisect_right(revisions, floor) - 1
        if self._at(sight.key, place)[1] == sight.is_there:
            return 0
        since = revisions[place] if place >= 0 else 0
        # A change that began after the sight is later, and so are all with larger revisions.
        reach, told = self._head + 1, 0
        for later in range(place + 1, len(revisions)):
            made_by = self._chains[sight.key][later]
            if made_by is not None and made_by.began >= sight.ended:
                reach = revisions[later]
                break
            if not told and self._at(sight.key, later)[1] == sight.is_there:
                told = revisions[later]
        fits = partial(_leaves, sight.is_there)
        if self._may_have(sight.key, fits, since, told or reach, until=sight.ended):
            return 0
        if not told:
            self.faults.append(f"{sight}, which it was not between {floor} and its end")
        return told

    # Changes --------------------------------------------------------------------------------------------------

    def check_changes(self) -> None:
        for change in self._history.changes:
            if change.revision is not None:
                if change.revision <= change.floor:
                    self.faults.append(f"{change} is at {change.revision}, and {change.floor} was known before it")
                self._check_condition(change, change.revision)
                if change.fence is not None:
                    self._check_fence(change, change.revision, *change.fence)

    def _check_condition(self, change: Change, revision: int) -> None:
        before, was_there = self._before(change.key, revision)
        if isinstance(change.expected, int):
            if not was_there or before != change.expected:
                self.faults.append(f"{change} at {revision} was for {change.expected}, but it had changed at {before}")
            return
        needs = _needs_something(change)
        if needs is not None and needs != was_there:
            if self._may_have(change.key, lambda each: each.leaves_something == needs, before, revision):
                return
            what = "something" if needs else "nothing"
            self.faults.append(
                f"{change} at {revision} is reported to have found {what}, which is wrong since {before}"
            )

    def _check_fence(self, change: Change, revision: int, lock: str, token: int) -> None:
        """The lease must be alive at the change. It never expires here, so only its release ends it."""
        held, is_held = self._before(lock, revision)
        if not is_held or held != token:
            self.faults.append(f"{change} at {revision} was under the lease {token}, over since {held}")

    def check_losses(self) -> None:
        for loss in self._history.losses:
            if not self._may_be_lost(loss):
                self.faults.append(
                    f"the lease {loss.token} of {loss.lock} was called lost, and no client had released it"
                )

    def _may_be_lost(self, loss: Loss) -> bool:
        place = bisect_right(self._revisions.get(loss.lock, ()), loss.token)
        ends = self._chains.get(loss.lock, [])[place : place + 1]
        if any(end is not None and end.began < loss.ended for end in ends):
            return True
        below = self._head + 1
        return self._may_have(loss.lock, lambda each: not each.leaves_something, loss.token, below, until=loss.ended)

    def check_parts(self) -> None:
        """A partial write keeps the rest of the value: follow the chain of each key to the whole that it was written
        into."""
        for key, chain in self._chains.items():
            whole: str | None = None
            since = 0  # this value is known
            for revision, change in zip(self._revisions[key], chain, strict=True):
                if change is not None and (change.kind != "part" or change.found is False):
                    whole, since = change.mark if change.kind == "whole" else None, revision
                seen = self._states.get((key, revision))
                if seen is None:
                    continue
                if seen[0] != whole and not self._may_have(key, partial(_leaves_whole, seen[0]), since, revision):
                    self.faults.append(f"{key} is {seen} at {revision}, on top of {whole}")
                whole, since = seen[0], revision

    def check_nothing_is_invented(self) -> None:
        """Each revision was taken by a change that a client sent; one without an answer takes at most one."""
        if self._by_revision and max(self._by_revision) > self._head:
            self.faults.append(f"the head is {self._head} at the end, and {max(self._by_revision)} was known")
        doubtful = sorted(each.floor for changes in self._doubtful.values() for each in changes)
        for count, revision in enumerate(itertools.chain.from_iterable(self._unclaimed), start=1):
            if count > bisect_left(doubtful, revision):
                self.faults.append(f"revision {revision} was taken by a change that no client sent, or by two")
                return


def _needs_something(change: Change) -> bool | None:
    """Whether the change requires that a state exists, or that none exists."""
    if change.expected is not None:
        return change.expected == "present"
    return True if change.kind == "removal" else change.found


def _leaves(is_there: bool, change: Change) -> bool:  # noqa: FBT001 - bound by position
    return change.leaves_something == is_there


def _leaves_whole(whole: str | None, change: Change) -> bool:
    return change.kind == "removal" if whole is None else change.mark == whole
