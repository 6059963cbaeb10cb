"""Leases whose caller has disconnected. Each is released as soon as the engine commits it."""

from collections.abc import Callable

from leasehold.errors import ServiceError
from leasehold.limits import MAX_ABANDONED_LEASES
from leasehold.model import Operation, Outcome, Release
from leasehold.store.batch import Done

Submit = Callable[[Operation, Done], None]


class AbandonedLeases:
    """At most MAX_ABANDONED_LEASES. `submit` is the write lane."""

    __slots__ = ("_releases", "_submit")

    def __init__(self, submit: Submit) -> None:
        self._submit = submit
        self._releases: dict[str, Release] = {}
        """By lease_id."""

    def add(self, lock: str, lease_id: str) -> None:
        """Release this lease now. If that fails, `release_all` tries again."""
        release = Release(lock, lease_id)
        if len(self._releases) < MAX_ABANDONED_LEASES:
            self._releases[lease_id] = release
        self._release(release)

    def release_all(self) -> None:
        """Try again to release those that are left."""
        for release in list(self._releases.values()):
            self._release(release)

    def _release(self, release: Release) -> None:
        def done(outcome: Outcome | ServiceError) -> None:
            is_undecided = isinstance(outcome, ServiceError) and outcome.code not in ("lease_lost", "lock_not_found")
            if not is_undecided and release.lease_id is not None:
                self._releases.pop(release.lease_id, None)

        self._submit(release, done)
