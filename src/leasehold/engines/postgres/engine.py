"""The engine on PostgreSQL: several servers may use one database at once.

A batch is one transaction of four round trips: BEGIN; lock the head row, read the clock and load what is touched;
write; COMMIT. The head's row lock orders the batches of all servers, so a revision is visible only after all smaller
ones.

What fails is done again as a whole, on a new connection, for RETRY_SECONDS. Each batch signs a row of its server's own
(`writers`) with a number. If the answer of a COMMIT was lost, the next attempt takes the head's lock, by which the lost
transaction is over, and looks at that row: the batch is there, or it is done again; it is neither guessed nor done
twice. That it is there is proven by another COMMIT, which waits for the synchronous standbys as the lost one may not
have done. (`pg_xact_status` would not do: a transaction that a crash took away before anything of it was written to the
log leaves its number to another one, and the answer is about that.) When the database stays away, `fault` is set and
everything is refused at once until `recover` has written something.

All state belongs to the event loop's thread. Connections: one that writes, READERS, LISTS, and one that listens.
"""

import asyncio
import math
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, TypeVar

import asyncpg
import msgspec
import structlog

from leasehold.completions import report
from leasehold.engines.base import (
    Clock,
    CommitDone,
    Decide,
    Freed,
    MakeIncarnation,
    Moment,
    ReadDone,
    by_kind,
    new_incarnation,
    revision_of,
)
from leasehold.engines.memory import entries
from leasehold.engines.postgres import backups, schema, statements
from leasehold.engines.postgres.cleaner import Cleaner
from leasehold.engines.postgres.differences import LARGE_DOCUMENT_BYTES, Difference, difference
from leasehold.engines.postgres.failures import FAILURES, as_service_error, as_start_error, is_refusal, is_transient
from leasehold.engines.postgres.jsonb import is_changed_by_jsonb
from leasehold.engines.postgres.links import (
    CLOSE_SECONDS,
    RETRY_SECONDS,
    SILENCE_SECONDS,
    Address,
    Connection,
    Link,
    warnings_heard,
    watched,
)
from leasehold.engines.postgres.listener import Listener, freed_notice
from leasehold.engines.postgres.reads import Reads
from leasehold.engines.postgres.statements import columns, entry_of, joined, lease_of
from leasehold.errors import ServiceError, internal, outcome_unknown, unavailable
from leasehold.limits import MAX_KEY_BYTES
from leasehold.model import (
    Deletion,
    Entry,
    EntryChange,
    Lease,
    LeaseChange,
    LeaseEnd,
    Page,
    Touched,
    name_of,
)
from leasehold.tasks import begun

log = structlog.get_logger(__name__)

T = TypeVar("T")
R = TypeVar("R", bound=Entry | Lease)

READERS: Final = 2
LISTS: Final = 2
LIST_SILENCE_SECONDS: Final = 15.0
"""A page may be large."""
YIELD_SECONDS: Final = 0.002
"""So much later do our own waiters hear that we set a lock free, where there are other servers, who hear it by
notification. Otherwise ours are first again and again: of two servers with 8 waiters each, one got the lock 1.1 to 8.6
times as often as the other; now 1.0 times."""
RESOLVE_SECONDS: Final = 2.0
"""At least so long the fate of a COMMIT is asked for, even when the time for retries is over."""
WRITER_MICROSECONDS: Final = 7 * 86_400 * 1_000_000
"""What a server last signed is forgotten after a week; it is needed for seconds."""
GAP_REVISIONS: Final = 1_000_000
"""Left out when the database has gone back. More than other servers can have committed since this one heard of them:
it looks every POLL_SECONDS."""
SUSPECT_SECONDS: Final = 1.0
LAST_CHARACTER: Final = "\U0010ffff"
_BEHIND_ANY_KEY: Final = LAST_CHARACTER * (MAX_KEY_BYTES // len(LAST_CHARACTER.encode()) + 1)


class _Names(msgspec.Struct, frozen=True):
    """What a batch touches, as parameters."""

    keys: str
    locks: str
    lease_ids: str


class _Loaded(msgspec.Struct, frozen=True):
    """What a batch is decided on: a View."""

    head: int
    compacted: int
    incarnation: str
    now: int
    entries: dict[str, Entry]
    exact: frozenset[str]
    """Keys whose value is kept as text."""
    leases: dict[str, Lease]
    leases_by_id: dict[str, Lease]

    def entry(self, key: str) -> Entry | None:
        return self.entries.get(key)

    def lease(self, lock: str) -> Lease | None:
        return self.leases.get(lock)

    def lease_by_id(self, lease_id: str) -> Lease | None:
        return self.leases_by_id.get(lease_id)


class _Written(msgspec.Struct, frozen=True):
    """A batch before its COMMIT. `freed`: the locks whose leases it ends."""

    head: int
    batch: int
    freed: tuple[str, ...]


class PostgresEngine:
    """Entries in the database at `url`, whose clock counts. Other arguments are there for the sake of tests."""

    name = "postgres"
    shared = True
    durable = True

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "default",
        clock: Clock | None = None,
        make_incarnation: MakeIncarnation = new_incarnation,
    ) -> None:
        self._url = url
        self._namespace = namespace
        self._clock = clock
        self._make_incarnation = make_incarnation
        self._revision = 0
        self.incarnation = ""
        self._fault: ServiceError | None = None
        self._is_away = False
        """The fault is that the database cannot be reached."""
        self._suspected_at = -math.inf
        self._is_open = False
        self._published = asyncio.Event()
        self._committing: asyncio.Task[None] | None = None
        """The last commit, maybe in flight."""
        self._advances: set[asyncio.Task[None]] = set()
        self._writer_id = uuid.uuid4()
        self._probe_id = uuid.uuid4()
        self._batch = 0
        """The number with which the last batch was signed."""
        self._unanswered: _Written | None = None
        """Of the commit in flight: what was written before a COMMIT that has no answer yet."""
        self._freed: Freed = lambda _: None

    @property
    def revision(self) -> int:
        return self._revision

    @property
    def fault(self) -> ServiceError | None:
        return self._fault

    def gauges(self) -> Mapping[str, float]:
        return {}  # to count the entries would be a query over all of them

    # Start and end --------------------------------------------------------------------------------------------

    async def open(self) -> None:
        if self._is_open:
            return
        try:
            address = Address(self._url)
        except OSError as failure:
            raise as_start_error(failure) from failure
        self._reports = address.reports
        self._writer = Link(address)
        lists = [Link(address) for _ in range(LISTS)]
        self._lists: asyncio.LifoQueue[Link] = asyncio.LifoQueue()
        try:
            connection = await self._writer.connected()
            now = time.time_ns() // 1000
            await schema.deploy(connection, schema.load_scripts(), now=now)
            head = await schema.ensure_head(connection, self._namespace, self._make_incarnation)
            self._revision, self.incarnation = head
            schema_name = await connection.fetchval(statements.SCHEMA_NAME)
            await connection.execute(statements.FORGET_WRITERS, self._namespace, now - WRITER_MICROSECONDS)
            await _check_durability(connection)
        except (*FAILURES, ValueError) as failure:
            self._writer.drop()
            raise as_start_error(failure) from failure
        except BaseException:
            self._writer.drop()
            raise
        for link in lists:
            self._lists.put_nowait(link)
        readers = [Link(address) for _ in range(READERS)]
        listening = Link(address)
        self._listener = Listener(
            listening,
            self._namespace,
            f"{schema_name}/{self._namespace}/",
            committed=self._publish,
            unheard=self._publish_unheard,
            freed=self._tell_freed,
        )
        self._cleaner = Cleaner(self._namespace, self._ask)
        self._links = [self._writer, listening, *lists, *readers]
        self._reads = Reads(readers, self._namespace, self._clock, self._retry_seconds, self._failed, self._see)
        self._reads.start()
        self._fault, self._is_away = None, False
        self._is_open = True
        self._listener.start()

    async def close(self) -> None:
        if not self._is_open:
            return
        for link in self._links:
            link.hurry()
        with suppress(ServiceError, TimeoutError):  # else another server takes over some seconds later
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._cleaner.resign()
        self._is_open = False
        if self._committing is not None:
            await asyncio.wait([self._committing])
        await asyncio.gather(*self._advances)
        await self._listener.stop()
        await self._reads.close()
        await asyncio.gather(*(link.close() for link in self._links))

    # Reads ----------------------------------------------------------------------------------------------------

    def read(self, key: str, done: ReadDone) -> None:
        if not self._is_open:
            done(unavailable("the store is closed"))
            return
        self._reads.read(key, done)

    async def scan(self, prefix: str, after: str | None, limit: int) -> Page[Entry]:
        rows = await self._scan(statements.SCAN, prefix, after, limit)
        return _page([entry_of(*row[1:]) for row in rows if row[1] is not None], limit, _head_of(rows))

    async def moment(self) -> Moment:
        if not self._is_open:
            raise unavailable("the store is closed")
        try:
            return await backups.moment(Address(self._url), self._namespace, self._clock)
        except FAILURES as failure:
            raise as_service_error(failure) from failure

    async def changes(self, after_revision: int, prefix: str, limit: int) -> list[EntryChange]:
        start = _sendable(prefix)

        async def query(connection: Connection) -> list[asyncpg.Record]:
            return await connection.fetch(statements.CHANGES, self._namespace, after_revision, start, limit)

        rows = await self._ask(query)
        # What is still known is the same for every engine, so that none promises more than another.
        if after_revision < max(rows[0][1], _head_of(rows) - entries.HISTORY_CHANGES):
            raise ServiceError("revision_compacted", "changes that old are no longer known")
        return [_change_of(row) for row in rows if row[2] is not None]

    async def lease(self, lock: str) -> Lease | None:
        async def query(connection: Connection) -> asyncpg.Record | None:
            return await connection.fetchrow(statements.LEASE, self._namespace, lock, self._time())

        row = await self._ask(query)
        return None if row is None else lease_of(*row)

    async def leases(self, prefix: str, after: str | None, limit: int) -> Page[Lease]:
        rows = await self._scan(statements.SCAN_LEASES, prefix, after, limit)
        return _page([lease_of(*row[1:]) for row in rows if row[1] is not None], limit, _head_of(rows))

    async def expired(self, limit: int) -> list[str]:
        return await self._due(statements.EXPIRED, limit)

    async def expired_leases(self, limit: int) -> list[str]:
        return await self._due(statements.EXPIRED_LEASES, limit)

    async def _due(self, statement: str, limit: int) -> list[str]:
        """Names of what has expired, if it is ours to clean up."""

        async def query(connection: Connection) -> list[asyncpg.Record]:
            return await connection.fetch(statement, self._namespace, limit, self._time())

        rows = await self._ask(query)
        return [row[0] for row in rows] if rows and await self._cleaner.is_own_turn() else []

    async def _scan(self, statement: str, prefix: str, after: str | None, limit: int) -> list[asyncpg.Record]:
        """The rows of SCAN or SCAN_LEASES."""
        start, above = _sendable(prefix), _sendable(after or "")

        async def query(connection: Connection) -> list[asyncpg.Record]:
            behind = start + _BEHIND_ANY_KEY
            # One more than asked for tells whether there is a next page.
            return await connection.fetch(statement, self._namespace, start, above, behind, limit + 1, self._time())

        return await self._ask(query)

    async def _ask(self, query: Callable[[Connection], Awaitable[T]], *, retry_seconds: float | None = None) -> T:
        """Run a query of a list, or anything that is rare, on a connection of its own. Raises ServiceError."""
        if not self._is_open:
            raise unavailable("the store is closed")
        try:
            async with asyncio.timeout(RETRY_SECONDS):
                link = await self._lists.get()
        except TimeoutError as timeout:
            raise unavailable("too many lists are being read") from timeout
        try:
            seconds = self._retry_seconds() if retry_seconds is None else retry_seconds
            return await link.run(query, retry_seconds=seconds, silence=LIST_SILENCE_SECONDS)
        except FAILURES as failure:
            raise self._failed(failure) from failure
        finally:
            self._lists.put_nowait(link)

    def _time(self) -> int | None:
        """For the statements' `clock`."""
        return None if self._clock is None else self._clock()

    def _retry_seconds(self) -> float:
        """While the database is known to be away, nobody waits for it: one attempt, and `recover` goes on trying."""
        return 0.0 if self._is_away else RETRY_SECONDS

    def _takes_writes(self) -> bool:
        return self._fault is None or self._fault.code != "unavailable"

    # Commits --------------------------------------------------------------------------------------------------

    def commit(self, touched: Touched, decide: Decide, done: CommitDone) -> None:
        if not self._is_open:
            done(unavailable("the store is closed"))
            return
        if self._fault is not None and not self._takes_writes():
            done(unavailable(self._fault.message))
            return
        names = _Names(*(joined(dict.fromkeys(each)) for each in (touched.keys, touched.locks, touched.lease_ids)))
        self._committing = begun(asyncio.get_running_loop(), self._commit(names, decide, done))

    async def _commit(self, names: _Names, decide: Decide, done: CommitDone) -> None:
        self._unanswered = None
        try:
            done(await self._make_durable(names, decide))
        except BaseException as failure:  # all later changes wait for this one
            report("a commit failed in an unexpected way", failure)
            try:
                self._writer.drop()
            finally:
                done(self._given_up())
            if not isinstance(failure, Exception):
                raise

    def _given_up(self) -> ServiceError:
        """What callers are told after an exception that was not foreseen."""
        if self._unanswered is None:
            return internal("the service failed; nothing was changed")
        error = outcome_unknown()
        self._note(error)
        return error

    async def _make_durable(self, names: _Names, decide: Decide) -> ServiceError | None:
        """Try until it is committed, refused, or time is up. None, or why not."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + RETRY_SECONDS
        lost: _Written | None = None
        attempts = 1
        while True:
            try:
                await self._attempt(names, decide)
                if attempts > 1:
                    log.info("a commit was done after it had failed", attempts=attempts)
                return None
            except FAILURES as failure:
                self._writer.drop()
                if self._unanswered is not lost:
                    lost = self._unanswered
                    deadline = max(deadline, loop.time() + RESOLVE_SECONDS)
                # However a COMMIT failed, it is found out what became of it.
                goes_on = is_transient(failure) or lost is not None
                if not goes_on or not await self._writer.pause(deadline):
                    error = self._failed(failure)
                    return error if lost is None else outcome_unknown()
                attempts += 1
                self._reports.tell(log.warning, "a commit is tried again", failure, by_sqlstate=False)

    async def _attempt(self, names: _Names, decide: Decide) -> None:
        """One transaction; or the proof that the one before it was committed. Raises one of FAILURES."""
        connection = await self._writer.connected()
        await self._execute(connection, statements.BEGIN)
        loaded = await self._load(connection, names)
        if loaded.head < self._revision:
            await self._advance(connection)
            await self._finish(connection)
            await self._execute(connection, statements.BEGIN)
            loaded = await self._load(connection, names)
        before = self._unanswered
        if before is not None and await self._is_stored(connection, before):
            # That it is there does not say that the synchronous standbys have it: they were not waited for if the wait
            # was broken off, or if the server was started again. This COMMIT waits until they have all before it.
            with watched(connection, SILENCE_SECONDS):
                await connection.execute(statements.TOUCH_HEAD, self._namespace)
            await self._finish(connection)
            self._publish_own(before)
            return
        self._unanswered = None
        written = await self._write(connection, loaded, decide)
        if written is None:
            await self._execute(connection, statements.ROLLBACK)
            return
        self._unanswered = written
        await self._finish(connection)
        self._publish_own(written)

    async def _finish(self, connection: Connection) -> None:
        """COMMIT. Raises one of FAILURES unless the answer says that it was done, and done in full.

        With a warning it was not: PostgreSQL answers so when a cancellation broke off the wait for the synchronous
        standbys, and when there was no transaction to commit.
        """
        with warnings_heard(connection) as warnings:
            answer = await self._execute(connection, statements.COMMIT)
        if answer != "COMMIT" or warnings:
            raise asyncpg.InterfaceError("a COMMIT was not answered in good order")

    async def _is_stored(self, connection: Connection, written: _Written) -> bool:
        """With the head locked: whether this batch is the last that we committed."""
        with watched(connection, SILENCE_SECONDS):
            batch = await connection.fetchval(statements.LAST_BATCH, self._namespace, self._writer_id)
        log.info("a commit whose answer was lost is looked for", revision=written.head, found=batch == written.batch)
        return bool(batch == written.batch)

    async def _write(self, connection: Connection, loaded: _Loaded, decide: Decide) -> _Written | None:
        """Decide and write, all but the COMMIT. None if `decide` changes nothing."""
        changes = sorted(decide(loaded, loaded.head, loaded.now), key=revision_of)
        if not changes:
            return None
        head = changes[-1].revision
        of_entries, of_leases = by_kind(changes)
        freed = await self._write_leases(connection, of_leases) if of_leases else ()
        whole: list[Entry] = []
        deletions: list[Deletion] = []
        for change in of_entries:
            if type(change) is Deletion:
                deletions.append(change)
            elif type(change) is Entry:
                part = self._part_of(change, loaded)
                if part is None:
                    whole.append(change)
                else:
                    await self._write_part(connection, change, part)
        arguments = (*columns(whole), [each.key for each in deletions], [each.revision for each in deletions])
        self._batch += 1
        self._listener.own_pid = connection.get_server_pid()
        signature = (self._writer_id, self._batch, loaded.now)
        with watched(connection, SILENCE_SECONDS):
            await connection.fetch(statements.WRITE, self._namespace, *arguments, head, *signature)
            floor = head - entries.HISTORY_CHANGES
            if floor - loaded.compacted > entries.HISTORY_CHANGES // 10:
                await connection.execute(statements.COMPACT, self._namespace, floor)
        return _Written(head, self._batch, freed)

    async def _write_leases(self, connection: Connection, changes: Sequence[LeaseChange]) -> tuple[str, ...]:
        """Returns the locks that are set free."""
        leases = [change for change in changes if type(change) is Lease]
        freed = tuple(change.lock for change in changes if type(change) is LeaseEnd)
        notice = freed_notice(freed) if freed else None
        with watched(connection, SILENCE_SECONDS):
            await connection.execute(statements.WRITE_LEASES, self._namespace, *_lease_columns(leases), freed, notice)
        return freed

    async def _load(self, connection: Connection, names: _Names) -> _Loaded:
        """Take the turn, and see what is committed now."""
        with watched(connection, SILENCE_SECONDS):
            rows = await connection.fetch(statements.LOCK_AND_LOAD, self._namespace, names.keys, self._time())
            if not rows:
                raise asyncpg.InterfaceError("the head row is missing")
            now, head, compacted, incarnation, seen = rows[0][:5]
            found = [row[5:] for row in rows if row[5] is not None]
            if seen != head:
                # Others committed while we waited for the lock, after this statement's snapshot.
                found = [tuple(row) for row in await connection.fetch(statements.LOAD, self._namespace, names.keys)]
            leases: list[Lease] = []
            if names.locks or names.lease_ids:
                of_leases = await connection.fetch(
                    statements.LOAD_LEASES, self._namespace, names.locks, names.lease_ids
                )
                leases = [lease_of(*row) for row in of_leases]
        self._see(incarnation)
        entries = {row[0]: entry_of(*row) for row in found}
        exact = frozenset(row[0] for row in found if row[2] is not None)
        by_lock = {lease.lock: lease for lease in leases}
        return _Loaded(
            head,
            compacted,
            self.incarnation,
            now,
            entries,
            exact,
            by_lock,
            {lease.lease_id: lease for lease in leases},
        )

    def _part_of(self, entry: Entry, loaded: _Loaded) -> Difference | None:
        """The only part of a large document that has changed, if that is all that need be sent."""
        before = loaded.entries.get(entry.key)
        if before is None or len(before.value) < LARGE_DOCUMENT_BYTES or entry.key in loaded.exact:
            return None
        part = difference(before.value, entry.value)
        return None if part is None or (part.part is not None and is_changed_by_jsonb(part.part)) else part

    async def _write_part(self, connection: Connection, entry: Entry, part: Difference) -> None:
        statement = statements.REMOVE_PART if part.part is None else statements.SET_PART
        facts = (entry.key, entry.revision, entry.created_at, entry.updated_at, entry.expires_at, list(part.path))
        with watched(connection, SILENCE_SECONDS):
            await connection.execute(statement, self._namespace, *facts, *(() if part.part is None else (part.part,)))

    async def _execute(self, connection: Connection, statement: str) -> str:
        with watched(connection, SILENCE_SECONDS):
            return await connection.execute(statement)

    # The head -------------------------------------------------------------------------------------------------

    def _publish(self, revision: int) -> None:
        """A revision was committed, here or elsewhere."""
        if revision > self._revision:
            self._revision = revision
            self._published.set()
            self._published.clear()

    def _see(self, incarnation: str | None) -> None:
        """The store's incarnation, read with what is answered next. None: of a database that is older than it."""
        if incarnation != self.incarnation and incarnation is not None:
            log.warning("the store has another incarnation", incarnation=incarnation, before=self.incarnation)
            self.incarnation = incarnation

    def _publish_unheard(self, revision: int, incarnation: str | None) -> None:
        """As `_publish`, of what no notification has told yet: locks may have been set free meanwhile, too."""
        self._see(incarnation)
        if revision > self._revision:
            self._publish(revision)
            self._tell_freed(None)
        elif revision < self._revision and self._is_open:
            # Mostly a commit of our own since it was read; ADVANCE_HEAD knows.
            task = asyncio.get_running_loop().create_task(self._advance_if_gone_back())
            self._advances.add(task)
            task.add_done_callback(self._advances.discard)

    async def _advance_if_gone_back(self) -> None:
        with suppress(ServiceError):  # a commit, or the next look at the head, will do it
            await self._ask(self._advance, retry_seconds=0.0)

    async def _advance(self, connection: Connection) -> None:
        """If the database has gone back (a restore, a failover that lost commits), go on behind all that was told.

        Other servers may know of revisions that this one has not heard of: hence GAP_REVISIONS. With the incarnation,
        the ETags of what is lost match nothing any more.
        """
        known, incarnation = self._revision, self._make_incarnation()
        head = known + GAP_REVISIONS
        with watched(connection, SILENCE_SECONDS):
            arguments = (self._namespace, known, head, incarnation)
            if await connection.fetchval(statements.ADVANCE_HEAD, *arguments) is None:
                return
        log.error("the database has gone back and lacks changes that were told", known=known, revision=head)

    def _publish_own(self, written: _Written) -> None:
        self._publish(written.head)
        if written.freed:
            if self._listener.hears_others:
                asyncio.get_running_loop().call_later(YIELD_SECONDS, self._tell_freed, written.freed)
            else:
                self._tell_freed(written.freed)

    def _tell_freed(self, locks: Sequence[str] | None) -> None:
        """Not while everything is refused: those who wait would only lose their places. `recover` wakes them."""
        if self._takes_writes():
            self._freed(locks)

    def watch_locks(self, freed: Freed) -> None:
        self._freed = freed

    async def wait(self, revision: int) -> None:
        while self._revision <= revision:
            await self._published.wait()

    # Failures -------------------------------------------------------------------------------------------------

    def _failed(self, failure: BaseException) -> ServiceError:
        """An operation failed for good. Returns what its caller hears."""
        error = as_service_error(failure)
        if is_refusal(failure):
            self._reports.tell(log.error, "the database refused a statement", failure)
            self._suspect()
        else:
            self._note(error)
        return error

    def _note(self, error: ServiceError) -> None:
        """Writers are refused until something could be written."""
        if error.code == "storage_full":
            self._set_fault(ServiceError("storage_full", "the database's disk is full"))
        else:
            self._is_away = True
            self._set_fault(unavailable("the database cannot be reached at present"))

    def _set_fault(self, fault: ServiceError) -> None:
        if self._is_open and (self._fault is None or self._fault.message != fault.message):
            log.error("the database cannot be used", code=fault.code, reason=fault.message)
        self._fault = fault

    def _suspect(self) -> None:
        """A refusal may concern one operation, or all writes: an empty one tells. Once a second, whoever is refused."""
        loop = asyncio.get_running_loop()
        if not self._is_open or self._fault is not None or loop.time() < self._suspected_at + SUSPECT_SECONDS:
            return
        self._suspected_at = loop.time()
        task = loop.create_task(self._try_to_write())
        self._advances.add(task)
        task.add_done_callback(self._advances.discard)

    async def recover(self) -> None:
        if self._fault is not None and self._is_open:
            await self._try_to_write()

    async def _try_to_write(self) -> None:
        """Set or clear the fault by what becomes of an empty commit."""
        try:
            await self._ask(self._commit_nothing, retry_seconds=0.0)
        except ServiceError as error:
            if is_refusal(error.__cause__):
                self._is_away = False
                self._set_fault(unavailable("the database refuses all writes at present"))
            return
        self._is_away = False
        if self._fault is None:
            return
        self._fault = None
        log.info("the database can be written again")
        # A release of our own whose COMMIT was never answered may have been stored, and locks were not told of since.
        self._freed(None)

    async def _commit_nothing(self, connection: Connection) -> None:
        """All that commits do, with the rights and tables that they need, durable; but it changes nothing.

        It signs a row of its own: a batch whose COMMIT has no answer may be looked for meanwhile.
        """
        async with connection.transaction():
            rows = await connection.fetch(statements.LOCK_AND_LOAD, self._namespace, "", self._time())
            if not rows:
                raise asyncpg.InterfaceError("the head row is missing")
            now, head, compacted = rows[0][:3]
            await connection.fetch(statements.LOAD_LEASES, self._namespace, "", "")
            await connection.fetch(statements.LAST_BATCH, self._namespace, self._probe_id)
            await connection.execute(statements.WRITE_LEASES, self._namespace, *_lease_columns([]), (), None)
            signature = (self._probe_id, 0, now)
            await connection.fetch(statements.WRITE, self._namespace, *columns([]), [], [], head, *signature)
            await connection.execute(statements.COMPACT, self._namespace, compacted)


def _sendable(text: str) -> str:
    """A prefix, or a place between keys, as PostgreSQL takes it: it has no U+0000.

    No key holds a control character, so U+0001 parts them in the same way.
    """
    return text.replace("\0", "\1")


def _page(found: list[R], limit: int, revision: int) -> Page[R]:
    """Of one record more than asked for, if there is one."""
    page = found[:limit]
    return Page(page, revision, name_of(page[-1]) if len(found) > limit else None)


def _head_of(rows: Sequence[asyncpg.Record]) -> int:
    """The head, which stands in front of each row of SCAN and CHANGES; there is always one."""
    revision = rows[0][0]
    assert isinstance(revision, int)
    return revision


def _change_of(row: asyncpg.Record) -> EntryChange:
    """A change of a row of CHANGES: only a deletion has no time."""
    return Deletion(row[2], row[5]) if row[7] is None else entry_of(*row[2:])


def _lease_columns(leases: Sequence[Lease]) -> tuple[Sequence[object], ...]:
    """The arrays of WRITE_LEASES."""
    return (
        [each.lock for each in leases],
        [each.lease_id for each in leases],
        [each.token for each in leases],
        [each.revision for each in leases],
        [each.acquired_at for each in leases],
        [each.expires_at for each in leases],
        [each.ttl for each in leases],
        [each.holder for each in leases],
        [each.owner.decode() for each in leases],
    )


async def _check_durability(connection: Connection) -> None:
    """Say it when the database itself promises less than its users expect."""
    if await connection.fetchval("SHOW fsync") == "off":
        log.warning("fsync is off in PostgreSQL: a crash of its machine loses data")
    waits_for = await connection.fetchval("SHOW synchronous_commit")
    if waits_for in _LOSSES:
        log.warning(f"synchronous_commit is {waits_for} in PostgreSQL: {_LOSSES[waits_for]}")


_LOSSES: Final = {
    "off": "a crash of it loses acknowledged changes",
    "local": "no commit waits for a synchronous standby, so a failover may lose acknowledged changes",
    "remote_write": "a synchronous standby that crashes may lose acknowledged changes",
}
"""By the values of synchronous_commit that wait for less than a sync here and on the synchronous standbys."""
