"""Connections to the database: opened when they are needed, limited in time, dropped when they fail.

Every failure drops its connection: a new one is cheap, and its state is known. A new primary drops those to the former
one (`primary`).
"""

import asyncio
import os
import random
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar, cast

import asyncpg
import structlog
from asyncpg.connect_utils import SessionAttribute

from leasehold.engines.postgres import primary
from leasehold.engines.postgres.failures import FAILURES, is_transient
from leasehold.engines.postgres.jsonb import from_jsonb, to_jsonb
from leasehold.engines.postgres.messages import EPOCH_MICROSECONDS
from leasehold.engines.postgres.parameters import SYSTEM, Host, Target, parse
from leasehold.engines.postgres.primary import Primaries, Server, identify
from leasehold.errors import ServiceError
from leasehold.times import MAX_TIME

log = structlog.get_logger(__name__)

T = TypeVar("T")

Connection: TypeAlias = primary.Connection

RETRY_SECONDS: Final = 5.0
"""A transient failure is retried for so long."""
SILENCE_SECONDS: Final = 4.0
"""A connection on which a statement has no answer for so long is dropped. Shorter than RETRY_SECONDS, so that there is
time for another host."""
CONNECT_SECONDS: Final = 2.0
"""For each host."""
PAUSE_SECONDS: Final = 0.1
CLOSE_SECONDS: Final = 1.0

_USERS_ROOTS: Final = Path("~/.postgresql/root.crt")
"""What libpq trusts by default."""

SESSION: Final = {
    # Only the warnings of a COMMIT matter: they say that it did not wait for a synchronous standby. A transaction turns
    # them on directly before its COMMIT.
    "client_min_messages": "error",
    # The statements are few and made for their indexes. A plan made while a table was small must not stay a scan.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
    # A server of ours that hangs in a commit must not block the others for longer than they wait.
    "idle_in_transaction_session_timeout": "5000",
    "lock_timeout": "5000",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}
DISTRIBUTING_EXTENSION: Final = "citus"
"""It cannot plan most statements without their parameters, which a generic plan lacks."""
SET_UP: Final = """
    SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) AS setting(name, value)
    UNION ALL
    SELECT set_config('plan_cache_mode', CASE
        WHEN EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = $3) THEN 'auto' ELSE 'force_generic_plan'
    END, false)
    UNION ALL
    SELECT set_config('citus.override_table_visibility', 'off', false) FROM pg_catalog.pg_extension WHERE extname = $3
"""
"""By a statement and not when the session begins: poolers drop the settings that come with it, or refuse them.

asyncpg asks for the description of types, such as timestamptz[], when a session first uses them. Citus adds a condition
to that query, which hides the tables of its shards: then it takes 5 to 36 s with 2,000 types, and 0.1 s without it.
"""


class Address:
    """Where the database is. Several hosts are tried in turn: first the last good one, last the one that was silent.

    Raises `invalid_argument` for a connection string that cannot be used.
    """

    def __init__(self, url: str) -> None:
        target = self._target = parse(url, os.environ)
        if target.ignored:
            log.info("parameters of the connection have no effect here", names=target.ignored)
        self._hosts = list(target.hosts)
        if target.get("load_balance_hosts") == "random":
            random.shuffle(self._hosts)
        # After a failover the old primary may be there, read only.
        self._session_kind = SessionAttribute(target.get("target_session_attrs") or "read-write")
        seconds = int(target.get("connect_timeout") or 0)
        self._connect_seconds = min(float(seconds), RETRY_SECONDS) if seconds > 0 else None
        name = target.get("application_name") or target.get("fallback_application_name") or "leasehold"
        options, search_path = target.get("options"), target.get("search_path")
        self._at_its_beginning = {"application_name": name} | ({} if options is None else {"options": options})
        self._settings = SESSION | ({} if search_path is None else {"search_path": search_path})
        _check_files(target)
        self._tls = _trusting_the_system(target) if target.get("sslrootcert") == SYSTEM else None
        self._primaries = Primaries()
        self._host_in_use: Host | None = None
        """Where the present primary was found. It is not the first one while it was silent last."""

    async def connect(self) -> Connection:
        """A new session on the primary. If it is a new primary, all sessions on the former one end first.

        Raises one of FAILURES, or ValueError.
        """
        first_failure: Exception | None = None
        for host in list(self._hosts):
            try:
                connection, server = await self._connect_to(host)
                self._primaries.add(connection, server)
            except FAILURES as failure:
                # A refused password says more than a second host that is down, a wrong role more than either.
                if first_failure is None or isinstance(failure, asyncpg.TargetServerAttributeNotMatched):
                    first_failure = failure
                continue
            self._put_first(host)
            return connection
        assert first_failure is not None
        raise first_failure

    def put_last(self, host: Host) -> None:
        """A session at this host was silent. A server that is frozen, or whose commits wait for a standby, would cost
        the next attempt its time, too."""
        self._hosts.sort(key=host.__eq__)  # the order of the others stays

    @property
    def has_several_hosts(self) -> bool:
        return len(self._hosts) > 1

    async def look_around(self) -> None:
        """Ask the other hosts whether one of them is a new primary. If so, all sessions on the former one end, and the
        next ones are made there first. Nothing is asked while it is not known which primary is used."""
        others = [host for host in self._hosts if host != self._host_in_use]
        for host in others if self._primaries.are_known else ():
            with suppress(*FAILURES):  # a standby, or nobody is there
                connection = await self._open(host)
                try:
                    with time_limit(connection, self._seconds):
                        server = await identify(connection)
                finally:
                    connection.terminate()
                if self._primaries.is_new(server):
                    self._put_first(host)

    def _put_first(self, host: Host) -> None:
        self._host_in_use = host
        self._hosts.sort(key=host.__ne__)  # the order of the others stays

    async def _connect_to(self, host: Host) -> tuple[Connection, Server | None]:
        connection = await self._open(host)
        try:
            with time_limit(connection, self._seconds):
                settings = (list(self._settings), list(self._settings.values()))
                await connection.execute(SET_UP, *settings, DISTRIBUTING_EXTENSION)
                await connection.set_type_codec(
                    "jsonb", schema="pg_catalog", format="binary", encoder=to_jsonb, decoder=from_jsonb
                )
                await connection.set_type_codec(
                    "timestamptz", schema="pg_catalog", format="tuple", encoder=_to_timestamp, decoder=_from_timestamp
                )
                server = await identify(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection, server

    @property
    def _seconds(self) -> float:
        """The time limit for each host."""
        return self._connect_seconds or CONNECT_SECONDS

    async def _open(self, host: Host) -> Connection:
        """A session at this host, if it takes writes, without the settings."""
        target = self._target
        connection = await asyncpg.connect(
            target.tls_url,
            host=host.name,
            port=host.port,
            user=target.get("user"),
            password=target.get("password"),
            passfile=target.get("passfile"),
            database=target.get("dbname"),
            ssl=self._tls,
            krbsrvname=target.get("krbsrvname"),
            gsslib=cast('Literal["gssapi", "sspi"] | None', target.get("gsslib")),
            timeout=self._seconds,
            connection_class=Connection,
            server_settings=self._at_its_beginning,
            max_cached_statement_lifetime=0,
            target_session_attrs=self._session_kind,
        )
        connection.host = host
        return connection


def _check_files(target: Target) -> None:
    """Raise `invalid_argument` if what TLS needs cannot be read."""
    for name in ("sslrootcert", "sslcert", "sslkey", "sslcrl"):
        file = target.get(name)
        if file is not None and file != SYSTEM and not os.access(file, os.R_OK):
            raise ServiceError("invalid_argument", f"the file of {name} is not there or cannot be read")
    mode = target.get("sslmode") or ""
    if mode.startswith("verify") and target.get("sslrootcert") is None and not _USERS_ROOTS.expanduser().exists():
        raise ServiceError("invalid_argument", f"sslmode={mode} needs sslrootcert: a file, or system")


def _trusting_the_system(target: Target) -> ssl.SSLContext:
    """As sslmode=verify-full, with the certificates that the system trusts, for which asyncpg has no parameter."""
    context = ssl.create_default_context()
    context.minimum_version = _tls_version(target.get("ssl_min_protocol_version") or "TLSv1.2")
    latest = target.get("ssl_max_protocol_version")
    if latest is not None:
        context.maximum_version = _tls_version(latest)
    revoked = target.get("sslcrl")
    if revoked is not None:
        context.load_verify_locations(cafile=revoked)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    certificate = target.get("sslcert")
    if certificate is not None:
        password = target.get("sslpassword") or ""
        context.load_cert_chain(certificate, target.get("sslkey"), password=lambda: password)
    context.set_alpn_protocols(["postgresql"])
    return context


def _tls_version(name: str) -> ssl.TLSVersion:
    return ssl.TLSVersion[name.replace(".", "_")]


def _to_timestamp(microseconds: int) -> tuple[int]:
    return (microseconds - EPOCH_MICROSECONDS,)


def _from_timestamp(sent: tuple[int]) -> int:
    """Another program may have written `infinity`, or a year that text of ours has no digits for."""
    microseconds = sent[0] + EPOCH_MICROSECONDS
    return microseconds if 0 <= microseconds <= MAX_TIME else min(max(microseconds, 0), MAX_TIME)


@contextmanager
def time_limit(connection: Connection, seconds: float) -> Iterator[None]:
    """Terminate the connection if the `with` block takes longer than `seconds`.

    A query is not cancelled first: that needs a request to the server, which may be the one that does not answer.

    Raises InterfaceError if the connection was terminated between the two requests of a query, for which asyncpg 0.32.0
    raises AttributeError.
    """
    timer = asyncio.get_running_loop().call_later(seconds, _end_silent, connection)
    try:
        yield
    except AttributeError as error:
        if not connection.is_closed():
            raise
        raise asyncpg.InterfaceError("the connection was terminated") from error
    finally:
        timer.cancel()


def _end_silent(connection: Connection) -> None:
    connection.is_silent = True
    connection.terminate()


@contextmanager
def collect_warnings(connection: Connection) -> Iterator[list[str | None]]:
    """The SQLSTATEs of the warnings during the `with` block. A warning arrives before the answer to its statement."""
    warnings: list[str | None] = []

    def hear(_connection: object, message: asyncpg.PostgresLogMessage) -> None:
        if message.severity_en == "WARNING":
            log.warning("the database warns", sqlstate=message.sqlstate, reason=message.message)
            warnings.append(message.sqlstate)

    connection.add_log_listener(hear)
    try:
        yield warnings
    finally:
        connection.remove_log_listener(hear)


class Link:
    """One connection, used by one caller at a time."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connection: Connection | None = None
        self._closing: asyncio.Event = asyncio.Event()

    async def connected(self) -> Connection:
        """The connection, a new one if there is none. Raises one of FAILURES."""
        connection = self._connection
        if connection is None or connection.is_closed():
            self.drop()
            connection = self._connection = await self._address.connect()
        return connection

    def drop(self) -> None:
        """Terminate a connection that failed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
            if connection.is_silent:
                self._address.put_last(connection.host)

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, retry_seconds: float, silence: float) -> T:
        """Run `work`. After a transient failure, repeat it on a new connection. `work` must be repeatable.

        If the failure is that there is a new primary, it is repeated at once, however long it has taken.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + retry_seconds
        while True:
            try:
                connection = await self.connected()
                with time_limit(connection, silence):
                    return await work(connection)
            except FAILURES as failure:
                is_of_former = self._connection is not None and self._connection.is_of_former
                self.drop()
                if not is_of_former and not (is_transient(failure) and await self.pause(deadline)):
                    raise
            except BaseException:
                self.drop()  # cancelled in the middle of something
                raise

    async def pause(self, deadline: float) -> bool:
        """Wait PAUSE_SECONDS before another attempt. False if there is no time for one."""
        seconds = min(PAUSE_SECONDS, deadline - asyncio.get_running_loop().time())
        if seconds <= 0 or self._closing.is_set():
            return False
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return True
        return False

    def stop_retrying(self) -> None:
        """Make no more retries."""
        self._closing.set()

    def retry_again(self) -> None:
        """Make retries, also after `stop_retrying`."""
        self._closing.clear()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None or connection.is_closed():
            return
        with time_limit(connection, CLOSE_SECONDS):
            try:
                await connection.close()
            except FAILURES:
                connection.terminate()
