"""Connection strings of PostgreSQL: URLs and `name=value` lists, as libpq reads them.

https://www.postgresql.org/docs/18/libpq-connect.html#LIBPQ-CONNSTRING. Each parameter of libpq is in one of three
tables below: supported as in libpq (`SUPPORTED`), accepted without effect (`IGNORED`), or refused (`REFUSED`);
docs/postgres.md has the same tables. A parameter is never ignored if the connection would be less safe without it.
libpq's variables (`PGSSLMODE`, …) and service files are read as well, and checked with the same tables.

No message contains a value: it might be a password, or a part of a password that was not escaped.
"""

import configparser
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import msgspec

from leasehold.errors import ServiceError

SCHEMES: Final = ("postgresql", "postgres")

_SSL_VERSIONS: Final = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_VERIFY_FULL: Final = "sslmode=verify-full makes sure of the server"

SUPPORTED: Final[Mapping[str, tuple[str, ...]]] = {
    "host": (),
    "hostaddr": (),
    "port": (),
    "dbname": (),
    "user": (),
    "password": (),
    "passfile": (),
    "service": (),
    "connect_timeout": (),
    "options": (),
    "application_name": (),
    "fallback_application_name": (),
    "target_session_attrs": ("any", "read-write", "primary"),
    "load_balance_hosts": ("disable", "random"),
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "sslrootcert": (),
    "sslcert": (),
    "sslkey": (),
    "sslpassword": (),
    "sslcrl": (),
    "ssl_min_protocol_version": _SSL_VERSIONS,
    "ssl_max_protocol_version": _SSL_VERSIONS,
    "krbsrvname": (),
    "gsslib": ("gssapi", "sspi"),
    # Not a parameter of libpq, but a setting that is often needed for this service.
    "search_path": (),
}
"""Supported as in libpq. If values are listed, all others are refused."""

IGNORED: Final[Mapping[str, tuple[str, ...]]] = {
    "keepalives": (),
    "keepalives_idle": (),
    "keepalives_interval": (),
    "keepalives_count": (),
    "tcp_user_timeout": (),
    "client_encoding": (),
    "sslcompression": (),
    "sslsni": (),
    "sslkeylogfile": (),
    "max_protocol_version": (),
    "channel_binding": ("disable", "prefer"),
    "gssencmode": ("disable", "prefer"),
    "gssdelegation": ("0",),
    "sslcertmode": ("allow",),
    "min_protocol_version": ("3.0",),
    "replication": ("false", "off", "no", "0"),
}
"""Accepted without effect. If values are listed, all others are refused."""

REFUSED: Final[Mapping[str, str]] = {
    "channel_binding": f"channel binding is not supported; leave it out, and {_VERIFY_FULL}",
    "require_auth": f"how the server authenticates cannot be restricted; leave it out, and {_VERIFY_FULL}",
    "requirepeer": "the owner of the server's socket cannot be checked",
    "gssencmode": "encryption by GSSAPI is not supported; use TLS",
    "gssdelegation": "credentials are not delegated",
    "sslcertmode": "whether a certificate is sent follows from sslcert",
    "sslcrldir": "revoked certificates are looked up in a file only: sslcrl",
    "min_protocol_version": "version 3.0 of the protocol is spoken",
    "replication": "the service is no replica",
    "scram_client_key": "give the password",
    "scram_server_key": "give the password",
    "oauth_issuer": "OAuth is not supported",
    "oauth_client_id": "OAuth is not supported",
    "oauth_client_secret": "OAuth is not supported",
    "oauth_scope": "OAuth is not supported",
}
"""Refused, each with the reason."""

LIBPQ: Final = (SUPPORTED.keys() | IGNORED.keys() | REFUSED.keys()) - {"search_path"}
SECRETS: Final = frozenset({"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"})
_ALIASES: Final = {"database": "dbname"}

_VARIABLES: Final = {
    "PGHOST": "host",
    "PGHOSTADDR": "hostaddr",
    "PGPORT": "port",
    "PGDATABASE": "dbname",
    "PGUSER": "user",
    "PGPASSWORD": "password",
    "PGPASSFILE": "passfile",
    "PGSERVICE": "service",
    "PGCONNECT_TIMEOUT": "connect_timeout",
    "PGOPTIONS": "options",
    "PGAPPNAME": "application_name",
    "PGTARGETSESSIONATTRS": "target_session_attrs",
    "PGLOADBALANCEHOSTS": "load_balance_hosts",
    "PGSSLMODE": "sslmode",
    "PGSSLNEGOTIATION": "sslnegotiation",
    "PGSSLROOTCERT": "sslrootcert",
    "PGSSLCERT": "sslcert",
    "PGSSLKEY": "sslkey",
    "PGSSLCRL": "sslcrl",
    "PGSSLCRLDIR": "sslcrldir",
    "PGSSLCERTMODE": "sslcertmode",
    "PGSSLMINPROTOCOLVERSION": "ssl_min_protocol_version",
    "PGSSLMAXPROTOCOLVERSION": "ssl_max_protocol_version",
    "PGKRBSRVNAME": "krbsrvname",
    "PGGSSLIB": "gsslib",
    "PGCHANNELBINDING": "channel_binding",
    "PGREQUIREAUTH": "require_auth",
    "PGREQUIREPEER": "requirepeer",
    "PGGSSENCMODE": "gssencmode",
    "PGGSSDELEGATION": "gssdelegation",
    "PGMINPROTOCOLVERSION": "min_protocol_version",
}
"""libpq's variables, except those of parameters that are ignored with any value."""

_TLS_IN_URL: Final[tuple[str, ...]] = (
    *("sslmode", "sslnegotiation", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version"),
)
"""Parameters that asyncpg accepts in a URL only."""
SYSTEM: Final = "system"
"""The value of sslrootcert for the certificates that the system trusts."""


class Host(msgspec.Struct, frozen=True):
    """Where to connect. `name` is None for libpq's default: a socket, or else localhost."""

    name: str | None
    port: int | None


class Target(msgspec.Struct, frozen=True):
    """The checked contents of a connection string."""

    hosts: list[Host]
    values: dict[str, str]
    """The values of parameters in `SUPPORTED`, as given."""
    ignored: list[str]
    """The names of given parameters that have no effect."""

    def get(self, name: str) -> str | None:
        return self.values.get(name)

    @property
    def tls_url(self) -> str | None:
        """The parameters for TLS, as a URL, because asyncpg accepts them in no other form."""
        given = {name: self.values[name] for name in _TLS_IN_URL if name in self.values}
        if given.get("sslrootcert") == SYSTEM:
            del given["sslrootcert"]
        return f"postgresql://?{urlencode(given)}" if given else None


def parse(text: str, environment: Mapping[str, str]) -> Target:
    """Read a connection string. Raises `invalid_argument`, whose message may name the parameter but not its value."""
    given = _of_url(text) if "://" in text.partition("=")[0] else _of_list(text)
    values = {name: value for name, value in given.items() if value}  # an empty value counts as not given
    from_environment = {
        name: environment[variable] for variable, name in _VARIABLES.items() if environment.get(variable)
    }
    service = values.get("service") or from_environment.get("service")
    of_service = _of_service(service, environment) if service else {}
    values = from_environment | of_service | values
    for name, value in values.items():
        _check(name, value)
    if values.get("sslrootcert") == SYSTEM and values.setdefault("sslmode", "verify-full") != "verify-full":
        raise _wrong("sslrootcert=system needs sslmode=verify-full")  # as in libpq, which allows no weaker sslmode
    ignored = sorted(values.keys() & IGNORED.keys())
    done = {name: value for name, value in values.items() if name in SUPPORTED}
    return Target(_hosts(done), done, ignored)


def names_postgres(text: str) -> bool:
    """Whether `text` is a list of `name=value` and not a path."""
    return not text.startswith(("/", "./", "../", "~")) and _SOME_PARAMETER.search(text) is not None


def _wrong(message: str) -> ServiceError:
    return ServiceError("invalid_argument", f"the store's connection string: {message}")


# Parameters -------------------------------------------------------------------------------------------------------


def _check(name: str, value: str) -> None:
    if name not in LIBPQ and name not in SUPPORTED:
        if not re.fullmatch(r"\w+", name, re.ASCII):  # a part of a value that was not escaped
            raise _wrong("there is a parameter whose name is none")
        raise _wrong(f"there is no parameter {name!r}; settings of the server go into options, as -c name=value")
    accepted = SUPPORTED.get(name, ()) or IGNORED.get(name, ())
    if name in REFUSED and value not in accepted:
        raise _wrong(f"{name} as it is given is refused: {REFUSED[name]}")
    if accepted and value not in accepted:
        raise _wrong(f"{name} must be one of {', '.join(accepted)}")
    if name == "connect_timeout" and not re.fullmatch(r"-?\d{1,9}", value):
        raise _wrong("connect_timeout must be a number of seconds")


def _hosts(values: Mapping[str, str]) -> list[Host]:
    names = values.get("host", "").split(",")
    addresses = values.get("hostaddr", "").split(",")
    if "hostaddr" in values:
        if "host" in values and values.get("sslmode") == "verify-full":
            raise _wrong("hostaddr cannot be used with sslmode=verify-full: the name is looked up for the check")
        if "host" in values and len(names) != len(addresses):
            raise _wrong("there must be as many in hostaddr as in host")
        names = [address or name for address, name in zip(addresses, names * len(addresses), strict=False)]
    ports = values.get("port", "").split(",")
    if len(ports) not in (1, len(names)):
        raise _wrong("there must be one port, or as many as hosts")
    numbers = [_port(text) for text in ports]
    if len(numbers) == 1:
        numbers *= len(names)
    if any(name.startswith("@") for name in names):
        raise _wrong("sockets in the abstract namespace are not supported")
    return [Host(name or None, port) for name, port in zip(names, numbers, strict=True)]


def _port(text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:6]) <= 65_535:
        raise _wrong("a port is a number from 1 to 65535; in a password, write @ : / ? # and % as %40 and so on")
    return int(text)


# URLs -------------------------------------------------------------------------------------------------------------

_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z]+)://(?:(?P<user>[^:@/]*)(?::(?P<password>[^@/]*))?@)?(?P<hosts>[^/?]*)(?:/(?P<database>[^?]*))?"
    r"(?:\?(?P<query>.*))?",
    re.DOTALL,
)
_PLACE: Final = re.compile(r"(?:\[(?P<address>[^\]]*)\]|(?P<name>[^:@\[\]]*))(?::(?P<port>[^:]*))?")


def _of_url(url: str) -> dict[str, str]:
    parts = _URL.fullmatch(url)
    if parts is None or parts["scheme"].lower() not in SCHEMES:
        raise _wrong("a URL is like postgresql://user:password@host:port/database?name=value")
    given = {
        "user": _decoded(parts["user"]),
        "password": _decoded(parts["password"]),
        "dbname": _decoded(parts["database"]),
    }
    names, ports = [], []
    for text in parts["hosts"].split(","):
        place = _PLACE.fullmatch(text)
        if place is None:
            raise _wrong("a host is like name:port or [address]:port; in a password, write @ : / ? # and % as %40 …")
        names.append(_decoded(place["address"] or place["name"]))
        ports.append(_decoded(place["port"]))
    given |= {"host": ",".join(names), "port": ",".join(ports) if any(ports) else ""}
    for pair in (parts["query"] or "").split("&"):
        name, equals, value = pair.partition("=")
        if not pair:
            continue
        if not equals or "=" in value:
            raise _wrong("behind the ? there must be name=value, joined by &")
        name = _decoded(name)
        if (name, value) == ("ssl", "true"):  # from JDBC; libpq accepts it, too
            name, value = "sslmode", "require"
        given[_ALIASES.get(name, name)] = _decoded(value)
    return given


def _decoded(text: str | None) -> str:
    """Percent-decode `text` strictly. A plus sign is not a space, as in libpq."""
    if text is None:
        return ""
    if re.search("%(?![0-9A-Fa-f]{2})", text) or "%00" in text:
        raise _wrong("a % that is no %XX; write it as %25")
    raw = re.sub(
        rb"%([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), text.encode("utf-8", "surrogateescape")
    )
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise _wrong("what is written as %XX must be UTF-8") from error


# Lists of name=value ----------------------------------------------------------------------------------------------

_SOME_PARAMETER: Final = re.compile(rf"(?:^|\s)(?:{'|'.join(sorted(LIBPQ | {'search_path', 'passwd'}))})\s*=")
_PAIR: Final = re.compile(
    r"\s*(?P<name>[^\s='\\]+)\s*=\s*(?:'(?P<quoted>(?:[^'\\]|\\.)*)'(?=\s|$)|(?P<plain>(?:[^\s'\\]|\\.)*))\s*",
    re.DOTALL,
)


def _of_list(text: str) -> dict[str, str]:
    given: dict[str, str] = {}
    position = 0
    while position < len(text):
        pair = _PAIR.match(text, position)
        if pair is None:
            raise _wrong("it must be a URL, or name=value, parted by spaces; quote values by '…'")
        value = pair["plain"] if pair["quoted"] is None else pair["quoted"]
        given[_ALIASES.get(pair["name"], pair["name"])] = re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)
        position = pair.end()
    return given


# Service files ----------------------------------------------------------------------------------------------------


def _of_service(service: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The parameters of `service`: from the file in PGSERVICEFILE or the user's own, or else from the system's file."""
    own = environment.get("PGSERVICEFILE") or str(
        Path(environment.get("HOME") or "~").expanduser() / ".pg_service.conf"
    )
    system = Path(environment.get("PGSYSCONFDIR") or "/etc/postgresql-common") / "pg_service.conf"
    for path in (Path(own), system):
        services = configparser.RawConfigParser(delimiters=("=",), comment_prefixes=("#",), strict=False)
        try:
            services.read_string(path.read_text(encoding="utf-8"))
        except OSError:
            continue
        except (configparser.Error, UnicodeDecodeError) as error:
            raise _wrong("the file of services cannot be understood") from error
        if services.has_section(service):
            return {name: value for name, value in services.items(service) if value}
    raise _wrong("there is no such service in the file of services")
