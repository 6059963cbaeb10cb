"""The head of a space that this server knows, and its restoration if the database has an older one."""

from typing import Final

import structlog

from leasehold.engines.base import MakeIncarnation
from leasehold.engines.postgres import head_statements
from leasehold.engines.postgres.links import SILENCE_SECONDS, Connection, time_limit

log = structlog.get_logger(__name__)

GAP_REVISIONS: Final = 1_000_000
"""How many revisions are skipped if the database has gone back. Other servers cannot have committed so many since this
server last read the head, because it reads the head every POLL_SECONDS."""


class Head:
    """The largest revision that this server knows to be committed, and the incarnation that it read last."""

    def __init__(self, namespace: str, make_incarnation: MakeIncarnation) -> None:
        self._namespace = namespace
        self._make_incarnation = make_incarnation
        self.revision = 0
        self.incarnation = ""

    def forget(self) -> None:
        """Know nothing, before the space is opened."""
        self.revision, self.incarnation = 0, ""

    def move_to(self, revision: int) -> bool:
        """Note a revision that this or another server committed. Returns whether it is larger than all before."""
        is_new = revision > self.revision
        if is_new:
            self.revision = revision
        return is_new

    def see(self, incarnation: str | None) -> None:
        """Note the incarnation that was read together with the next answer. None: the tables have an older version."""
        if incarnation != self.incarnation and incarnation is not None:
            if self.incarnation:
                log.warning("the store has another incarnation", incarnation=incarnation, before=self.incarnation)
            self.incarnation = incarnation

    async def restore(self, connection: Connection) -> None:
        """If the database has gone back (a restore, a failover that lost commits), continue after all known revisions.

        GAP_REVISIONS are skipped because other servers may know revisions that this server does not know. The
        incarnation is new, so that the ETags of the lost changes do not match.
        """
        known = self.revision
        head = known + GAP_REVISIONS
        with time_limit(connection, SILENCE_SECONDS):
            arguments = (self._namespace, known, head, self._make_incarnation())
            if await connection.fetchval(head_statements.ADVANCE_HEAD, *arguments) is None:
                return
        log.error("the database has gone back and lacks acknowledged changes", known=known, revision=head)
