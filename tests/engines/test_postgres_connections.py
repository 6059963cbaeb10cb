"""How connections are made: connection strings of every form, TLS, time limits."""

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from databases import Database, commit, counting, database_for, opened, read, run
from driving import json_text

from leasehold.engines.postgres import array_types, links
from leasehold.engines.postgres.links import Address
from leasehold.errors import ServiceError
from leasehold.model import Entry

PASSWORD = "pass 'word\\ %41"


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return database_for(tmp_path).create()


def test_a_connection_string_can_be_a_list_of_parameters(database: Database) -> None:
    database.as_role("particular")
    database.execute(f"ALTER ROLE particular PASSWORD $p${PASSWORD}$p$")
    parts = urlsplit(database.url)
    quoted = PASSWORD.replace("\\", r"\\").replace("'", r"\'")
    text = (
        f"hostaddr={parts.hostname} port={parts.port} dbname={parts.path[1:]} user=particular password='{quoted}' "
        f"search_path={database.schema} keepalives_idle=30 connect_timeout=3 application_name=mine "
        "options='-c work_mem=1MB' gssencmode=disable load_balance_hosts=random target_session_attrs=any"
    )

    async def scenario() -> list[str]:
        async with opened(text) as engine:
            assert await commit(engine, ["n"], counting("n")) is None
        connection = await Address(text).connect()
        names = ("application_name", "work_mem", "search_path")
        found = [await connection.fetchval("SELECT current_setting($1)", name) for name in names]
        await connection.close()
        return found

    assert run(scenario()) == ["mine", "1MB", database.schema]


def test_a_connection_attempt_ends_after_connect_timeout_or_the_time_that_requests_wait() -> None:
    for text, seconds in (("0", None), ("1", 1.0), ("60", 5.0), ("-1", None)):
        assert Address(f"postgresql://h?connect_timeout={text}")._connect_seconds == seconds


# TLS ----------------------------------------------------------------------------------------------------------


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate that signs itself, for a DNS name, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


@asynccontextmanager
async def behind_tls(database: Database, certificate: tuple[Path, Path]) -> AsyncIterator[int]:
    """A port that adds TLS to the database server, because the server from the wheel has no TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    pumps: set[asyncio.Task[None]] = set()

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                target.write(data)
                await target.drain()
        except OSError:
            pass
        target.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(8)  # SSLRequest
            writer.write(b"S")
            await writer.start_tls(context)
        except (OSError, asyncio.IncompleteReadError):
            writer.transport.abort()
            return
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", database.port)
        for ends in ((reader, server_writer), (server_reader, writer)):
            task = asyncio.get_running_loop().create_task(pump(*ends))
            pumps.add(task)
            task.add_done_callback(pumps.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(pumps):
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def failure_at_start(url: str) -> str:
    with pytest.raises(ServiceError) as caught:
        async with opened(url):
            pass
    return caught.value.message.removeprefix("the store cannot be opened: ")


def test_a_matching_certificate_is_trusted_and_any_other_is_reported(database: Database, tmp_path: Path) -> None:
    good, other = make_certificate(tmp_path, "localhost"), make_certificate(tmp_path, "elsewhere")

    async def scenario() -> None:
        async with behind_tls(database, good) as port:
            url = f"{database.at(f'localhost:{port}')}&sslmode=verify-full"
            async with opened(f"{url}&sslrootcert={good[0]}") as engine:
                assert await commit(engine, ["n"], counting("n")) is None
            told = await failure_at_start(f"{url}&sslrootcert={other[0]}")
            assert told.startswith("the certificate of PostgreSQL is not trusted: self")
            told = await failure_at_start(f"{url}&sslrootcert=system")
            assert told.startswith("the certificate of PostgreSQL is not trusted: self")
        async with behind_tls(database, other) as port:
            url = f"{database.at(f'localhost:{port}')}&sslrootcert={other[0]}"
            told = await failure_at_start(f"{url}&sslmode=verify-full")
            assert told.startswith("the certificate of PostgreSQL is not trusted: Hostname mismatch")
            async with opened(f"{url}&sslmode=verify-ca") as engine:
                assert await commit(engine, ["n"], counting("n")) is None

    run(scenario())


def test_a_server_without_tls_is_reported_if_sslmode_requires_tls(database: Database) -> None:
    told = run(failure_at_start(f"{database.url}&sslmode=require"))
    assert told == "PostgreSQL does not offer TLS, which sslmode asks for"


def test_a_file_that_is_not_a_certificate_is_reported(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "root.crt"
    file.write_text("nothing of that kind")
    told = run(failure_at_start(f"{database.url}&sslmode=verify-ca&sslrootcert={file}"))
    assert told.startswith("TLS with PostgreSQL failed: ")
    system = f"{database.url}&sslrootcert=system&sslcert={file}"
    assert run(failure_at_start(system)).startswith("TLS with PostgreSQL failed: ")


# Settings of the session --------------------------------------------------------------------------------------


def settings_of(database: Database, *others: str) -> dict[str, str]:
    async def ask() -> dict[str, str]:
        connection = await Address(database.url).connect()
        names = [*links.SESSION, "plan_cache_mode", *others]
        found = {name: await connection.fetchval("SELECT current_setting($1)", name) for name in names}
        await connection.close()
        return found

    return run(ask())


def test_a_session_has_its_settings_even_if_the_role_has_others(database: Database) -> None:
    of_the_role = database.as_role("slow")
    database.execute("ALTER ROLE slow SET lock_timeout = 0; ALTER ROLE slow SET plan_cache_mode = force_custom_plan")
    assert settings_of(of_the_role) == {
        "client_min_messages": "error",
        "enable_seqscan": "off",
        "enable_bitmapscan": "off",
        "jit": "off",
        "idle_in_transaction_session_timeout": "5s",
        "lock_timeout": "5s",
        "tcp_keepalives_idle": "5",
        "tcp_keepalives_interval": "2",
        "tcp_keepalives_count": "3",
        "plan_cache_mode": "force_generic_plan",
    }


def test_a_session_of_a_distributed_database_has_the_settings_for_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catalogue shows it by an extension. The test uses one that is always installed."""
    monkeypatch.setattr(links, "DISTRIBUTING_EXTENSION", "plpgsql")
    settings = settings_of(database, "citus.override_table_visibility")
    assert (settings["plan_cache_mode"], settings["citus.override_table_visibility"]) == ("auto", "off")


# Types --------------------------------------------------------------------------------------------------------


@contextmanager
def counted_questions(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[set[int]]]:
    """The ids of the types that asyncpg asks the database for."""
    asked: list[set[int]] = []
    ask = asyncpg.Connection._introspect_types  # type: ignore[attr-defined] # not in the stubs

    async def asking(connection: object, ids: Iterable[int], *rest: object) -> object:
        asked.append(set(ids))
        return await ask(connection, ids, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(asyncpg.Connection, "_introspect_types", asking)
        yield asked


def test_a_process_asks_once_for_the_types_that_come_with_postgresql(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_types, "_shapes", {})

    async def scenario() -> tuple[int, int]:
        with counted_questions(monkeypatch) as asked:
            async with opened(database.url) as engine:
                assert await commit(engine, ["n"], counting("n")) is None
            first = len(asked)
            async with opened(database.url) as engine:
                assert await commit(engine, ["n"], counting("n")) is None
                entry = await read(engine, "n")
        assert isinstance(entry, Entry)
        assert json_text(entry.value) == b"2"
        return first, len(asked)

    first, both = run(scenario())
    assert 0 < first == both


def test_the_types_of_a_database_are_asked_for_by_each_connection(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A type of the same id may be another one in another database."""
    database.execute("CREATE TYPE mood AS ENUM ('calm', 'busy')")

    async def moods() -> list[list[str]]:
        found = []
        with counted_questions(monkeypatch) as asked:
            for _ in range(2):
                connection = await Address(database.url).connect()
                found.append(await connection.fetchval("SELECT ARRAY['busy']::mood[]"))
                await connection.close()
        assert len(asked) == 2
        return found

    assert run(moods()) == [["busy"], ["busy"]]
