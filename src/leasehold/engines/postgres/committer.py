"""Commits batches. One batch is one transaction: load, decide, write, COMMIT.

A transaction has two round trips (`pipeline`). The first one has BEGIN, the lock of the head row, and the query that
reads the clock and loads the records. The second one writes everything and has COMMIT. The lock of the head row orders
the batches of all servers, so a revision is visible only after all smaller ones.

While other servers commit, too, a batch is taken from the caller only when this server has the lock (`turns`): until
then it grows. The lock is then a round trip of its own.

A transaction that fails is repeated as a whole, on a new connection, for RETRY_SECONDS. The spaces of a server take
turns on the connection (`writer`), one transaction each.

If a statement of the second round trip fails, PostgreSQL skips COMMIT and says that the transaction is still open. Then
nothing was committed. After any other failure of this round trip, COMMIT may have been done.

The answer of a COMMIT may be lost. Each batch therefore writes its number, the signature, into its server's row in
`writers`. The next attempt locks the head, so the lost transaction has ended, and reads that row. If the number is
there, the batch was committed; otherwise the batch is done again. So its outcome is never guessed, and it is never done
twice. If the number is there, one more COMMIT waits for the synchronous standbys, because the lost COMMIT may not have
waited for them. (`pg_xact_status` does not suffice: after a crash, if nothing of a transaction had reached the log,
another transaction gets the same transaction id, and the answer is about that one.)
"""

import asyncio
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import asyncpg
import msgspec
import structlog

from leasehold.engines.base import Decide, by_kind, revision_of
from leasehold.engines.postgres import head_statements, namespace_statements, record_statements
from leasehold.engines.postgres.change_writer import ChangeWriter, Written
from leasehold.engines.postgres.database import Database
from leasehold.engines.postgres.failures import FAILURES, is_transient
from leasehold.engines.postgres.known_head import Head
from leasehold.engines.postgres.links import (
    SILENCE_SECONDS,
    Connection,
    collect_warnings,
    time_limit,
)
from leasehold.engines.postgres.pipeline import Pipeline
from leasehold.engines.postgres.pool import LIST_SILENCE_SECONDS
from leasehold.engines.postgres.tables import TABLES
from leasehold.engines.postgres.view import DELETED, Loaded, Names, Totals, current, head_is_missing
from leasehold.errors import ServiceError, internal, no_such_namespace, outcome_unknown
from leasehold.model import AnyKind, Record, Usage
from leasehold.namespaces import DEFAULT_NAMESPACE

log = structlog.get_logger(__name__)

RESOLVE_SECONDS: Final = 2.0
"""The minimum time to look for the outcome of a COMMIT, even after the time for retries has ended."""
CONTENDED_SECONDS: Final = 0.1
"""A batch within this time after the previous one expects that other servers still commit if they did before that one.
"""


class Batch(msgspec.Struct, frozen=True):
    """What a batch touches, and the function that decides it."""

    names: Names
    decide: Decide


class Committer:
    """Commits the batches of one space, one at a time. `database` must be open."""

    def __init__(self, database: Database, namespace: str, head: Head) -> None:
        self._writer = database.writer
        self._namespace = namespace
        self._head = head
        self._fault = database.fault
        self._reports = database.reports
        self._clock = database.clock
        self._notifications = database.listener.notifications
        self.writer_id = uuid.uuid4()
        self._changes = ChangeWriter(namespace, self.writer_id)
        self._batch = 0
        """The number of the last batch. It is also in this server's row in `writers`."""
        self._process = 0
        """The id of the database process that wrote the last batch."""
        self._unanswered: Written | None = None
        """The batch whose COMMIT may be done and has no answer yet."""
        self._own_head = 0
        """The head after the last batch of this server."""
        self._contended_until = -math.inf
        """By the loop's clock."""
        self.is_in_doubt = False
        """The answer of a COMMIT is lost, and its outcome is looked for. Other servers and this one may see its changes
        already, but no other batch can be committed."""

    def is_own_process(self, process: int) -> bool:
        """Whether this process of the database wrote the last batch."""
        return process == self._process

    @property
    def is_contended(self) -> bool:
        """Whether other servers have committed between the last two batches of this server, a short time ago."""
        return asyncio.get_running_loop().time() < self._contended_until

    async def commit(self, batch: Batch | Callable[[], Batch]) -> Written | ServiceError | None:
        """Returns the written batch, or the error of a batch that failed, or None if `decide` changes nothing.

        `batch` may be a function, which is called once when this server has locked the head. It is not called if the
        head cannot be locked. `no_such_namespace` if the namespace was deleted.

        Raises unexpected exceptions only. The caller must then call `given_up`.
        """
        self._unanswered = None
        try:
            return await self._try_until_done(batch)
        finally:
            self.is_in_doubt = False
            self._writer.end()

    async def _try_until_done(self, batch: Batch | Callable[[], Batch]) -> Written | ServiceError | None:
        """Repeat the attempt until the batch is committed or refused, or until the time for retries has ended."""
        lost: Written | None = None
        loop = asyncio.get_running_loop()
        deadline, attempts = 0.0, 0
        while True:
            try:
                async with self._writer:
                    attempts += 1
                    if attempts == 1:  # not earlier, because the turns of many other spaces take their time
                        deadline = loop.time() + self._fault.retry_seconds()
                    pipeline = await self._writer.pipeline()
                    is_locked = not isinstance(batch, Batch)
                    if not isinstance(batch, Batch):
                        await self._lock(pipeline)
                        batch = batch()
                    written = await self._attempt(pipeline, batch, is_locked=is_locked)
            except FAILURES as failure:
                if self._unanswered is not lost:
                    lost = self._unanswered
                    self.is_in_doubt = lost is not None
                    deadline = max(deadline, loop.time() + RESOLVE_SECONDS)
                # After any failure of a COMMIT, its outcome is looked for.
                goes_on = is_transient(failure) or lost is not None
                if not goes_on or not await self._writer.pause(deadline):
                    error = self._fault.failed(failure)
                    return error if lost is None else outcome_unknown()
                self._reports.log(log.warning, "a commit is tried again", failure, by_sqlstate=False)
            else:
                if attempts > 1:
                    log.info("a commit was done after it had failed", attempts=attempts)
                if isinstance(written, Written):
                    self._own_head = written.head
                return written

    def given_up(self) -> ServiceError:
        """The error for callers after an unexpected exception."""
        if self._unanswered is None:
            return internal("the service failed; nothing was changed")
        error = outcome_unknown()
        self._fault.note(error)
        return error

    async def _attempt(self, pipeline: Pipeline, batch: Batch, *, is_locked: bool) -> Written | ServiceError | None:
        """Do one transaction, or prove that the previous one was committed. Raises one of FAILURES.

        `is_locked`: the transaction has begun and has locked the head.
        """
        connection = pipeline.connection
        loaded = await self._load(pipeline, batch.names, is_locked=is_locked)
        if loaded.head < self._head.revision and not loaded.totals.is_deleted:
            await self._head.restore(connection)
            await self._finish(pipeline)
            loaded = await self._load(pipeline, batch.names)
        lost = self._unanswered
        if lost is not None and await self._is_stored(connection, lost):
            # The batch is stored, but the synchronous standbys may not have it: the lost COMMIT did not wait for them
            # if its wait was cancelled or if PostgreSQL was restarted. The standbys have everything before this COMMIT
            # once it is done.
            with time_limit(connection, SILENCE_SECONDS):
                await connection.execute(head_statements.TOUCH_HEAD, self._namespace)
            await self._finish(pipeline)
            return msgspec.structs.replace(lost, before=loaded.head)
        self._unanswered = None
        written = None if loaded.totals.is_deleted else await self._write(pipeline, loaded, batch)
        if written is None:
            with time_limit(connection, SILENCE_SECONDS):
                await connection.execute(head_statements.ROLLBACK)
            return no_such_namespace() if loaded.totals.is_deleted else None
        self._unanswered = written
        try:
            await self._finish(pipeline)
        except asyncpg.PostgresError:
            if not connection.is_closed() and connection.is_in_transaction():
                self._unanswered = None  # COMMIT was skipped
            raise
        return written

    async def _finish(self, pipeline: Pipeline) -> None:
        """Send what is in the pipeline, and COMMIT. Raises one of FAILURES unless the commit is complete.

        With a warning it is not complete: PostgreSQL warns if a cancellation ended the wait for the synchronous
        standbys, or if there was no transaction to commit.
        """
        await pipeline.add(head_statements.SHOW_WARNINGS)
        with time_limit(pipeline.connection, SILENCE_SECONDS), collect_warnings(pipeline.connection) as warnings:
            answer = await pipeline.execute(head_statements.COMMIT)
        if answer != "COMMIT" or warnings:
            raise asyncpg.InterfaceError("a COMMIT was not answered in good order")

    async def _is_stored(self, connection: Connection, written: Written) -> bool:
        """Whether this batch is the last one that this server committed. The head must be locked."""
        with time_limit(connection, SILENCE_SECONDS):
            batch = await connection.fetchval(head_statements.LAST_BATCH, self._namespace, self.writer_id)
        log.info("a commit whose answer was lost is looked for", revision=written.head, found=batch == written.batch)
        return bool(batch == written.batch)

    async def _lock(self, pipeline: Pipeline) -> None:
        """BEGIN, and lock the head."""
        with time_limit(pipeline.connection, SILENCE_SECONDS):
            await pipeline.add(head_statements.BEGIN)
            await pipeline.fetch(head_statements.LOCK_HEAD, self._namespace)

    async def _load(self, pipeline: Pipeline, names: Names, *, is_locked: bool = False) -> Loaded:
        """BEGIN and lock the head, unless that is done. Load the records that are committed then."""
        now = None if self._clock is None else self._clock()
        arguments = (self._namespace, now, *names.parameters)
        with time_limit(pipeline.connection, SILENCE_SECONDS):
            if not is_locked:
                await pipeline.add(head_statements.BEGIN)
                await pipeline.add(head_statements.LOCK_HEAD, self._namespace)
            rows = await pipeline.fetch(record_statements.load(names.kinds), *arguments)
        found = current(rows)
        if found is None:  # the database has gone back to a time before the namespace was created
            if self._namespace == DEFAULT_NAMESPACE:
                raise head_is_missing()
            return Loaded(self._head.revision, 0, self._head.incarnation, 0, {}, {}, {}, DELETED, 0)
        now, head, compacted, incarnation, totals, complete_from = found
        offset = record_statements.LOADED_AT
        self._head.see(incarnation)
        by_name: dict[AnyKind, Mapping[str, Record]] = {}
        by_lookup: dict[AnyKind, Mapping[str, Record]] = {}
        of_documents: dict[AnyKind, Mapping[str, Sequence[object]]] = {}
        for kind in names.kinds:
            table, start = TABLES[kind], offset
            offset += len(table.columns)
            stored = {row[start]: row[start:offset] for row in rows if row[start] is not None}
            records = {name: table.record(*row) for name, row in stored.items()}
            by_name[kind] = records
            if kind.lookup:
                by_lookup[kind] = {getattr(record, kind.lookup): record for record in records.values()}
            if table.document is not None:
                of_documents[kind] = stored
        if totals.quota is not None and totals.usage is None:
            totals = Totals(totals.quota, await self._counted(pipeline))
        incarnation = self._head.incarnation
        return Loaded(head, compacted, incarnation, now, by_name, by_lookup, of_documents, totals, complete_from)

    async def _counted(self, pipeline: Pipeline) -> Usage:
        """Count what the namespace holds, while no other batch is under way."""
        with time_limit(pipeline.connection, LIST_SILENCE_SECONDS):
            [[_, _, _, entries, size]] = await pipeline.fetch(namespace_statements.COUNT, self._namespace)
            await pipeline.connection.execute(namespace_statements.SET_USAGE, self._namespace, entries, size)
        return Usage(entries, size)

    async def _write(self, pipeline: Pipeline, loaded: Loaded, batch: Batch) -> Written | None:
        """Decide, and put the changes into the pipeline. Returns None if `decide` changes nothing."""
        changes = sorted(batch.decide(loaded, loaded.head, loaded.now), key=revision_of)
        if not changes:
            return None
        head, of_kinds = changes[-1].revision, by_kind(changes)
        if loaded.head != self._own_head:
            self._contended_until = asyncio.get_running_loop().time() + CONTENDED_SECONDS
        self._batch += 1
        self._process = pipeline.process()
        is_told = not (self.is_contended and self._notifications.can_wait(of_kinds))
        written = Written(head, loaded.head, self._batch, of_kinds, is_told)
        await self._changes.write(pipeline, loaded, batch.names, written)
        return written
