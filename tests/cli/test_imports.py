"""What commands import: those that run often, by people and by health checks, leave out what is large."""

import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
from running import START_SECONDS, Server, clean_environment, leasehold
from tokens import PRIVATE_KEYS, public_pem

from leasehold.cli.app import MODULES, command

SECRET = "a-secret-of-more-than-32-bytes-for-tests"
SERVICE = ("asyncio", "structlog", "uvloop", "httptools", "prometheus_client", "sortedcontainers", "asyncpg")
"""What only a service needs. Each takes as long to import as all of `leasehold --help`, or brings one that does."""
VERIFYING = ("jwt", "cryptography")
LIGHT = (*SERVICE, *VERIFYING, "msgspec", "pathlib", "shutil", "json", "http.client", "ssl", "difflib", "subprocess")


RUN = """
import atexit, os, sys
found = lambda: (name for name, module in sys.modules.items() if module is not None)
atexit.register(lambda: os.write(2, "\\n".join(found()).encode()))
from leasehold.__main__ import main
main()
"""
"""`leasehold`, which tells on standard error what it has imported."""


def imported(*arguments: str) -> set[str]:
    """The modules that a command has imported when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=START_SECONDS,
        env=clean_environment(),
    )
    return set(done.stderr.splitlines())


def imported_by_service(store: Path, *arguments: str) -> set[str]:
    """The modules that a service has imported when it ends."""
    with Server(store, arguments=arguments, program=("-c", RUN)) as server:
        assert server.terminate() == 0
        return set(server.log().splitlines())


def unwanted(modules: set[str], without: Sequence[str]) -> list[str]:
    return sorted(name for name in modules if name in without or name.partition(".")[0] in without)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([name, "--help"] for name in MODULES)], ids=" ".join
)
def test_help_and_version_import_nothing_large(arguments: list[str]) -> None:
    modules = imported(*arguments)
    assert "argparse" in modules
    assert unwanted(modules, LIGHT) == []


def test_a_status_imports_nothing_of_a_service(server: Server) -> None:
    assert unwanted(imported("status", f"--url={server.url}"), (*SERVICE, *VERIFYING)) == []


@pytest.mark.parametrize("output", ["raw", "json", "table"])
def test_a_get_imports_nothing_of_a_service(server: Server, output: str) -> None:
    """A script may run it often. asyncio, which is in `SERVICE`, is for the asynchronous half of the client."""
    server.put("read", "1")
    modules = imported("get", "read", f"--output={output}", f"--url={server.url}")
    assert "leasehold_client" in modules
    assert unwanted(modules, (*SERVICE, *VERIFYING, "leasehold.engines", "leasehold.http", "rich", "click")) == []


def test_a_backup_of_a_service_imports_nothing_of_a_service(server: Server, tmp_path: Path) -> None:
    assert unwanted(imported("backup", str(tmp_path / "b.json"), f"--url={server.url}"), (*SERVICE, *VERIFYING)) == []


def test_a_token_is_made_without_an_import_of_the_verification(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    modules = imported("token", f"--auth-secret-file={tmp_path / 'secret'}", "--subject=a", "--permission=read")
    assert unwanted(modules, (*SERVICE, *VERIFYING, "http.client")) == []


def test_a_service_imports_nothing_that_only_other_programs_need(tmp_path: Path) -> None:
    """`rich` and `greenlet` are in the environment of the tests. structlog would import them."""
    assert find_spec("rich") is not None
    assert find_spec("greenlet") is not None
    modules = imported_by_service(tmp_path / "data.json")
    assert {"structlog", "leasehold.server.run"} <= modules
    assert unwanted(modules, ("rich", "pygments", "markdown_it", "greenlet")) == []


def test_only_a_service_with_tokens_imports_their_verification(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    assert unwanted(imported_by_service(tmp_path / "data.json"), VERIFYING) == []
    with_tokens = imported_by_service(tmp_path / "data.json", f"--auth-secret-file={tmp_path / 'secret'}")
    assert "jwt" in with_tokens


def test_only_public_keys_need_cryptography(tmp_path: Path) -> None:
    """It takes 9 MB."""
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "key.pem").write_bytes(public_pem(PRIVATE_KEYS["ES256"]))
    secret, key = f"--auth-secret-file={tmp_path / 'secret'}", f"--auth-public-key-file={tmp_path / 'key.pem'}"
    assert unwanted(imported_by_service(tmp_path / "data.json", secret), ("cryptography",)) == []
    assert set(VERIFYING) <= imported_by_service(tmp_path / "data.json", key)


def test_a_check_imports_nothing_that_only_other_programs_need(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text("{}")
    modules = imported("check", str(tmp_path / "data.json"))
    assert {"structlog", "leasehold.engines"} <= modules
    assert unwanted(modules, ("rich", "pygments", "markdown_it")) == []


def test_only_the_module_of_the_command_is_imported() -> None:
    own = {name for name in imported("check", "--help") if name.startswith("leasehold.cli")}
    assert own == {f"leasehold.cli{name}" for name in ("", ".app", ".arguments", ".exit_codes", ".check")}


# The list of commands -----------------------------------------------------------------------------------------


def test_every_command_is_listed_with_its_summary() -> None:
    groups = leasehold("--help").stdout.split("\n\nCommands for ")[1:]
    lines = [line for group in groups for line in group.splitlines()[1:]]
    listed = dict(line.split(maxsplit=1) for line in lines)
    assert listed == {name: command(name).summary for name in MODULES}
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", MODULES)
def test_the_help_of_a_command_begins_with_its_summary(name: str) -> None:
    told = leasehold(name, "--help").stdout
    assert told.startswith(f"Usage: leasehold {name} ")
    assert command(name).summary in " ".join(told.split())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("serve --prot=1", "there is no option --prot; did you mean --port? Try 'leasehold serve --help'."),
        ("token --subjct=a", "there is no option --subjct; did you mean --subject? Try 'leasehold token --help'."),
        ("serve --por=1", "there is no option --por; did you mean --port? Try 'leasehold serve --help'."),
        ("stauts", "there is no command 'stauts'; did you mean status? Try 'leasehold --help'."),
        ("surf", "there is no command 'surf'. Try 'leasehold --help'."),
        ("--bogus", "there is no option --bogus. Try 'leasehold --help'."),
        ("serve extra", "unrecognized arguments: extra. Try 'leasehold serve --help'."),
        ("serve --port", "argument --port: expected one argument. Try 'leasehold serve --help'."),
        ("serve --port=http", "--port must be an integer from 0 to 65535, not 'http'"),
        ("restore", "the following arguments are required: BACKUP. Try 'leasehold restore --help'."),
        (
            "restore b --advance=-1",
            "argument --advance: must be an integer of 0 or more, not '-1'. Try 'leasehold restore --help'.",
        ),
        (
            "advance --by=0",
            "argument --by: must be an integer of 1 or more, not '0'. Try 'leasehold advance --help'.",
        ),
    ],
)
def test_wrong_usage_is_one_line_with_a_suggestion(arguments: str, line: str) -> None:
    result = leasehold(*arguments.split())
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"leasehold: {line}\n")


def test_a_missing_command_prints_the_help_and_ends_with_2() -> None:
    result = leasehold()
    assert (result.returncode, result.stdout, result.stderr) == (2, leasehold("--help").stdout, "")
