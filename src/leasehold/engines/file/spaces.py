"""All spaces of a volume: that of `default`, those of the other namespaces, and what is kept of deleted ones."""

import operator
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from leasehold.engines.file.fields import TIME, names_of
from leasehold.engines.file.namespaces import HEAD_LINE_BYTES, Head, NamespacesSnapshot, StoredNamespaces, head_with
from leasehold.engines.file.space import DefaultSpace, FileSpace, NamedSpace
from leasehold.engines.state import Snapshot, StoredState
from leasehold.model import AnyKind, Record
from leasehold.namespaces import DEFAULT_NAMESPACE

if TYPE_CHECKING:
    from leasehold.engines.file.volume import Volume


class Spaces:
    """The spaces by name. Used on the event loop's thread, and by the start on the sync thread."""

    def __init__(self, volume: "Volume") -> None:
        self._volume = volume
        self.default = DefaultSpace(volume)
        self.others: dict[str, NamedSpace] = {}
        self.by_name: dict[str, FileSpace] = {DEFAULT_NAMESPACE: self.default}
        """All of them."""
        self.deleted: dict[str, int] = {}
        """The revisions of the deletions of namespaces that were not created again."""
        self.sequence = 0
        """The last change of the others that is stored. Who stores it sets this, and publishes the change."""
        self._others_text_bytes = 0
        self._unpublished: list[Callable[[], object]] = []
        """Events that are stored but could not be published, because memory ran out."""
        self._has_default_head = False
        """`default` has, or has had, a quota."""

    def load(self, state: StoredState, namespaces: StoredNamespaces, created_at: int) -> None:
        """Serve what was read. `created_at`: when the store was created."""
        self.default.serve(state, created_at)
        self._has_default_head = False
        self._unpublished.clear()
        self.others.clear()
        self.by_name.clear()
        self.by_name[DEFAULT_NAMESPACE] = self.default
        self.deleted.clear()
        self._others_text_bytes = 0
        self.sequence = namespaces.sequence
        for name, head in namespaces.heads.items():
            if name == DEFAULT_NAMESPACE:
                self.set_default_head(head)
            elif head.is_deleted:
                self.deleted[name] = head.revision
                self._others_text_bytes += HEAD_LINE_BYTES
            else:
                self.add(name, head, namespaces.states[name])

    def add(self, name: str, head: Head, state: StoredState) -> NamedSpace:
        """A namespace exists."""
        space = NamedSpace(self._volume, name, head, state)
        if self.deleted.pop(name, None) is not None:
            self._others_text_bytes -= HEAD_LINE_BYTES
        self.others[name] = self.by_name[name] = space
        self._others_text_bytes += space.text_bytes + HEAD_LINE_BYTES
        return space

    def remove(self, name: str, head: Head) -> None:
        """A namespace was deleted. `head`: what is kept of it."""
        space = self.others.pop(name)
        del self.by_name[name]
        self._others_text_bytes -= space.text_bytes
        self.deleted[name] = head.revision

    def set_default_head(self, head: Head) -> None:
        """`default` has this quota."""
        self._has_default_head = True
        self.default.created_at = head.created_at
        self.default.quota = head.quota

    def note_text(self, text_bytes: int) -> None:
        """The text of another namespace has become so many bytes longer."""
        self._others_text_bytes += text_bytes

    def publish(self, event: Callable[[], object]) -> None:
        """Call `event`, which makes a stored event visible. If it raises, it is repeated before a snapshot is taken."""
        self._unpublished.append(event)
        self._publish_events()

    def _publish_events(self) -> None:
        while self._unpublished:
            self._unpublished[0]()
            del self._unpublished[0]

    @property
    def text_bytes(self) -> int:
        """The approximate size of the files."""
        return self.default.text_bytes + self._others_text_bytes

    def publish_all(self) -> None:
        """Raise if stored changes cannot be published."""
        self._publish_events()
        self.default.current()
        for space in self.others.values():
            space.current()

    def snapshots(self, log: str) -> tuple[Snapshot, NamespacesSnapshot | None]:
        """The current state of `default` and of the others. None: there were never others."""
        return self.default.current().snapshot(), self.snapshot_of_others(log) if self.sequence else None

    def snapshot_of_others(self, log: str) -> NamespacesSnapshot:
        """The current state of all namespaces but `default`."""
        self._publish_events()
        heads = {name: space.head for name, space in self.others.items()}
        heads |= {name: Head(revision) for name, revision in self.deleted.items()}
        if self._has_default_head:
            heads[DEFAULT_NAMESPACE] = head_with(self.default.quota, 0, DEFAULT_NAMESPACE, self.default.created_at)
        states = {name: space.current().snapshot() for name, space in self.others.items()}
        return NamespacesSnapshot(log, self.sequence, heads, states)


def latest_time(state: StoredState) -> int:
    """The latest time in the records, except expiries. The clock must not begin before it."""
    return max(
        (
            max(map(time_of, contents.by_name.values()))
            for kind, contents in state.contents.items()
            if contents.by_name
            for time_of in _times_of(kind)
        ),
        default=0,
    )


@cache
def _times_of(kind: AnyKind) -> Sequence[Callable[[Record], int]]:
    """The getters of these times."""
    return [operator.attrgetter(field) for field in names_of(kind.record, TIME) if field != "expires_at"]
