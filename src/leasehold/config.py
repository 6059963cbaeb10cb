"""Settings: the only reader of flags and environment.

A flag wins over the environment, the environment over the default. Every setting has a variable, `LEASEHOLD_` and its
name in capitals: `LEASEHOLD_PORT`, `LEASEHOLD_MAX_BODY_BYTES`.
"""

from collections.abc import Mapping
from typing import Literal, TypeVar

import msgspec

from leasehold.errors import ServiceError
from leasehold.limits import Limits

PREFIX = "LEASEHOLD_"

Kind = TypeVar("Kind", bound=msgspec.Struct)

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All that one server is told."""

    host: str = "127.0.0.1"
    port: int = 8080
    """0 picks a free port."""
    store: str = "data.json"
    workers: int = 1
    """Processes that share the port, where the store may be shared."""
    auth_secret_file: str | None = None
    """With the secret of HS256 tokens."""
    auth_public_key_file: str | None = None
    """With the PEM public key of EdDSA, ES256 or RS256 tokens."""
    auth_issuer: str | None = None
    auth_audience: str | None = None
    insecure_open: bool = False
    """Serve without tokens although the address is not loopback."""
    allowed_hosts: str = ""
    """Names, separated by commas, by which a service on loopback may be called beside its own."""
    log_format: LogFormat = "text"
    log_level: LogLevel = "info"
    limits: Limits = Limits()


def load_settings(environment: Mapping[str, str], flags: Mapping[str, str | int | None]) -> Settings:
    """Settings from what was given. Raises `invalid_argument` naming the setting that is wrong."""
    settings = _own(environment, Settings, skip="limits")
    settings |= {name: value for name, value in flags.items() if value is not None}
    limits = _convert(_own(environment, Limits), Limits)
    chosen = _convert(settings, Settings)
    _check(chosen, limits)
    return msgspec.structs.replace(chosen, limits=limits)


def _own(environment: Mapping[str, str], kind: type[msgspec.Struct], *, skip: str = "") -> dict[str, str | int]:
    """The variables that name fields of `kind`."""
    names = (name for name in kind.__struct_fields__ if name != skip)
    return {name: environment[PREFIX + name.upper()] for name in names if PREFIX + name.upper() in environment}


def _convert(given: Mapping[str, str | int], kind: type[Kind]) -> Kind:
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        # The library's message names the field and what was expected, never more than the operator gave.
        raise ServiceError("invalid_argument", f"wrong setting: {error}") from error


def _check(settings: Settings, limits: Limits) -> None:
    if not 0 <= settings.port <= 65_535:
        raise ServiceError("invalid_argument", "wrong setting: port is 0 to 65535")
    if settings.workers < 1:
        raise ServiceError("invalid_argument", "wrong setting: workers must be at least 1")
    if "" in (settings.auth_secret_file, settings.auth_public_key_file):
        raise ServiceError("invalid_argument", "wrong setting: the file with the key of tokens has no name")
    if settings.auth_secret_file and settings.auth_public_key_file:
        raise ServiceError("invalid_argument", "wrong setting: give a secret or a public key for tokens, not both")
    for name in limits.__struct_fields__:
        if not getattr(limits, name) > 0:  # also refuses NaN
            raise ServiceError("invalid_argument", f"wrong setting: {name} must be greater than 0")


_DURATION_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def parse_duration(text: str) -> float:
    """Seconds of `30s`, `15m`, `1h`, `7d`, or a plain number of seconds. Raises `invalid_argument`."""
    unit = _DURATION_UNITS.get(text[-1:], 0)
    number = text[:-1] if unit else text
    if not number.isascii() or not number.isdecimal() or len(number) > 9 or int(number) == 0:
        raise ServiceError("invalid_argument", "a duration is like 30s, 15m, 1h or 7d")
    return float(int(number) * (unit or 1))
