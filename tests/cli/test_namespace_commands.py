"""Namespaces on the command line: `leasehold namespaces`, and `--namespace` of all other commands."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from callers import token
from commands import printed, run
from lock_commands import PATH
from running import START_SECONDS, Server, clean_environment, running
from tokens import SECRET

from leasehold.cli.app import GROUPS
from leasehold.cli.completion import described_commands

_numbers = count(1)


@pytest.fixture(scope="module")
def service() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def team(service: Server) -> str:
    """A namespace that no other test uses."""
    name = f"team-{next(_numbers)}"
    printed("namespaces", "create", name, url=service.url)
    return name


def test_every_command_for_entries_and_locks_has_the_option() -> None:
    described = {each.name: {name for option in each.options for name in option.names} for each in described_commands()}
    without = {name for name in GROUPS["Commands for a running service"] if "--namespace" not in described[name]}
    assert without == {"namespaces", "status"}
    assert {"--source-namespace", "--target-namespace"} < described["copy"]
    assert "--namespace" in described["backup"]


@pytest.mark.parametrize("by", ["option", "variable"])
def test_commands_read_and_write_in_the_namespace_that_is_given(service: Server, team: str, by: str) -> None:
    environment = {"LEASEHOLD_NAMESPACE": team if by == "variable" else "elsewhere"}
    option = () if by == "variable" else ("--namespace", team)

    def ns(*words: str) -> str:
        return printed(*words, *option, url=service.url, environment=environment)

    ns("put", "a", "1")
    ns("txn", '{"do": [{"op": "put", "key": "b", "value": 2}]}')
    assert ns("get", "a") == "1\n"
    assert ns("list", "--keys") == "a\nb\n"
    assert ns("watch", "--snapshot", "--limit", "1").startswith('{"event":"put","data":{"key":"a"')
    lock = service.request("POST", f"/ns/{team}/locks/jobs/x", json={"ttl": 600}).json()
    assert ns("locks", "-o", "json").startswith('{"lock":"jobs/x"')
    ns("unlock", "jobs/x", "--token", str(lock["token"]))
    ns("delete", "b")
    assert service.request("GET", f"/ns/{team}/kv?count").json()["count"] == 1
    assert run("get", "a", "--namespace", "default", url=service.url, environment=environment).code == 3


def test_a_namespace_that_cannot_exist_or_does_not_is_wrong_usage(service: Server) -> None:
    for name, message in (("A/b", "a namespace has 1 to 63"), ("nowhere", "there is no such namespace")):
        ended = run("get", "a", "--namespace", name, url=service.url)
        assert (ended.code, message in ended.errors) == (2, True), ended


def test_the_command_under_a_lock_works_in_the_namespace_of_the_lock(service: Server, team: str) -> None:
    script = ["sh", "-c", "leasehold put seen $LEASEHOLD_FENCE --lease $LEASEHOLD_LEASE; echo $LEASEHOLD_NAMESPACE"]
    words = ["lock", "jobs/x", "--namespace", team, "--", *script]
    environment = {**PATH, "LEASEHOLD_NAMESPACE": "elsewhere"}
    said = printed(*words, url=service.url, environment=environment).splitlines()
    assert said[-1] == team
    assert service.request("GET", f"/ns/{team}/kv/seen").json()["value"] > 0
    assert service.request("GET", f"/ns/{team}/locks/jobs/x").status_code == 404
    words = ["lock", "jobs/x", "--namespace", "default", "--", "sh", "-c", "echo $LEASEHOLD_NAMESPACE"]
    assert printed(*words, url=service.url, environment=environment) == "default\n"


def test_the_command_is_told_that_the_lease_was_lost_with_its_namespace(service: Server, team: str) -> None:
    words = ["lock", "jobs/x", "--", "leasehold", "namespaces", "delete", team, "--yes"]
    ended = run(*words, url=service.url, environment={**PATH, "LEASEHOLD_NAMESPACE": team})
    assert ended.code == 76
    assert "was lost before the command ended" in ended.errors


def test_entries_are_exported_imported_copied_and_backed_up_by_namespace(
    service: Server, team: str, tmp_path: Path
) -> None:
    printed("namespaces", "create", f"{team}-b", url=service.url)
    printed("put", "a", "1", "--namespace", team, url=service.url)
    exported = run("export", "--namespace", team, url=service.url)
    assert [json.loads(line)["key"] for line in exported.text.splitlines()] == ["a"]
    paged = run("export", "--pages", "--namespace", team, url=service.url)
    assert paged.output == exported.output
    run("import", "--namespace", f"{team}-b", url=service.url, stdin=exported.output.replace(b'"a"', b'"imported"'))
    copied = run("copy", service.url, service.url, "--source-namespace", team, "--target-namespace", f"{team}-b")
    assert copied.code == 0, copied
    assert printed("list", "--keys", "--namespace", f"{team}-b", url=service.url) == "a\nimported\n"
    same = run("copy", service.url, service.url, "--namespace", team, "--source-namespace", team)
    assert (same.code, "the same service and namespace" in same.errors) == (2, True)
    backup = run("backup", str(tmp_path / "backup"), "--url", service.url, "--namespace", team)
    assert backup.code == 0, backup
    assert ('"key":"a"' in (tmp_path / "backup").read_text(), backup.errors) == (True, "")
    of_default = run("backup", str(tmp_path / "default"), "--url", service.url)
    assert (of_default.code, "has the namespace default only; --namespace" in of_default.errors) == (0, True)


# leasehold namespaces -----------------------------------------------------------------------------------------


def test_a_namespace_is_created_changed_shown_and_listed(service: Server) -> None:
    created = json.loads(
        printed(
            "namespaces", "create", "quoted", "--max-entries", "1", "--max-bytes", "1000", "-o", "json", url=service.url
        )
    )
    assert (created["max_entries"], created["max_bytes"]) == (1, 1000)
    changed = printed("namespaces", "create", "quoted", "--max-bytes", "none", "-o", "json", url=service.url)
    assert (json.loads(changed)["max_entries"], json.loads(changed)["max_bytes"]) == (1, None)
    assert printed("namespaces", "create", "quoted", "-o", "json", url=service.url) == changed
    printed("put", "a", "1", "--namespace", "quoted", url=service.url)
    refused = run("put", "b", "1", "--namespace", "quoted", url=service.url)
    assert (refused.code, refused.output) == (4, b"")
    titles, row = printed("namespaces", "show", "quoted", url=service.url).splitlines()
    assert titles.split() == ["NAMESPACE", "ENTRIES", "MAX", "BYTES", "MAX", "REVISION", "CREATED"]
    assert row.split()[:5] == ["quoted", "1", "1", "2", "1"]
    listed = printed("namespaces", "-o", "json", url=service.url).splitlines()
    names = [json.loads(line)["namespace"] for line in listed]
    assert names == sorted(names)
    assert {"default", "quoted"} <= set(names)
    assert printed("namespaces", "list", url=service.url).splitlines()[0].split() == titles.split()


def test_a_namespace_is_deleted_only_with_a_confirmation(service: Server, team: str) -> None:
    printed("put", "a", "1", "--namespace", team, url=service.url)
    unasked = run("namespaces", "delete", team, url=service.url)
    assert (unasked.code, "--yes" in unasked.errors) == (2, True)
    assert answered(service, team, "n") == (1, f"Delete the namespace {team} with 1 entry? [y/N] ")
    assert service.request("GET", f"/ns/{team}").status_code == 200
    assert answered(service, team, "y")[0] == 0
    assert service.request("GET", f"/ns/{team}").status_code == 404
    for words in (["delete", team, "--yes"], ["show", team]):
        assert run("namespaces", *words, url=service.url).code == 3


def answered(service: Server, name: str, answer: str) -> tuple[int, str]:
    """Delete a namespace, with this answer on a terminal. Returns the exit code and the question."""
    controller, terminal = pty.openpty()
    try:
        os.write(controller, f"{answer}\n".encode())
        done = subprocess.run(
            [sys.executable, "-m", "leasehold", "namespaces", "delete", name],
            stdin=terminal,
            capture_output=True,
            check=False,
            timeout=START_SECONDS,
            env=clean_environment() | {"LEASEHOLD_URL": service.url},
        )
    finally:
        os.close(controller)
        os.close(terminal)
    return done.returncode, done.stderr.decode().partition("leasehold:")[0]


@pytest.mark.parametrize(
    "words",
    [
        ["list", "a"],
        ["show"],
        ["create"],
        ["forget", "a"],
        ["show", "a", "--max-bytes", "1"],
        ["create", "a", "--yes"],
        ["create", "a", "--max-entries", "-1"],
        ["create", "a", "--max-entries", "many"],
        ["create", "A"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_one_line_that_names_it(service: Server, words: list[str]) -> None:
    ended = run("namespaces", *words, url=service.url)
    assert (ended.code, ended.output, ended.errors.count("\n")) == (2, b"", 1), ended


def test_a_token_without_the_right_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    secret.chmod(0o600)
    with running(environment={"LEASEHOLD_AUTH_SECRET_FILE": str(secret)}) as server:
        admin, reader = (token(*each, secret=SECRET, namespaces=["*"]) for each in (["admin"], ["read"]))
        printed("namespaces", "create", "team", url=server.url, environment={"LEASEHOLD_TOKEN": admin})
        assert run("namespaces", url=server.url, environment={"LEASEHOLD_TOKEN": reader}).code == 77
        other = token("read", secret=SECRET)
        ended = run("get", "a", "--namespace", "team", url=server.url, environment={"LEASEHOLD_TOKEN": other})
        assert ended.code == 77
