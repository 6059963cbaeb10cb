"""Settings: where each comes from, what is accepted, and what the operator is told of one that is wrong."""

import msgspec
import pytest

from leasehold.errors import ServiceError
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
    f"LEASEHOLD_{name.upper()}" for name in (*Settings.__struct_fields__, *Limits.__struct_fields__) if name != "limits"
]


def fault(environment: dict[str, str], **flags: Flag) -> str:
    with pytest.raises(ServiceError) as refusal:
        load_settings(environment, flags)
    assert refusal.value.code == "invalid_argument"
    return refusal.value.message


# Where they come from -----------------------------------------------------------------------------------------


def test_without_anything_given_the_defaults_count() -> None:
    assert load_settings({}, {"port": None}) == Settings()


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_default() -> None:
    settings = load_settings({"LEASEHOLD_PORT": "1", "LEASEHOLD_WORKERS": "2"}, {"port": 3, "host": None})
    assert (settings.port, settings.workers, settings.host) == (3, 2, "127.0.0.1")


def test_limits_come_from_variables() -> None:
    settings = load_settings({"LEASEHOLD_MAX_BODY_BYTES": "5", "LEASEHOLD_IDLE_TIMEOUT_SECONDS": "0.5"}, {})
    assert settings.limits == msgspec.structs.replace(Limits(), max_body_bytes=5, idle_timeout_seconds=0.5)


def test_a_list_comes_from_a_repeated_flag_or_from_a_variable_with_commas() -> None:
    by_flag = load_settings({"LEASEHOLD_AUTH_SECRET_FILE": "x"}, {"auth_secret_file": ["new", "old, too"]})
    by_variable = load_settings({"LEASEHOLD_AUTH_SECRET_FILE": "/run/new, /run/old,"}, {"auth_secret_file": []})
    assert (by_flag.auth_secret_file, by_variable.auth_secret_file) == (("new", "old, too"), ("/run/new", "/run/old"))


@pytest.mark.parametrize("variable", VARIABLES)
def test_an_empty_variable_is_not_set(variable: str) -> None:
    assert load_settings({variable: ""}, {}) == Settings()


# What is wrong ------------------------------------------------------------------------------------------------


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
    ],
)
def test_a_wrong_variable_is_named_with_its_value_and_what_is_accepted(variable: str, value: str, message: str) -> None:
    assert fault({variable: value}) == message


def test_a_wrong_flag_is_named_as_a_flag() -> None:
    assert fault({"LEASEHOLD_PORT": "1"}, port=65_536) == "--port must be an integer from 0 to 65535, not '65536'"
    assert fault({}, log_level="loud") == "--log-level must be debug, info, warning or error, not 'loud'"


def test_an_empty_flag_is_wrong() -> None:
    assert fault({}, host="") == "--host must not be empty"
    assert fault({}, auth_secret_file=["a", ""]) == "--auth-secret-file must not be empty"


@pytest.mark.parametrize("value", ["-0.1", "301", "nan", "inf", "5s"])
def test_a_leeway_is_some_minutes_at_most(value: str) -> None:
    message = fault({"LEASEHOLD_AUTH_LEEWAY_SECONDS": value})
    assert message == f"LEASEHOLD_AUTH_LEEWAY_SECONDS must be a number from 0 to 300, not '{value}'"


def test_a_long_value_is_cut_in_the_message() -> None:
    assert len(fault({"LEASEHOLD_PORT": "x" * 10_000})) < 200


def test_two_kinds_of_keys_are_refused_by_the_names_they_were_given_by() -> None:
    message = fault({"LEASEHOLD_AUTH_SECRET_FILE": "a"}, auth_public_key_file=["b"])
    assert message.startswith("LEASEHOLD_AUTH_SECRET_FILE and --auth-public-key-file exclude one another")


# Variables that are no settings -------------------------------------------------------------------------------


def test_the_variables_of_a_kubernetes_service_change_no_setting() -> None:
    assert load_settings(KUBERNETES | OF_ANOTHER_SERVICE, {}) == Settings()


def test_of_the_variables_of_kubernetes_only_the_port_is_told() -> None:
    assert list(ignored_variables(KUBERNETES | OF_ANOTHER_SERVICE)) == ["LEASEHOLD_PORT"]


def test_a_misspelt_variable_is_told_with_the_right_name() -> None:
    reasons = ignored_variables({"LEASEHOLD_MAX_BODY_BYTE": "1", "LEASEHOLD_ELSE": "", "HOME": "/", "LEASEHOLD": "1"})
    assert reasons == {
        "LEASEHOLD_ELSE": "there is no such setting",
        "LEASEHOLD_MAX_BODY_BYTE": "there is no such setting; LEASEHOLD_MAX_BODY_BYTES is one",
    }


@pytest.mark.parametrize(
    "name", ["LEASEHOLD_PORTS", "LEASEHOLD_SERVICE_HOSTS", "LEASEHOLD_PORT_8080", "LEASEHOLD_DB_PORT"]
)
def test_what_only_resembles_a_variable_of_kubernetes_is_told(name: str) -> None:
    assert list(ignored_variables({name: "8080"})) == [name]


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_setting_is_not_told(variable: str) -> None:
    assert ignored_variables({variable: "1"}) == {}
