"""`leasehold serve`: its ready line, its settings, and its errors at start."""

import socket
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from running import free_port, leasehold, running

from leasehold import VERSION

USAGE = 2
FAULT = 1


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


# Ready --------------------------------------------------------------------------------------------------------


def test_the_ready_line_has_the_address_and_the_store(tmp_path: Path) -> None:
    with running(None, folder=tmp_path) as server:
        port = server.address[1]
        assert server.ready_line == f"leasehold ready on http://127.0.0.1:{port} store data.json"


def test_standard_output_has_only_the_ready_line() -> None:
    with running(log_level="debug") as server:
        assert server.process is not None
        assert server.process.stdout is not None
        server.put("a", "1")
        server.process.terminate()
        assert server.process.stdout.read() == ""


def test_a_server_accepts_requests_after_its_ready_line() -> None:
    with running() as server:
        assert server.client.get("/health/ready").status_code == 200


def test_port_0_picks_a_free_port() -> None:
    with running() as first, running() as second:
        assert len({first.address[1], second.address[1], 0}) == 3


def test_a_server_listens_on_the_given_port() -> None:
    with free_port() as port, running(environment={"LEASEHOLD_PORT": str(port)}) as server:
        assert server.url == f"http://127.0.0.1:{port}"


def test_a_host_may_be_a_name() -> None:
    with running(arguments=["--host=localhost"]) as server:
        assert server.request("GET", "/health").status_code == 200


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_an_ipv6_address_is_shown_in_brackets() -> None:
    with running(arguments=["--host=::1"]) as server:
        assert server.url.startswith("http://[::1]:")


def test_a_server_starts_again_at_once_on_its_port() -> None:
    with free_port() as port, running(environment={"LEASEHOLD_PORT": str(port)}) as server:
        for _ in range(3):
            server.put("a", "1")
            server.restart()
        assert server.address[1] == port


# Settings -----------------------------------------------------------------------------------------------------


def test_every_option_can_be_set_in_the_environment(tmp_path: Path) -> None:
    environment = {
        "LEASEHOLD_HOST": "localhost",
        "LEASEHOLD_STORE": str(tmp_path / "own.json"),
        "LEASEHOLD_LOG_FORMAT": "json",
    }
    with running(None, environment=environment, folder=tmp_path) as server:
        server.put("a", "1")
        seen = (server.ready_line.endswith(f"store {tmp_path / 'own.json'}"), server.log()[0])
    assert (seen, [path.name for path in tmp_path.glob("*.json")]) == ((True, "{"), ["own.json"])


def test_a_flag_has_precedence_over_the_environment() -> None:
    with running("memory:", environment={"LEASEHOLD_STORE": "other.json"}) as server:
        assert server.ready_line.endswith(" store memory:")


def test_a_relative_store_is_in_the_folder_where_the_command_runs(tmp_path: Path) -> None:
    with running("kept.json", folder=tmp_path) as server:
        server.put("a", "1")
    assert (tmp_path / "kept.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--prot=1"], {}),
        (["extra"], {}),
        (["--port"], {}),
        (["--port=http"], {}),
        (["--port=65536"], {}),
        (["--port=-1"], {}),
        (["--log-level=loud"], {}),
        (["--log-format=xml"], {}),
        (["--store="], {}),
        (["--store=redis://localhost", "--port=0"], {}),
        ([], {"LEASEHOLD_PORT": "http"}),
        ([], {"LEASEHOLD_PORT": "65536"}),
        ([], {"LEASEHOLD_LOG_LEVEL": "LOUD"}),
        ([], {"LEASEHOLD_MAX_BODY_BYTES": "0"}),
        ([], {"LEASEHOLD_MAX_BODY_BYTES": "-1"}),
        ([], {"LEASEHOLD_MAX_BODY_BYTES": "1.5"}),
        ([], {"LEASEHOLD_MAX_CONNECTIONS": "many"}),
        ([], {"LEASEHOLD_HEADER_TIMEOUT_SECONDS": "nan"}),
        ([], {"LEASEHOLD_HEADER_TIMEOUT_SECONDS": "0"}),
    ],
    ids=str,
)
def test_wrong_usage_ends_with_2_and_the_reason(
    tmp_path: Path, arguments: list[str], environment: dict[str, str]
) -> None:
    store = [] if any(argument.startswith("--store") for argument in arguments) else [f"--store={tmp_path / 'd.json'}"]
    result = leasehold("serve", *store, *arguments, environment=environment)
    seen = (result.returncode, result.stdout, result.stderr != "", "Traceback" in result.stderr)
    assert seen == (USAGE, "", True, False)


def test_a_wrong_setting_is_reported_in_one_line() -> None:
    result = leasehold("serve", environment={"LEASEHOLD_MAX_BODY_BYTES": "0"})
    assert (result.returncode, result.stderr) == (
        USAGE,
        "leasehold: LEASEHOLD_MAX_BODY_BYTES must be greater than 0, not '0'\n",
    )


def test_a_server_starts_with_the_variables_of_a_kubernetes_service_named_leasehold() -> None:
    """The invalid variable is ignored, so the port is given by a flag."""
    link = "tcp://10.96.12.3:8080"
    environment = {"LEASEHOLD_PORT_8080_TCP": link, "LEASEHOLD_SERVICE_HOST": "10.96.12.3"}
    with running(environment=environment | {"LEASEHOLD_PORT": link}, arguments=["--port=0"]) as server:
        told = [line for line in server.log().splitlines() if "a variable is ignored" in line]
        assert (len(told), "LEASEHOLD_PORT" in told[0], server.put("a", "1").status_code) == (1, True, 201)


def test_a_misspelt_variable_is_a_warning_with_its_name_and_without_its_value() -> None:
    with running(environment={"LEASEHOLD_MAX_BODY_BYTE": "hunter2"}, log_level="warning") as server:
        log = server.log()
    assert (log.count("\n"), "LEASEHOLD_MAX_BODY_BYTE" in log, "hunter2" in log) == (1, True, False)


def test_an_empty_variable_is_ignored(tmp_path: Path) -> None:
    names = ["HOST", "STORE", "WORKERS", "AUTH_SECRET_FILE", "AUTH_PUBLIC_KEY_FILE", "INSECURE_OPEN", "LOG_LEVEL"]
    environment = {f"LEASEHOLD_{name}": "" for name in [*names, "ALLOWED_HOSTS", "MAX_BODY_BYTES"]}
    with running(None, environment=environment, folder=tmp_path) as server:
        assert (server.put("a", "1").status_code, (tmp_path / "data.json").is_file()) == (201, True)


def test_an_unknown_command_is_wrong_usage() -> None:
    assert leasehold("surf").returncode == USAGE


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["check", "--help"]])
def test_help_is_printed(arguments: list[str]) -> None:
    result = leasehold(*arguments)
    assert (result.returncode, "Usage: leasehold" in result.stdout, result.stderr) == (0, True, "")


def test_the_version_is_printed() -> None:
    result = leasehold("--version")
    assert (result.returncode, result.stdout) == (0, f"leasehold {VERSION}\n")


def test_the_installed_package_has_the_same_version() -> None:
    assert version("leasehold") == VERSION


# Faults at start ----------------------------------------------------------------------------------------------


def fault(*arguments: str) -> str:
    """The one line of a server that cannot start."""
    result = leasehold("serve", *arguments)
    assert (result.returncode, result.stdout) == (FAULT, "")
    line, rest = result.stderr.split("\n", 1)
    assert (line.startswith("leasehold: "), rest) == (True, ""), result.stderr
    return line.removeprefix("leasehold: ")


def test_a_port_in_use_is_reported(taken_port: int) -> None:
    line = fault("--store=memory:", f"--port={taken_port}")
    assert line == f"cannot listen on 127.0.0.1 port {taken_port}: Address already in use"


def test_a_port_in_use_by_another_leasehold_is_reported(tmp_path: Path) -> None:
    with running() as server:
        line = fault(f"--store={tmp_path / 'data.json'}", f"--port={server.address[1]}")
    assert (line.endswith("Address already in use"), list(tmp_path.iterdir())) == (True, [])


@pytest.mark.parametrize("host", ["198.51.100.1", "a..b"])
def test_an_address_of_another_machine_is_reported(host: str) -> None:
    assert fault("--store=memory:", "--port=0", f"--host={host}").startswith(f"cannot listen on {host} port 0: ")


def test_a_second_process_on_the_same_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    with running(path) as server:
        server.put("a", "1")
        line = fault(f"--store={path}", "--port=0")
        assert (line, server.value("a")) == ("data.json is in use by another process", 1)


def test_a_second_process_is_refused_if_it_uses_another_name_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(tmp_path / "data.json")
    with running(tmp_path / "data.json"):
        assert fault(f"--store={tmp_path / 'link.json'}", "--port=0") == "data.json is in use by another process"


def test_a_store_in_a_missing_folder_is_reported(tmp_path: Path) -> None:
    assert fault(f"--store={tmp_path / 'absent' / 'data.json'}", "--port=0").startswith("data.json cannot be opened: ")


def test_a_store_that_is_a_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "data.json").mkdir()
    assert "data.json" in fault(f"--store={tmp_path / 'data.json'}", "--port=0")


@pytest.fixture(scope="module")
def good_store(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The text of a store that was stopped normally."""
    path = tmp_path_factory.mktemp("good") / "data.json"
    with running(path) as server:
        for number in range(5):
            server.put(f"entry/{number}", f'{{"number": {number}}}')
    return path.read_bytes()


@pytest.mark.parametrize(
    "broken",
    [
        lambda _: b"",
        lambda _: b"\n",
        lambda _: b"not JSON",
        lambda _: b"[1, 2]",
        lambda _: b'"text"',
        lambda good: b"\xff\xfe" + good,
        lambda good: b"\0" * len(good),
        lambda good: good[:-1][: len(good) // 2],
        lambda good: good[: -len("]}\n")],
        lambda good: good + b"x",
        lambda good: good.replace(b'"number":3', b'"number":'),
        lambda good: good.replace(b'"leasehold": 1', b'"leasehold": 99'),
    ],
    ids=[
        "empty",
        "only a line feed",
        "no JSON",
        "a list",
        "a text",
        "bytes before",
        "zeros",
        "cut in half",
        "end missing",
        "bytes after",
        "a value broken",
        "a format of the future",
    ],
)
def test_a_broken_store_is_reported_and_not_changed(tmp_path: Path, good_store: bytes, broken: object) -> None:
    assert callable(broken)
    path, content = tmp_path / "data.json", broken(good_store)
    assert content != good_store
    path.write_bytes(content)
    line = fault(f"--store={path}", "--port=0")
    assert ("data.json" in line, path.read_bytes()) == (True, content)


def test_a_good_store_is_read(tmp_path: Path, good_store: bytes) -> None:
    (tmp_path / "data.json").write_bytes(good_store)
    with running(tmp_path / "data.json") as server:
        assert server.value("entry/3") == {"number": 3}


def test_a_plain_object_of_another_tool_becomes_entries(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text('{"username": "alice", "user/ä": {"age": 7}}', "utf-8")
    with running(tmp_path / "data.json") as server:
        assert (server.value("username"), server.value("user/%C3%A4")) == ("alice", {"age": 7})
