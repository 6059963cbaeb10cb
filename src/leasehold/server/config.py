"""Settings. This is the only module that reads flags and environment.

A flag overrides the environment, and the environment overrides the default. Every setting has a variable, `LEASEHOLD_`
and its name in capitals: `LEASEHOLD_PORT`, `LEASEHOLD_MAX_BODY_BYTES`. An empty variable counts as not set, because
`${NAME:-}` in a compose file produces one. To add a setting, add a field to `Settings`; its type defines what is
accepted.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

import msgspec
from msgspec import Meta, inspect

from leasehold.access.hosts import parse_allowed_hosts, parse_allowed_origins
from leasehold.errors import ServiceError
from leasehold.http.media_types import DEFAULT_BINARY_TYPES, parse_binary_types
from leasehold.limits import MAX_LIMIT_SECONDS, Limits

PREFIX: Final = "LEASEHOLD_"
MAX_LEEWAY_SECONDS: Final = 300
"""RFC 7519, section 4.1.4: usually no more than a few minutes."""
MAX_SHOWN_CHARACTERS: Final = 80
"""A wrong value is cut to this length in the error message."""

Kind = TypeVar("Kind", bound=msgspec.Struct)
Flag = str | int | Sequence[str] | None
"""The value of a flag. None or an empty list: the flag was not given."""

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of one server."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8080
    """0: any free port."""
    store: str = "data.json"
    workers: Annotated[int, Meta(ge=1)] = 1
    """Processes that share the port. More than one needs a store that may be shared."""
    auth_secret_file: tuple[str, ...] = ()
    """Files, each with a secret of HS256 tokens. A token may be signed with any of them; `leasehold token` signs with
    the first."""
    auth_public_key_file: tuple[str, ...] = ()
    """Files, each with a PEM public key of EdDSA, ES256 or RS256 tokens."""
    auth_issuer: str | None = None
    auth_audience: str | None = None
    auth_leeway_seconds: Annotated[float, Meta(ge=0, le=MAX_LEEWAY_SECONDS)] = 5.0
    """How much the clock may be behind the clock of the token's issuer, for `nbf`."""
    auth_expiry_leeway_seconds: Annotated[float, Meta(ge=0, le=MAX_LEEWAY_SECONDS)] = 0.0
    """How long after its `exp` a token is still accepted."""
    insecure_open: bool = False
    """Serve without tokens on an address that is not loopback."""
    allowed_hosts: str = ""
    """Host names, separated by commas, that a service on loopback accepts in addition to its own."""
    allowed_origins: str = ""
    """Origins, separated by commas, whose web pages may use the service from a browser."""
    binary_types: str = ", ".join(DEFAULT_BINARY_TYPES)
    """The media types of bodies that are stored as bytes, separated by commas; `none`: no such body is accepted."""
    log_format: LogFormat = "text"
    log_level: LogLevel = "info"
    exports_spans: bool = False
    """Whether a variable of OpenTelemetry names a collector: see `_names_a_collector`."""
    limits: Limits = Limits()


def load_settings(environment: Mapping[str, str], flags: Mapping[str, Flag]) -> Settings:
    """Settings from flags and environment. The keys of `flags` are the names of the fields.

    Raises `invalid_argument` with the name of the wrong flag or variable and what is accepted.
    """
    given = _given(environment, flags)
    limits = _convert(given, Limits)
    _check_names(given)
    for name in limits.__struct_fields__:
        value = getattr(limits, name)
        if not value > 0:  # also false for NaN
            raise _wrong(given[name], "must be greater than 0")
        if name.endswith("_seconds") and value > MAX_LIMIT_SECONDS:
            raise _wrong(given[name], f"must be at most {MAX_LIMIT_SECONDS:.0f}")
    if "auth_secret_file" in given and "auth_public_key_file" in given:
        sources = " and ".join(given[name].source for name in ("auth_secret_file", "auth_public_key_file"))
        raise ServiceError("invalid_argument", f"{sources} cannot be combined: give a secret or a public key")
    return msgspec.structs.replace(
        _convert(given, Settings), exports_spans=_names_a_collector(environment), limits=limits
    )


def _check_names(given: Mapping[str, "_Given"]) -> None:
    for name, parse in _PARSERS.items():
        if name in given:
            try:
                parse(str(given[name].value))
            except ServiceError as error:
                raise ServiceError("invalid_argument", f"{given[name].source}: {error.message}") from error


_PARSERS: Final[Mapping[str, Callable[[str], object]]] = {
    "allowed_hosts": parse_allowed_hosts,
    "allowed_origins": parse_allowed_origins,
    "binary_types": parse_binary_types,
}
"""Settings that are texts with a syntax of their own."""
_REPEATED: Final = {"allowed_origins": "--allowed-origin"}
"""Flags that can be repeated and whose name is the singular of the setting's name."""
_NO_SETTINGS: Final = ("exports_spans", "limits")
_NAMES: Final = (
    *Limits.__struct_fields__,
    *(name for name in Settings.__struct_fields__ if name not in _NO_SETTINGS),
)
"""The names of all settings."""


class _Given(msgspec.Struct, frozen=True):
    """The value that was given for a setting, and its source."""

    source: str
    """The name that the operator used: `--port`, `LEASEHOLD_PORT`."""
    value: str | int | Sequence[str]


def _given(environment: Mapping[str, str], flags: Mapping[str, Flag]) -> dict[str, _Given]:
    """All values that were given, by the names of the settings."""
    given: dict[str, _Given] = {}
    for name in _NAMES:
        variable = _variable(name)
        value = environment.get(variable)
        if value and not _is_service_link(variable, value):
            given[name] = _Given(variable, value)
    for name, flag in flags.items():
        if flag is not None and flag != []:
            given[name] = _Given(_REPEATED.get(name, f"--{name.replace('_', '-')}"), flag)
            if flag == "" or (isinstance(flag, list) and "" in flag):
                raise ServiceError("invalid_argument", f"{given[name].source} must not be empty")
    return given


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _convert(given: Mapping[str, _Given], kind: type[Kind]) -> Kind:
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        if field.name in given:
            try:
                values[field.name] = msgspec.convert(
                    _parts(given[field.name].value, field.type), field.type, strict=False
                )
            except msgspec.ValidationError as error:
                raise _wrong(given[field.name], f"must be {_expected(field.type)}") from error
    return kind(**values)


def _parts(value: str | int | Sequence[str], kind: Any) -> object:  # noqa: ANN401 - the type of a field
    """Split the value of a variable at its commas if the setting is a list."""
    if isinstance(value, str) and get_origin(kind) is tuple:
        return [part for part in map(str.strip, value.split(",")) if part]
    return value


def _wrong(given: _Given, fault: str) -> ServiceError:
    shown = str(given.value)
    if len(shown) > MAX_SHOWN_CHARACTERS:
        shown = shown[:MAX_SHOWN_CHARACTERS] + "…"
    return ServiceError("invalid_argument", f"{given.source} {fault}, not {shown!r}")


def _expected(kind: Any) -> str:  # noqa: ANN401 - the type of a field
    """What a field of this type accepts, as a text for error messages."""
    if get_origin(kind) is Literal:
        *others, last = get_args(kind)
        return f"{', '.join(others)} or {last}"
    info = inspect.type_info(kind)
    if isinstance(info, inspect.BoolType):
        return "true or false"
    number = "an integer" if isinstance(info, inspect.IntType) else "a number"
    if isinstance(info, inspect.IntType | inspect.FloatType) and info.ge is not None:
        return (
            f"{number} from {info.ge:g} to {info.le:g}" if info.le is not None else f"{number} of {info.ge:g} or more"
        )
    return number


# Variables that are not settings ------------------------------------------------------------------------------

_OF_COMMANDS: Final = frozenset({"FENCE", "LEASE", "LOCK", "TOKEN", "TOKEN_FILE", "URL"})
"""The variables of commands that talk to a service, without their prefix: `cli/connecting.py`, `leasehold lock`."""
_SERVICE_VARIABLE: Final = re.compile(
    r"(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
"""The variables that Kubernetes sets in every pod for a Service whose name begins with `leasehold`, except `…_PORT`."""


def ignored_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that are ignored and may be a mistake, with the reason for each."""
    settings = [_variable(name) for name in _NAMES]
    reasons: dict[str, str] = {}
    for variable, value in sorted(environment.items()):
        name = variable.removeprefix(PREFIX)
        if not variable.startswith(PREFIX) or name in _OF_COMMANDS or _SERVICE_VARIABLE.fullmatch(name):
            continue
        if _is_service_link(variable, value):
            if variable in settings:
                reasons[variable] = "Kubernetes set it as a link to a Service; enableServiceLinks: false prevents that"
        elif variable not in settings:
            similar = get_close_matches(name.lower(), _NAMES, n=1, cutoff=0.7)
            hint = f"; did you mean {_variable(similar[0])}?" if similar else ""
            reasons[variable] = f"no such setting{hint}"
    protocol = _wrong_protocol(environment)
    if protocol is not None and any(environment.get(variable) for variable in COLLECTOR_VARIABLES):
        reasons[protocol] = f"spans are sent as {_PROTOCOL} only, so none are sent"
    return reasons


def _is_service_link(variable: str, value: str) -> bool:
    """Whether Kubernetes made the variable: `LEASEHOLD_PORT=tcp://10.96.12.3:8080` for a Service called `leasehold`."""
    return variable.endswith("PORT") and "://" in value


# OpenTelemetry ------------------------------------------------------------------------------------------------

COLLECTOR_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOL_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL: Final = "http/protobuf"


def _names_a_collector(environment: Mapping[str, str]) -> bool:
    """Whether spans are to be exported, by the variables that every program with OpenTelemetry reads.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables
    """
    return (
        any(environment.get(variable) for variable in COLLECTOR_VARIABLES)
        and environment.get("OTEL_SDK_DISABLED", "").lower() != "true"
        and environment.get("OTEL_TRACES_EXPORTER", "").lower() != "none"
        and _wrong_protocol(environment) is None
    )


def _wrong_protocol(environment: Mapping[str, str]) -> str | None:
    """The variable that asks for another protocol than the one of the exporter."""
    for variable in _PROTOCOL_VARIABLES:
        value = environment.get(variable)
        if value:
            return None if value == _PROTOCOL else variable
    return None


# Durations ----------------------------------------------------------------------------------------------------

_DURATION_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def parse_duration(text: str) -> float:
    """Seconds of `30s`, `15m`, `1h`, `7d`, or a plain number of seconds. Raises `invalid_argument`."""
    unit = _DURATION_UNITS.get(text[-1:], 0)
    number = text[:-1] if unit else text
    if not number.isascii() or not number.isdecimal() or len(number) > 9 or int(number) == 0:
        shown = text[:MAX_SHOWN_CHARACTERS]
        raise ServiceError("invalid_argument", f"{shown!r} is not a duration; give one like 30s, 15m, 1h or 7d")
    return float(int(number) * (unit or 1))
