# Made from `_async/writes.py` by tools/make_sync.py: edit that file.
"""The writes of entries, and transactions. A client and a lease have the same ones; those of a lease are fenced."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from leasehold_client.errors import LeaseLost, NotFound, PreconditionFailed
from leasehold_client.protocol import entries
from leasehold_client.protocol.entries import KEEP, Match, Ttl
from leasehold_client.protocol.messages import Request, Response
from leasehold_client.protocol.retrying import backoff
from leasehold_client.records import Deletion, Entry
from leasehold_client.values import MISSING, Json, MissingType

from . import runtime
from .sending import Sender
from .transactions import Transaction


class Fence:
    """What fences writes. Without a lease, nothing does."""

    lease_id: str | None = None

    def check(self) -> None:
        """Raises LeaseLost if the lease is known to be over."""

    def lose(self, error: LeaseLost) -> None:
        """The service has said that the lease is not alive."""


class HeldElsewhere(Fence):
    """A lease that another program renews, known by its `lease_id` only."""

    def __init__(self, lease_id: str) -> None:
        self.lease_id = lease_id


class Writes:
    """All writes raise LeaseholdError; each is done once, however often it had to be sent."""

    def __init__(self, sender: Sender, fence: Fence) -> None:
        self._sender = sender
        self._fence = fence

    def put(
        self,
        key: str,
        value: Json,
        *,
        ttl: Ttl = None,
        path: str | None = None,
        if_match: Match | None = None,
        if_absent: bool = False,
        media: str | None = None,
    ) -> Entry:
        """Store a value, or the part of it at `path` (a JSON Pointer; `/list/-` appends).

        `ttl`: seconds; None removes an expiry, `"keep"` keeps it. `if_match` (an entry, a revision or an ETag) and
        `if_absent` are checked in the commit; PreconditionFailed if they do not hold. If the value is `bytes`, it is
        stored with the media type `media`.
        """
        headers = self._conditions(if_match, if_absent=if_absent)
        request = entries.put(key, value, path=path, ttl=ttl, media=media, headers=headers)
        entry = entries.read_entry(self._write(request))
        if entry.media is None:
            return entry
        return replace(entry, value=bytes(value))

    def increment(
        self, key: str, by: float = 1, *, path: str | None = None, ttl: Ttl = KEEP, if_match: Match | None = None
    ) -> Entry:
        """Add a number to the value, or to the part at `path`, in the commit. A missing one counts as 0.

        The value of the result is the sum.
        """
        headers = self._conditions(if_match)
        return entries.read_entry(self._write(entries.increment(key, by, path=path, ttl=ttl, headers=headers)))

    def merge(self, key: str, value: Json, *, ttl: Ttl = KEEP, if_match: Match | None = None) -> Entry:
        """Apply a merge patch (RFC 7396): null removes a member. NotFound if there is no entry."""
        headers = self._conditions(if_match)
        return entries.read_entry(self._write(entries.merge(key, value, ttl=ttl, headers=headers)))

    def patch(
        self, key: str, operations: Sequence[Mapping[str, Json]], *, ttl: Ttl = KEEP, if_match: Match | None = None
    ) -> Entry:
        """Apply a JSON patch (RFC 6902), all of it or nothing (PatchFailed). NotFound if there is no entry."""
        headers = self._conditions(if_match)
        return entries.read_entry(self._write(entries.patch(key, operations, ttl=ttl, headers=headers)))

    def delete(self, key: str, *, path: str | None = None, if_match: Match | None = None) -> Deletion:
        """Delete an entry, or the part of it at `path`. NotFound if it does not exist."""
        request = entries.delete(key, path=path, headers=self._conditions(if_match))
        return entries.read_deletion(self._write(request))

    def delete_prefix(self, prefix: str) -> int:
        """Delete all entries whose keys begin with `prefix`, in steps. Returns how many."""
        request = entries.delete_prefix(prefix, headers=self._conditions(None))
        return entries.read_deleted_count(self._write(request))

    def update(
        self,
        key: str,
        change: Callable[[Json], Json],
        *,
        default: Json | MissingType = MISSING,
        path: str | None = None,
        ttl: Ttl = KEEP,
        retry_seconds: float = 60.0,
    ) -> Entry:
        """Replace a value by what `change` makes of it; no concurrent change is lost.

        Reads the entry, and writes only if nobody wrote in between; otherwise it begins again, after a short random
        pause. So `change` may be called several times. `default` is the value if there is none; without it,
        NotFound. PreconditionFailed if others were always faster for `retry_seconds`.
        """
        if path is not None and default is not MISSING:
            raise TypeError("a part has no default; give the default of the whole value, or use increment")
        retry_until = runtime.clock() + retry_seconds
        attempts = 0
        while True:
            attempts += 1
            found = self._read_for_update(key, path, is_optional=default is not MISSING)
            value = change(default if found is None else found.value)
            media = found.media if found is not None and isinstance(value, bytes) else None
            is_absent = found is None
            try:
                return self.put(key, value, ttl=ttl, path=path, if_match=found, if_absent=is_absent, media=media)
            except (PreconditionFailed, NotFound):
                if runtime.clock() >= retry_until:
                    raise
            runtime.sleep(random.random() * backoff(attempts, 1.0))  # noqa: S311 - protects nothing

    def _read_for_update(self, key: str, path: str | None, *, is_optional: bool) -> Entry | None:
        try:
            return entries.read_entry(self._sender.send(entries.get(key, path=path, with_bytes=True)))
        except NotFound:
            if is_optional:
                return None
            raise

    def transaction(self) -> Transaction:
        """Several checks and operations, all or nothing, sent at the end of the block: see Transaction."""
        return Transaction(self._write, self._fence.lease_id)

    def _conditions(self, if_match: Match | None, *, if_absent: bool = False) -> Sequence[tuple[str, str]]:
        return entries.conditions(if_match, if_absent=if_absent, lease_id=self._fence.lease_id)

    def _write(self, request: Request) -> Response:
        self._fence.check()
        try:
            return self._sender.send(request)
        except LeaseLost as error:
            self._fence.lose(error)
            raise
