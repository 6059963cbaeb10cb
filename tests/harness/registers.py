"""Whether the history of one key is linearizable, checked by the search of Wing and Gong in the form of Lowe.

The operations of a key are followed in time. At each moment there is a set of worlds: a state that the key may have,
and the operations in progress that have not taken effect in it. An operation must take effect before its end. Others in
progress may take effect before it; each world in which this is possible continues. If no world is left, no order of the
operations explains the answers. This check shares no code and no reasoning with `revisions`.

A window ends where no operation is in progress: only the worlds continue into the next one. In practice worlds differ
little, because the answers contain revisions. STEPS bounds the work. A window that exceeds it is undecided, which
counts as a violation.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.histories import Change, History, Sight

STEPS = 100_000
"""A window takes hundreds of steps; the largest number seen is a thousand."""


class State(NamedTuple):
    """`revision` is that of the last change, or a lower bound if no answer contains it (`is_exact`)."""

    revision: int
    is_exact: bool = True
    is_there: bool = False
    whole: str | None = None
    part: str | None = None


World = tuple[State, frozenset[int]]
"""A state, and the operations in progress that have not taken effect."""


@dataclass
class Searched:
    windows: int = 0
    steps: int = 0
    faults: list[str] = field(default_factory=list)


def search(history: History) -> Searched:
    """Search each key and lock separately."""
    operations: dict[str, list[Change | Sight]] = defaultdict(list)
    for each in history.told:
        operations[each.key].append(each)
    result = Searched()
    for key, of_key in operations.items():
        _Search(key, of_key, result).run(State(history.base))
    return result


class _TooManyStepsError(Exception):
    pass


class _Search:
    def __init__(self, key: str, operations: Sequence[Change | Sight], result: Searched) -> None:
        self._key = key
        self._operations = operations
        self._result = result
        self._steps = 0
        self._uncertain = frozenset(number for number, each in enumerate(operations) if each.ended is None)
        self._answered = {
            number: each.revision
            for number, each in enumerate(operations)
            if isinstance(each, Change) and each.ended is not None and each.revision is not None
        }
        self._told = dict(_told_revisions(operations))
        """Revisions of states that a client saw, by the mark of the change that made them."""
        shown = {mark for each in operations if isinstance(each, Sight) for mark in each.value or ()}
        self._ghostly = frozenset(
            number
            for number, each in enumerate(operations)
            if isinstance(each, Change) and each.ended is None and each.mark not in shown
        )
        """Changes without an answer whose value was never seen. A ghost takes effect, if at all, directly before the
        operation that needs it: earlier, no answer could show it."""

    def run(self, start: State) -> None:
        events = [(each.began, 0, number) for number, each in enumerate(self._operations)]
        events += [(each.ended, 1, number) for number, each in enumerate(self._operations) if each.ended is not None]
        events.sort()
        worlds: set[World] = {(start, frozenset())}
        pending = 0
        for _, is_end, number in events:
            if not is_end:
                pending += number not in self._uncertain
                worlds = {self._with_sights(state, waiting | {number}, (number,)) for state, waiting in worlds}
                continue
            try:
                worlds = self._best(self._ended(worlds, number))
            except _TooManyStepsError:
                self._result.faults.append(f"{self._key}: undecided after {STEPS} steps")
                return
            if not worlds:
                self._result.faults.append(f"{self._key}: no order of operations explains {self._operations[number]}")
                return
            pending -= 1
            if not pending:
                self._result.windows += 1
                self._result.steps += self._steps
                self._steps = 0

    def _ended(self, worlds: Iterable[World], number: int) -> set[World]:
        """The worlds in which this operation has taken effect."""
        done: set[World] = set()
        seen = set(worlds)
        ahead = list(seen)
        while ahead:
            world = ahead.pop()
            if number not in world[1]:
                done.add(world)
                continue
            for following in self._following(world):
                if following not in seen:
                    seen.add(following)
                    ahead.append(following)
        return done

    def _following(self, world: World) -> Iterator[World]:
        """The worlds after one more operation has taken effect, or a ghost and the operation that needs it."""
        state, waiting = world
        ghosts = self._ghosts(waiting)
        for number in waiting:
            operation = self._operations[number]
            if number in self._ghostly:
                continue
            after = self._effect(state, operation)
            if after is not None and self._may_go_on(after, waiting - {number}):
                yield self._with_sights(after, waiting - {number}, waiting)
            if after is None or number in self._uncertain or _is_part(operation):
                for used, haunted in self._haunted(state, ghosts, operation):
                    if self._may_go_on(haunted, waiting - {number}):
                        yield self._with_sights(haunted, waiting.difference(used, (number,)), waiting)

    def _may_go_on(self, state: State, waiting: frozenset[int]) -> bool:
        """Whether no operation is left behind that has certainly taken effect at an earlier revision."""
        return not any(state.revision >= self._answered.get(number, state.revision + 1) for number in waiting)

    def _ghosts(self, waiting: frozenset[int]) -> list[int]:
        """The ghosts that may take effect, one of each kind, because those of a kind are equivalent."""
        alike = {}
        for number in waiting & self._ghostly:
            ghost = self._operations[number]
            assert isinstance(ghost, Change)
            alike[ghost.kind, ghost.expected] = number
        return list(alike.values())

    def _haunted(
        self, state: State, ghosts: Sequence[int], operation: Change | Sight
    ) -> Iterator[tuple[tuple[int, ...], State]]:
        """The states after ghosts and `operation`, if the ghosts make a difference to it.

        A ghost removes a state, creates one, or explains a revision whose value was never seen; two of them remove the
        whole under a part.
        """
        is_unnamed = isinstance(operation, Sight) and operation.value is None and operation.revision is not None
        for first in ghosts:
            ghost = self._operations[first]
            assert isinstance(ghost, Change)
            if ghost.leaves_something and state.is_there and not is_unnamed:
                continue
            between = self._effect(state, ghost)
            if between is None:
                continue
            after = self._effect(between, operation)
            if after is not None:
                yield (first,), after
            if ghost.kind == "removal" and (is_unnamed or _is_part(operation)):
                for second in ghosts:
                    another = self._effect(between, self._operations[second])
                    if another is not None and (after := self._effect(another, operation)) is not None:
                        yield (first, second), after

    def _effect(self, state: State, operation: Change | Sight) -> State | None:
        self._steps += 1
        if self._steps > STEPS:
            raise _TooManyStepsError
        if isinstance(operation, Sight):
            return _seen(state, operation)
        return _changed(state, operation, self._told.get(operation.mark))

    def _with_sights(self, state: State, waiting: frozenset[int], among: Iterable[int]) -> World:
        """The worlds in which every read that can take effect now has done so. Waiting would not help the read or other
        operations."""
        looked = []
        for number in among:
            sight = self._operations[number]
            if not isinstance(sight, Sight) or number not in waiting:
                continue
            after = _seen(state, sight)
            # A revision that came without a value could be this state. That is a guess, which `_following` makes.
            if after == state or (after is not None and sight.value is not None):
                state = after
                looked.append(number)
        return state, waiting.difference(looked)

    def _best(self, worlds: set[World]) -> set[World]:
        """Remove worlds whose continuations are all possible from another world, too.

        Of two worlds with the same state, one has more unanswered changes that may still take effect.
        """
        if len(worlds) == 1:
            return worlds
        alike: dict[tuple[State, frozenset[int]], list[frozenset[int]]] = defaultdict(list)
        for state, waiting in worlds:
            alike[state, waiting - self._uncertain].append(waiting)
        return {
            (state, waiting)
            for (state, _), choices in alike.items()
            for waiting in choices
            if not any(waiting < other for other in choices)
        }


def _is_part(operation: Change | Sight) -> bool:
    return isinstance(operation, Change) and operation.kind == "part"


def _told_revisions(operations: Iterable[Change | Sight]) -> Iterator[tuple[str, int]]:
    for each in operations:
        if isinstance(each, Sight) and each.value is not None and each.revision is not None:
            yield each.value[1] or each.value[0] or "", each.revision


def _seen(state: State, sight: Sight) -> State | None:
    """The state, with an exact revision if the read returned one; None if the read contradicts it."""
    if state.is_there != sight.is_there:
        return None
    if sight.value is not None and sight.value != (state.whole, state.part):
        return None
    if sight.revision is None or (state.revision == sight.revision and state.is_exact):
        return state
    if state.is_exact or sight.revision < state.revision:
        return None
    return state._replace(revision=sight.revision, is_exact=True)


def _changed(state: State, change: Change, told: int | None) -> State | None:
    """The state after a change; None if the change would have been refused or answered differently."""
    revision = told if change.ended is None else change.revision
    if revision is not None and revision <= state.revision:
        return None
    if isinstance(change.expected, int):
        if not state.is_there or change.expected < state.revision:
            return None
        if state.is_exact and change.expected != state.revision:
            return None
    elif change.expected is not None and (change.expected == "present") != state.is_there:
        return None
    if change.found is not None and change.found != state.is_there:
        return None
    after = State(state.revision + 1, is_exact=False) if revision is None else State(revision)
    if change.kind == "removal":
        return after if state.is_there else None
    if change.kind == "whole":
        return after._replace(is_there=True, whole=change.mark)
    return after._replace(is_there=True, whole=state.whole, part=change.mark)
