"""Settings: where they come from, what is accepted, and the messages for wrong ones."""

import msgspec
import pytest

from leasehold.errors import ServiceError
from leasehold.http.media_types import DEFAULT_BINARY_TYPES, parse_binary_types
from leasehold.limits import Limits
from leasehold.server.config import Flag, Settings, ignored_variables, load_settings

KUBERNETES = {
    "LEASEHOLD_SERVICE_HOST": "10.96.12.3",
    "LEASEHOLD_SERVICE_PORT": "8080",
    "LEASEHOLD_SERVICE_PORT_HTTP": "8080",
    "LEASEHOLD_PORT": "tcp://10.96.12.3:8080",
    "LEASEHOLD_PORT_8080_TCP": "tcp://10.96.12.3:8080",
    "LEASEHOLD_PORT_8080_TCP_PROTO": "tcp",
    "LEASEHOLD_PORT_8080_TCP_PORT": "8080",
    "LEASEHOLD_PORT_8080_TCP_ADDR": "10.96.12.3",
}
"""What Kubernetes sets in every pod of a namespace with a Service called `leasehold`."""
OF_ANOTHER_SERVICE = {name.replace("LEASEHOLD_", "LEASEHOLD_DB_"): value for name, value in KUBERNETES.items()}
"""The same for a Service called `leasehold-db`."""
VARIABLES = [
    f"LEASEHOLD_{name.upper()}"
    for name in (*Settings.__struct_fields__, *Limits.__struct_fields__)
    if name not in ("exports_spans", "limits")
]


def fault(environment: dict[str, str], **flags: Flag) -> str:
    with pytest.raises(ServiceError) as refusal:
        load_settings(environment, flags)
    assert refusal.value.code == "invalid_argument"
    return refusal.value.message


# Sources ------------------------------------------------------------------------------------------------------


def test_without_flags_and_variables_the_defaults_apply() -> None:
    assert load_settings({}, {"port": None}) == Settings()


def test_a_flag_overrides_a_variable_and_a_variable_overrides_the_default() -> None:
    settings = load_settings({"LEASEHOLD_PORT": "1", "LEASEHOLD_WORKERS": "2"}, {"port": 3, "host": None})
    assert (settings.port, settings.workers, settings.host) == (3, 2, "127.0.0.1")


def test_limits_come_from_variables() -> None:
    settings = load_settings({"LEASEHOLD_MAX_BODY_BYTES": "5", "LEASEHOLD_IDLE_TIMEOUT_SECONDS": "0.5"}, {})
    assert settings.limits == msgspec.structs.replace(Limits(), max_body_bytes=5, idle_timeout_seconds=0.5)


def test_a_list_is_given_by_repeated_flags_or_by_a_variable_with_commas() -> None:
    by_flag = load_settings({"LEASEHOLD_AUTH_SECRET_FILE": "x"}, {"auth_secret_file": ["new", "old, too"]})
    by_variable = load_settings({"LEASEHOLD_AUTH_SECRET_FILE": "/run/new, /run/old,"}, {"auth_secret_file": []})
    assert (by_flag.auth_secret_file, by_variable.auth_secret_file) == (("new", "old, too"), ("/run/new", "/run/old"))


@pytest.mark.parametrize("variable", VARIABLES)
def test_an_empty_variable_counts_as_not_set(variable: str) -> None:
    assert load_settings({variable: ""}, {}) == Settings()


# Wrong settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("LEASEHOLD_PORT", "http", "LEASEHOLD_PORT must be an integer from 0 to 65535, not 'http'"),
        ("LEASEHOLD_PORT", "65536", "LEASEHOLD_PORT must be an integer from 0 to 65535, not '65536'"),
        ("LEASEHOLD_WORKERS", "0", "LEASEHOLD_WORKERS must be an integer of 1 or more, not '0'"),
        ("LEASEHOLD_LOG_FORMAT", "xml", "LEASEHOLD_LOG_FORMAT must be text or json, not 'xml'"),
        ("LEASEHOLD_LOG_LEVEL", "LOUD", "LEASEHOLD_LOG_LEVEL must be debug, info, warning or error, not 'LOUD'"),
        ("LEASEHOLD_INSECURE_OPEN", "yes", "LEASEHOLD_INSECURE_OPEN must be true or false, not 'yes'"),
        ("LEASEHOLD_MAX_BODY_BYTES", "1.5", "LEASEHOLD_MAX_BODY_BYTES must be an integer, not '1.5'"),
        ("LEASEHOLD_MAX_BODY_BYTES", "0", "LEASEHOLD_MAX_BODY_BYTES must be greater than 0, not '0'"),
        ("LEASEHOLD_IDLE_TIMEOUT_SECONDS", "soon", "LEASEHOLD_IDLE_TIMEOUT_SECONDS must be a number, not 'soon'"),
        ("LEASEHOLD_IDLE_TIMEOUT_SECONDS", "nan", "LEASEHOLD_IDLE_TIMEOUT_SECONDS must be greater than 0, not 'nan'"),
        ("LEASEHOLD_IDLE_TIMEOUT_SECONDS", "inf", "LEASEHOLD_IDLE_TIMEOUT_SECONDS must be at most 31536000, not 'inf'"),
        ("LEASEHOLD_IDEMPOTENCY_SECONDS", "3e11", "LEASEHOLD_IDEMPOTENCY_SECONDS must be at most 31536000, not '3e11'"),
    ],
)
def test_a_wrong_variable_is_reported_with_its_value_and_what_is_accepted(
    variable: str, value: str, message: str
) -> None:
    assert fault({variable: value}) == message


@pytest.mark.parametrize(
    "value",
    [
        *("image", "image/", "/png", "*", "*/png", "image/*/*", "image/png;q=1", "a b/c", "image/png text/plain"),
        *("application/json", "text/json", "application/x-www-form-urlencoded", "application/vnd.msgpack", "a/b+json"),
    ],
)
def test_what_cannot_be_a_media_type_of_bytes_is_refused(value: str) -> None:
    assert fault({"LEASEHOLD_BINARY_TYPES": f"text/plain,{value}"}).startswith("LEASEHOLD_BINARY_TYPES: ")


def test_the_media_types_of_bytes_are_types_and_ranges_or_none() -> None:
    assert parse_binary_types(load_settings({}, {}).binary_types) == DEFAULT_BINARY_TYPES
    assert parse_binary_types(" Text/HTML ,image/*,,*/*") == ("text/html", "image/*", "*/*")
    assert parse_binary_types("none") == ()


def test_a_wrong_flag_is_reported_by_the_name_of_the_flag() -> None:
    assert fault({"LEASEHOLD_PORT": "1"}, port=65_536) == "--port must be an integer from 0 to 65535, not '65536'"
    assert fault({}, log_level="loud") == "--log-level must be debug, info, warning or error, not 'loud'"


def test_an_empty_flag_is_refused() -> None:
    assert fault({}, host="") == "--host must not be empty"
    assert fault({}, auth_secret_file=["a", ""]) == "--auth-secret-file must not be empty"


@pytest.mark.parametrize("value", ["-0.1", "301", "nan", "inf", "5s"])
def test_a_leeway_over_five_minutes_is_refused(value: str) -> None:
    message = fault({"LEASEHOLD_AUTH_LEEWAY_SECONDS": value})
    assert message == f"LEASEHOLD_AUTH_LEEWAY_SECONDS must be a number from 0 to 300, not '{value}'"


def test_a_long_value_is_shortened_in_the_message() -> None:
    assert len(fault({"LEASEHOLD_PORT": "x" * 10_000})) < 200


def test_a_secret_together_with_a_public_key_is_refused_by_the_names_given() -> None:
    message = fault({"LEASEHOLD_AUTH_SECRET_FILE": "a"}, auth_public_key_file=["b"])
    assert message.startswith("LEASEHOLD_AUTH_SECRET_FILE and --auth-public-key-file cannot be combined")


# Variables that are not settings ------------------------------------------------------------------------------


def test_the_variables_of_a_kubernetes_service_do_not_change_settings() -> None:
    assert load_settings(KUBERNETES | OF_ANOTHER_SERVICE, {}) == Settings()


def test_of_the_kubernetes_variables_only_the_port_is_reported() -> None:
    assert list(ignored_variables(KUBERNETES | OF_ANOTHER_SERVICE)) == ["LEASEHOLD_PORT"]


def test_a_misspelt_variable_is_reported_with_the_right_name() -> None:
    reasons = ignored_variables({"LEASEHOLD_MAX_BODY_BYTE": "1", "LEASEHOLD_ELSE": "", "HOME": "/", "LEASEHOLD": "1"})
    assert reasons == {
        "LEASEHOLD_ELSE": "no such setting",
        "LEASEHOLD_MAX_BODY_BYTE": "no such setting; did you mean LEASEHOLD_MAX_BODY_BYTES?",
    }


@pytest.mark.parametrize(
    "name", ["LEASEHOLD_PORTS", "LEASEHOLD_SERVICE_HOSTS", "LEASEHOLD_PORT_8080", "LEASEHOLD_DB_PORT"]
)
def test_a_variable_that_only_resembles_a_kubernetes_variable_is_reported(name: str) -> None:
    assert list(ignored_variables({name: "8080"})) == [name]


@pytest.mark.parametrize("name", ["URL", "TOKEN", "TOKEN_FILE", "LEASE", "LOCK", "FENCE"])
def test_a_variable_of_commands_is_not_reported(name: str) -> None:
    assert ignored_variables({f"LEASEHOLD_{name}": "1"}) == {}


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_setting_is_not_reported_as_ignored(variable: str) -> None:
    assert ignored_variables({variable: "1"}) == {}


# OpenTelemetry --------------------------------------------------------------------------------------------------

COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}


@pytest.mark.parametrize(
    ("environment", "exports"),
    [
        ({}, False),
        (COLLECTOR, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        (COLLECTOR | {"OTEL_SDK_DISABLED": "TRUE"}, False),
        (COLLECTOR | {"OTEL_SDK_DISABLED": "false"}, True),
        (COLLECTOR | {"OTEL_TRACES_EXPORTER": "none"}, False),
        (COLLECTOR | {"OTEL_TRACES_EXPORTER": "otlp"}, True),
        (COLLECTOR | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False),
        (COLLECTOR | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
        (
            COLLECTOR | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            True,
        ),
    ],
)
def test_spans_are_exported_if_a_collector_is_named(environment: dict[str, str], *, exports: bool) -> None:
    assert load_settings(environment, {}).exports_spans is exports


def test_a_protocol_that_spans_cannot_be_sent_with_is_reported() -> None:
    wrong = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert list(ignored_variables(COLLECTOR | wrong)) == [*wrong]
    assert (ignored_variables(wrong), ignored_variables(COLLECTOR)) == ({}, {})


def test_no_setting_of_leasehold_turns_the_export_on() -> None:
    assert load_settings({"LEASEHOLD_EXPORTS_SPANS": "true"}, {}).exports_spans is False
    assert "LEASEHOLD_EXPORTS_SPANS" in ignored_variables({"LEASEHOLD_EXPORTS_SPANS": "true"})
