"""Namespaces survive any power cut; and the harness detects planted bugs."""

from collections.abc import Callable
from unittest.mock import patch

import pytest
from harness import depth
from harness.power_cuts_of_namespaces import keep_namespaces

from leasehold.engines.file.namespaces import NamespacesSnapshot, StoredNamespaces
from leasehold.engines.file.snapshot_files import SnapshotFiles
from leasehold.engines.state import Snapshot

SEED = 3


def test_namespaces_survive_any_power_cut() -> None:
    finding = keep_namespaces(SEED, lives=depth(12))
    assert finding.violations == []
    assert finding.figures["states"] >= depth(4_000)


# The harness detects planted bugs -----------------------------------------------------------------------------


def checkpoint_without_namespaces(
    self: SnapshotFiles, snapshot: Snapshot | None, others: NamespacesSnapshot | None, _passing: object = None
) -> None:
    """A bug: the journal is removed before the file of the namespaces is written."""
    if snapshot is not None:
        self.replace_data(snapshot)
    if others is not None:
        self.sequence = others.sequence


def replay_everything(self: StoredNamespaces, namespace: str, content: object) -> str:
    """A bug: a deletion in the journal is not applied."""
    if getattr(content, "is_deleted", False):
        return ""
    return _apply(self, namespace, content)  # type: ignore[arg-type] # an event


_apply = StoredNamespaces.apply


@pytest.mark.parametrize(
    ("owner", "name", "bug"),
    [(SnapshotFiles, "replace", checkpoint_without_namespaces), (StoredNamespaces, "apply", replay_everything)],
)
def test_a_planted_bug_is_detected(owner: type, name: str, bug: Callable[..., object]) -> None:
    with patch.object(owner, name, bug):
        assert keep_namespaces(SEED, lives=12).violations
