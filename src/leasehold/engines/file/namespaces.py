"""What a store in files has beside `default`: the other namespaces, and the numbers of their changes.

All changes of these namespaces together are numbered: `sequence` is the number of the last one. A change is a batch of
one namespace, or an event: a namespace is created or deleted, or gets another quota. The numbers show which changes of
a journal `data.json.namespaces` has already, and whether one is missing.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from leasehold.engines.base import MakeIncarnation
from leasehold.engines.state import Description, Snapshot, StoredState, empty_state, snapshot_of
from leasehold.model import Change, Quota
from leasehold.namespaces import DEFAULT_NAMESPACE

HEAD_LINE_BYTES: Final = 150
"""What a namespace without records takes in `data.json.namespaces`, about."""


class Head(msgspec.Struct, frozen=True, omit_defaults=True):
    """A namespace without its records.

    A deleted one has no incarnation, and only its revision is kept. `revision` is that of its creation or deletion. The
    head of `default` has its quota and when it was created; the rest of it has no meaning.
    """

    revision: int
    incarnation: str = ""
    created_at: int = 0
    max_entries: int | None = None
    max_bytes: int | None = None

    @property
    def is_deleted(self) -> bool:
        return not self.incarnation

    @property
    def quota(self) -> Quota:
        return Quota(self.max_entries, self.max_bytes)

    @property
    def description(self) -> Description:
        if self.is_deleted:
            return Description(deleted_at_revision=self.revision)
        return Description(self.quota, self.created_at)


def head_with(quota: Quota, revision: int, incarnation: str, created_at: int) -> Head:
    """The head of a namespace that exists."""
    return Head(revision, incarnation, created_at, quota.max_entries, quota.max_bytes)


def head_of(description: Description, revision: int, incarnation: str) -> Head:
    """The head of a namespace that exists."""
    return head_with(description.quota, revision, incarnation, description.created_at or 0)


class StoredNamespaces(msgspec.Struct):
    """The namespaces as loaded. `log` identifies the numbering; it is empty before the first change.

    `heads` has all that exist, those that were deleted, and `default` if it has ever had a quota. `states` has the
    records of those that exist, without `default`.
    """

    log: str = ""
    sequence: int = 0
    heads: dict[str, Head] = {}
    states: dict[str, StoredState] = {}

    def snapshot(self) -> "NamespacesSnapshot | None":
        """The snapshot of what was loaded. None: there were never other namespaces."""
        if not self.sequence:
            return None
        snapshots = {name: snapshot_of(state) for name, state in self.states.items()}
        return NamespacesSnapshot(self.log, self.sequence, self.heads, snapshots)

    @property
    def descriptions(self) -> dict[str, Description]:
        """All namespaces in the order of their names, `default` and deleted ones included."""
        found = {name: head.description for name, head in self.heads.items()}
        if DEFAULT_NAMESPACE not in found or found[DEFAULT_NAMESPACE].quota == Quota():
            found[DEFAULT_NAMESPACE] = Description()
        return dict(sorted(found.items()))

    def advance(self, by: int, make_incarnation: MakeIncarnation) -> None:
        """Increase the revisions of all, those of deleted ones included, and give them and the log new identities."""
        if not self.sequence:
            return
        self.log = make_incarnation()
        for name, state in self.states.items():
            state.advance(by, make_incarnation())
            self.heads[name] = replace(self.heads[name], incarnation=state.incarnation)
        for name, head in self.heads.items():
            if head.is_deleted:
                self.heads[name] = Head(head.revision + by)

    def state_of(self, namespace: str) -> StoredState:
        """The records of a namespace. If it was deleted, or never existed, it has none."""
        found = self.states.get(namespace)
        return state_of_new(self.heads.get(namespace, Head(0))) if found is None else found

    def restore(self, namespace: str, state: StoredState, now: int) -> None:
        """Replace the records of a namespace, which is created if it does not exist. Its quota stays."""
        self.sequence += 1
        before = self.heads.get(namespace)
        if before is None or before.is_deleted:
            self.heads[namespace] = Head(state.revision, state.incarnation, now)
        else:
            self.heads[namespace] = replace(before, incarnation=state.incarnation)
        self.states[namespace] = state

    def apply(self, namespace: str, content: Head | Sequence[Change]) -> str:
        """Apply an event. Returns what is wrong with it, or nothing. Batches are applied by `recovery`."""
        assert isinstance(content, Head)
        before = self.heads.get(namespace)
        exists = before is not None and not before.is_deleted
        if namespace != DEFAULT_NAMESPACE:
            if content.is_deleted:
                if not exists:
                    return "deletes a namespace that does not exist"
                if self.states.pop(namespace).revision + 1 != content.revision:
                    return "deletes a namespace at another revision"
            elif not exists:
                if content.revision != (0 if before is None else before.revision):
                    return "creates a namespace at another revision than it was deleted"
                self.states[namespace] = state_of_new(content)
            elif before is not None and before.incarnation != content.incarnation:
                return "creates a namespace that exists"
        self.heads[namespace] = content
        return ""


def state_of_new(head: Head) -> StoredState:
    """The records of a namespace that was just created."""
    state = empty_state()
    state.incarnation = head.incarnation
    state.revision = state.compacted_revision = head.revision
    return state


class NamespacesSnapshot(msgspec.Struct, frozen=True):
    """The namespaces at one moment, to be written. The members are those of StoredNamespaces."""

    log: str
    sequence: int
    heads: Mapping[str, Head]
    snapshots: Mapping[str, Snapshot]
