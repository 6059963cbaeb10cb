"""The answers that clients of a service got, and whether the store agrees with them.

Each write was done, was not done, or has an unknown outcome (503 "may or may not have been stored"). A write that was
done is stored exactly once; one that was not done is not stored; the others may be stored, but not twice.

Many threads use a ledger at the same time. `changed` guards all of it.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Outcome = Literal["done", "not done", "unknown"]

FIGURES: Final[Mapping[Outcome, str]] = {
    "done": "acknowledged writes",
    "not done": "refused writes",
    "unknown": "unknown outcomes",
}
WAIT_SECONDS: Final = 60.0


@dataclass
class Tally:
    """The increments of a counter."""

    done: int = 0
    unknown: int = 0


@dataclass
class Ledger:
    changed: threading.Condition = field(default_factory=threading.Condition)
    violations: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)
    under_way: int = 0
    """Writes without an answer yet."""
    done: list[int] = field(default_factory=list)
    """Writes that were done, by client."""
    revisions: set[int] = field(default_factory=set)
    """The revisions of all answers to writes. No two may be equal."""
    last_revision: int = 0
    last_tokens: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    entry_revisions: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """The last known revision of each entry."""
    appends: dict[str, dict[str, Outcome]] = field(default_factory=lambda: defaultdict(dict))
    """Elements by the list to which they were appended. Each element is appended by one request only."""
    appended_at: dict[str, int] = field(default_factory=dict)
    """The revisions of elements."""
    counters: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    created: dict[str, set[str | None]] = field(default_factory=dict)
    """The possible values of entries that a single client creates and deletes; None is absent."""
    holders: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Who certainly holds a lock, and until when by the clock of this process."""

    # While clients are at work ------------------------------------------------------------------------------------

    def begin(self) -> int:
        """Note that a write is sent. Returns the last known revision; the revision of the write will be larger."""
        with self.changed:
            self.under_way += 1
            return self.last_revision

    def last_told(self) -> int:
        with self.changed:
            return self.last_revision

    def end(self, client: int, outcome: Outcome, begun_at: int, revision: int | None) -> None:
        """Note the answer to a write, with its revision if it was done."""
        with self.changed:
            self.under_way -= 1
            self.figures[FIGURES[outcome]] += 1
            if outcome == "done":
                assert revision is not None
                if revision in self.revisions:
                    self.violations.append(f"two changes got the revision {revision}")
                if revision <= begun_at:
                    self.violations.append(f"revision {revision} was given although {begun_at} was known before")
                self.revisions.add(revision)
                self.last_revision = max(self.last_revision, revision)
                self.done[client] += 1
            self.changed.notify_all()

    def fault(self, what: str) -> None:
        with self.changed:
            self.violations.append(what)

    def expect(self, *, that: bool, otherwise: str) -> None:
        if not that:
            self.fault(otherwise)

    def append(self, key: str, element: str, outcome: Outcome, revision: int | None) -> None:
        with self.changed:
            self.appends[key][element] = outcome
            if outcome == "done" and revision is not None:
                self.appended_at[element] = revision

    def count(self, key: str, outcome: Outcome) -> None:
        with self.changed:
            tally = self.counters[key]
            tally.done += outcome == "done"
            tally.unknown += outcome == "unknown"

    def saw(self, key: str, revision: int) -> None:
        """Note that an entry was written or read at a revision."""
        with self.changed:
            self.entry_revisions[key] = max(self.entry_revisions[key], revision)

    def last_seen(self, key: str) -> int:
        """The smallest revision at which an entry may be read now."""
        with self.changed:
            return self.entry_revisions[key]

    def create(self, key: str, value: str, outcome: Outcome) -> None:
        possible: dict[Outcome, set[str | None]] = {"done": {value}, "not done": {None}, "unknown": {value, None}}
        with self.changed:
            self.created[key] = possible[outcome]

    def delete(self, key: str, outcome: Outcome) -> None:
        with self.changed:
            if outcome == "done":
                self.created[key] = {None}
            elif outcome == "unknown":
                self.created[key].add(None)

    def hold(self, lock: str, lease_id: str, token: int, last_token: int, now: float, until: float) -> None:
        """Note a granted lease. `last_token`: the last known token of the lock at the time of the request."""
        with self.changed:
            if token <= last_token:
                self.violations.append(f"{lock} has the token {token} after {last_token}")
            _, ends_at = self.holders.get(lock, ("", 0.0))
            if now < ends_at:
                self.violations.append(f"{lock} was given while another lease on it was alive")
            self.holders[lock] = (lease_id, until)
            self.last_tokens[lock] = max(self.last_tokens[lock], token)

    def last_token(self, lock: str) -> int:
        with self.changed:
            return self.last_tokens[lock]

    def let_go(self, lock: str, lease_id: str) -> None:
        """Note that a lease is about to be released."""
        with self.changed:
            if self.holders.get(lock, ("", 0.0))[0] == lease_id:
                del self.holders[lock]

    def wait_for_writes(self, count: int) -> None:
        """Wait until this many more writes are done."""
        with self.changed:
            enough = sum(self.done) + count
            assert self.changed.wait_for(lambda: sum(self.done) >= enough, WAIT_SECONDS), "the clients do not write"

    def wait_for_all(self, seconds: float) -> list[int]:
        """Wait until each client has done another write. Returns those that took too long."""
        with self.changed:
            before = list(self.done)

            def waiting() -> list[int]:
                return [number for number, done in enumerate(self.done) if done <= before[number]]

            self.changed.wait_for(lambda: not waiting(), seconds)
            return waiting()

    # When they have ended -----------------------------------------------------------------------------------------

    def differences(self, entries: Mapping[str, Any]) -> list[str]:
        """Where the values in the store differ from the answers to the clients."""
        return [
            *self._of_lists(entries),
            *self._of_counters(entries),
            *self._of_created(entries),
            *(f"{key}, which no client knows" for key in sorted(entries.keys() - self._known())),
        ]

    def _known(self) -> set[str]:
        return self.appends.keys() | self.counters.keys() | self.created.keys()

    def _of_lists(self, entries: Mapping[str, Any]) -> list[str]:
        found = []
        for key, outcomes in self.appends.items():
            elements = entries.get(key, [])
            times = Counter(elements)
            for element, outcome in outcomes.items():
                if outcome == "done" and times[element] == 0:
                    found.append(f"lost: {element} of {key}, which was acknowledged")
                if outcome == "not done" and times[element] > 0:
                    found.append(f"{element} of {key} is stored although it was reported as not stored")
                if times[element] > 1:
                    found.append(f"twice: {element} of {key}, whose outcome was reported as {outcome}")
            found += [f"{element} of {key}, which no client wrote" for element in times.keys() - outcomes.keys()]
            revisions = [self.appended_at[element] for element in elements if element in self.appended_at]
            if revisions != sorted(revisions):
                found.append(f"{key} is not in the order of the revisions")
        return found

    def _of_counters(self, entries: Mapping[str, Any]) -> list[str]:
        return [
            f"{key} is {entries.get(key, 0)}; {tally.done} increments were acknowledged, {tally.unknown} are in doubt"
            for key, tally in self.counters.items()
            if not tally.done <= entries.get(key, 0) <= tally.done + tally.unknown
        ]

    def _of_created(self, entries: Mapping[str, Any]) -> list[str]:
        return [
            f"{key} is {entries.get(key)}, which can only be one of {sorted(map(str, possible))}"
            for key, possible in self.created.items()
            if entries.get(key) not in possible
        ]
