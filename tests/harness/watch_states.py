"""What one watcher knows after its events, and where the events contradict the promises of a watch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PAIR = "pair/"
"""Keys below it are changed by transactions only: `pair/N/a` and `pair/N/b` together."""

State = dict[str, tuple[int, Any]]
"""Revision and value, by key."""


@dataclass
class WatcherState:
    """The model of a client that keeps a copy of the store by its events."""

    name: str
    prefixes: tuple[str, ...]
    with_locks: bool
    with_snapshot: bool
    entries: State = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    """Of the locks that are held."""
    cursor: int | None = None
    faults: list[str] = field(default_factory=list)
    events: int = 0
    resets: int = 0
    _resumes_at: int | None = None
    _is_ready: bool = False
    _revision: int = 0
    """Of the last event."""
    _unfinished: list[str] = field(default_factory=list)
    """The keys of the revision that has had no id yet."""

    def connect(self) -> None:
        """A new response begins, from `cursor` on."""
        self._resumes_at, self._is_ready, self._unfinished = self.cursor, False, []
        if self.cursor is None:
            self.entries.clear()
            self.tokens.clear()

    def take(self, event: Mapping[str, Any]) -> None:
        self.events += 1
        name, data, cursor = event["event"], event["data"], event.get("id")
        if name == "reset":
            self._reset(cursor)
        elif name == "ready":
            self._ready(data["revision"], cursor)
        elif name == "progress":
            self._progress(data["revision"], cursor)
        elif name != "end":
            self._change(name, data, cursor)

    def _fault(self, text: str) -> None:
        self.faults.append(f"{self.name}: {text}")

    def _reset(self, cursor: int | None) -> None:
        self.resets += 1
        if not self.with_snapshot or cursor is not None or self._is_ready:
            self._fault("a reset that was not due")
        self.entries.clear()
        self.tokens.clear()
        self.cursor = self._resumes_at = None

    def _ready(self, revision: int, cursor: int | None) -> None:
        if cursor != revision or self._is_ready:
            self._fault(f"ready at {revision} has the id {cursor}")
        if self._resumes_at is not None and revision != self._resumes_at:
            self._fault(f"resumed at {revision} instead of {self._resumes_at}")
        self._is_ready, self.cursor, self._revision = True, revision, revision

    def _progress(self, revision: int, cursor: int | None) -> None:
        if cursor != revision or not self._is_ready or self.cursor is None:
            self._fault(f"progress at {revision} has the id {cursor}")
            return
        if revision < self.cursor or self._unfinished:
            self._fault(f"progress at {revision} after {self._revision}")
        self.cursor = self._revision = revision

    def _change(self, name: str, data: Mapping[str, Any], cursor: int | None) -> None:
        revision = data["revision"]
        if name == "lock":
            self._apply_lock(data)
        else:
            self._apply(name, data)
        if not self._is_ready:
            if cursor is not None or not self.with_snapshot:
                self._fault(f"{revision} with the id {cursor} before ready")
            return
        assert self.cursor is not None
        if revision <= self.cursor or revision < self._revision:
            self._fault(f"{revision} after {self._revision}, with the cursor at {self.cursor}")
        if self._unfinished and revision != self._revision:
            self._fault(f"revision {self._revision} ends without an id")
        self._revision = revision
        if name != "lock":
            self._unfinished.append(data["key"])
        if cursor is None:
            return
        if cursor != revision:
            self._fault(f"{revision} has the id {cursor}")
        self.cursor = cursor
        for key in self._unfinished:
            self._check_partner(key, revision)
        self._unfinished = []

    def _apply(self, name: str, data: Mapping[str, Any]) -> None:
        key = data["key"]
        if not key.startswith(self.prefixes):
            self._fault(f"{key} was not asked for")
        if name == "put":
            self.entries[key] = (data["revision"], data["value"])
        else:
            self.entries.pop(key, None)

    def _apply_lock(self, data: Mapping[str, Any]) -> None:
        lock = data["lock"]
        if not self.with_locks or not lock.startswith(self.prefixes):
            self._fault(f"the lock {lock} was not asked for")
        if "lease_id" in data:
            self._fault(f"the lease_id of {lock} was told")
        if data["state"] == "held":
            self.tokens[lock] = data["token"]
        else:
            self.tokens.pop(lock, None)

    def _check_partner(self, key: str, revision: int) -> None:
        """An id says that its revision is complete, so both keys of a pair have it."""
        if not key.startswith(PAIR):
            return
        partner = key[:-1] + ("b" if key.endswith("a") else "a")
        if partner.startswith(self.prefixes) and self.entries.get(partner, (0, None))[0] != revision:
            self._fault(f"the id {revision} came before {partner} of the same transaction")

    def differences(self, entries: State, tokens: Mapping[str, int]) -> list[str]:
        """Where this copy differs from the store."""
        found = []
        for kind, mine, all_of_store in (("entry", self.entries, entries), ("lock", self.tokens, tokens)):
            if kind == "lock" and not self.with_locks:
                continue
            theirs = {name: state for name, state in all_of_store.items() if name.startswith(self.prefixes)}
            for name in sorted(mine.keys() | theirs.keys()):
                if mine.get(name) != theirs.get(name):
                    told = [str(each.get(name, "absent"))[:60] for each in (mine, theirs)]
                    found.append(f"{self.name}: the {kind} {name} is {told[0]}, in the store {told[1]}")
        return found
