"""`leasehold patch`, `delete`, `list`, `watch`, `txn`, `locks` and `unlock`."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import printed, run
from running import START_SECONDS, Server, clean_environment, free_port, running

EXACT = '{"big":18446744073709551615,"e":1e-300,"zero":-0.0,"text":"ü\\u0001\\u2028"}'


@pytest.fixture(scope="module")
def service() -> Iterator[Server]:
    with running() as server:
        yield server


def lease_of(service: Server, name: str, **members: Any) -> dict[str, Any]:
    lease: dict[str, Any] = service.client.post(f"/locks/{name}", json={"ttl": 600, **members}).json()
    return lease


# patch --------------------------------------------------------------------------------------------------------


def test_a_merge_patch_keeps_the_expiry(service: Server) -> None:
    service.put("merged?ttl=600", '{"a": 1, "b": 2}')
    answer = json.loads(printed("patch", "merged", '{"a": null, "c": 3}', url=service.url))
    assert (answer["value"], "expires_at" in answer) == ({"b": 2, "c": 3}, True)


def test_a_json_patch_is_applied_whole_or_not_at_all(service: Server) -> None:
    service.put("patched", "[1, 2]")
    operations = '[{"op": "remove", "path": "/0"}, {"op": "test", "path": "/0", "value": 2}]'
    printed("patch", "patched", "--json-patch", "-", url=service.url, stdin=operations.encode())
    refused = run("patch", "patched", "--json-patch", operations, url=service.url)
    assert (refused.code, refused.output, service.value("patched")) == (4, b"", [2])


# delete -------------------------------------------------------------------------------------------------------


def test_an_entry_and_a_part_are_deleted(service: Server) -> None:
    service.put("gone", '{"a": 1, "b": 2}')
    printed("delete", "gone", "--path", "/a", url=service.url)
    assert service.value("gone") == {"b": 2}
    answer = json.loads(printed("delete", "gone", url=service.url))
    assert (answer["key"], answer["deleted"]) == ("gone", True)
    assert run("delete", "gone", url=service.url).code == 3


def test_a_deletion_depends_on_its_condition_and_its_lease(service: Server) -> None:
    service.put("guarded", "1")
    assert run("delete", "guarded", "--if-match=1.000000", url=service.url).code == 4
    assert run("delete", "guarded", "--lease", "0" * 32, url=service.url).code == 76
    assert run("delete", "--prefix", "guarded", "--lease", "0" * 32, url=service.url).code == 76
    assert service.value("guarded") == 1


def test_all_entries_with_a_prefix_are_deleted(service: Server) -> None:
    for number in range(3):
        service.put(f"many/{number}", "1")
    service.put("manyfold", "1")
    assert json.loads(printed("delete", "--prefix", "many/", url=service.url))["deleted"] == 3
    assert service.value("manyfold") == 1


def test_the_deletion_of_a_prefix_does_not_try_for_minutes_where_no_service_is() -> None:
    with free_port() as port:
        assert run("delete", "--prefix", "a", "--retry=0", url=f"http://127.0.0.1:{port}").code == 69


@pytest.mark.parametrize("words", [[], ["a", "--prefix=a"], ["--prefix=a", "--path=/b"], ["--prefix="]], ids=" ".join)
def test_a_deletion_without_a_clear_extent_is_wrong_usage(service: Server, words: list[str]) -> None:
    service.put("a", '{"b": 1}')
    assert (run("delete", *words, url=service.url).code, service.value("a")) == (2, {"b": 1})


# list ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def listed(service: Server) -> Server:
    """A service with 2,300 entries, more than two pages, among others."""
    operations = [{"op": "put", "key": f"list/{number:04}", "value": {"n": number}} for number in range(2_300)]
    for start in range(0, len(operations), 100):
        service.client.post("/txn", json={"do": operations[start : start + 100]}).raise_for_status()
    return service


def test_all_pages_are_listed(listed: Server) -> None:
    keys = [f"list/{number:04}" for number in range(2_300)]
    assert printed("list", "list/", "--keys", url=listed.url).splitlines() == keys
    assert printed("list", "list/", "--count", url=listed.url) == "2300\n"
    assert printed("list", "list/", "--count", "--after=list/1999", url=listed.url) == "300\n"
    assert printed("list", "list/", "-o", "raw", "--path", "/n", url=listed.url).split() == [*map(str, range(2_300))]
    last = printed("list", "list/", "--reverse", "--after=list/1200", "--limit=1101", "--keys", url=listed.url)
    assert last.splitlines() == keys[99:1200][::-1]


def test_entries_are_listed_as_the_service_sends_them(service: Server) -> None:
    service.put("sent/exact", EXACT)
    sent = service.client.get("/kv?prefix=sent/").content.split(b"\n")[1]
    assert run("list", "sent/", "-o", "json", url=service.url).output == sent + b"\n"
    assert run("list", "sent/", "-o", "raw", url=service.url).output == service.client.get("/kv/sent/exact?raw").content


def test_a_table_shows_bytes_and_cuts_long_values(service: Server) -> None:
    service.put("table/long", json.dumps("x" * 100))
    service.client.put("/kv/table/logo", content=b"123", headers={"Content-Type": "image/png"})
    titles, logo, long = printed("list", "table/", url=service.url).splitlines()
    assert titles.split() == ["KEY", "REVISION", "UPDATED", "EXPIRES", "VALUE"]
    assert (long.split()[-1], logo.endswith("  3 bytes of image/png")) == (f'"{"x" * 58}…', True)
    assert printed("list", "table/none", url=service.url) == ""


# watch --------------------------------------------------------------------------------------------------------


def test_a_watch_prints_a_snapshot_and_changes_as_the_service_sends_them(service: Server) -> None:
    first = service.put("watch/exact", EXACT).json()["revision"]
    service.client.delete("/kv/watch/exact")
    service.put("watch/exact", EXACT)
    lines = printed("watch", "watch/", "--snapshot", "--limit=2", url=service.url).splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["put", "ready"]
    assert EXACT.replace("\\u2028", "\u2028")[1:30] in lines[0]
    assert "1e-300" in lines[0]
    table = printed("watch", "watch/", f"--since={first}", "--limit=2", "-o", "table", url=service.url).splitlines()
    assert [line.split()[0] for line in table] == ["EVENT", "ready", "put"]


@contextlib.contextmanager
def watching(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "leasehold", "watch", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment()
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_watch_reports_at_once_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    with (
        free_port() as port,
        running(tmp_path / "d", environment={"LEASEHOLD_PORT": str(port)}) as server,
        watching("--locks", f"--url={server.url}", "--retry=3600") as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["event"] == "ready"
        server.put("a", "1")
        assert json.loads(process.stdout.readline())["data"]["key"] == "a"
        server.restart()
        lease_of(server, "b")
        event = json.loads(process.stdout.readline())
        assert (event["event"], event["data"]["lock"], event["data"]["state"]) == ("lock", "b", "held")
        process.send_signal(signal.SIGINT)
        assert (process.wait(START_SECONDS), process.stderr.read()) == (-signal.SIGINT, "")


def test_a_history_that_is_gone_is_reported(service: Server) -> None:
    service.put("a", "1")
    ended = run("watch", "--since=1000000000", url=service.url)
    assert (ended.code, ended.output, ended.errors.count("\n")) == (4, b"", 1)


# Idempotency keys ---------------------------------------------------------------------------------------------


def test_commands_with_the_same_idempotency_key_do_one_change(service: Server) -> None:
    words = ["put", "once", "--increment", "1", "--idempotency-key", "night 7"]
    first = printed(*words, url=service.url)
    assert printed(*words, url=service.url) == first
    transaction = '{"do": [{"op": "increment", "key": "once", "value": 10}]}'
    for _ in range(2):
        printed("txn", transaction, "--idempotency-key=night 8", url=service.url)
    assert service.value("once") == 11
    other = run("put", "once", "2", "--idempotency-key", "night 7", url=service.url)
    assert (other.code, other.output) == (2, b"")


# txn ----------------------------------------------------------------------------------------------------------


def test_a_transaction_is_done_whole_or_not_at_all(service: Server) -> None:
    transaction = '{"if": [{"key": "t/1", "revision": null}], "do": [{"op": "put", "key": "t/1", "value": 1}]}'
    answer = json.loads(printed("txn", transaction, url=service.url))
    assert answer["results"][0]["revision"] == answer["revision"]
    refused = run("txn", "-", url=service.url, stdin=transaction.encode())
    reason = f"1 check failed: check 0 (t/1 has revision {answer['revision']})"
    assert (refused.code, refused.output, refused.errors) == (4, b"", f"leasehold: {reason}\n")


def test_a_transaction_is_fenced(service: Server) -> None:
    transaction = '{"do": [{"op": "put", "key": "t/2", "value": 1}]}'
    assert run("txn", transaction, url=service.url, environment={"LEASEHOLD_LEASE": "0" * 32}).code == 76


def test_a_refused_operation_is_named(service: Server) -> None:
    transaction = '{"do": [{"op": "get", "key": "t/3"}, {"op": "patch", "key": "t/4", "patch": []}]}'
    ended = run("txn", transaction, url=service.url)
    assert (ended.code, ended.errors) == (3, "leasehold: operation 1: key does not exist\n")


# Locks --------------------------------------------------------------------------------------------------------


def test_the_holders_of_locks_are_shown(service: Server) -> None:
    lease = lease_of(service, "shown/a", owner={"host": "a", "pid": 2**64 - 1})
    titles, row = printed("locks", "shown/", url=service.url).splitlines()
    assert titles.split() == ["LOCK", "TOKEN", "ACQUIRED", "EXPIRES", "OWNER"]
    assert row.split()[:2] == ["shown/a", str(lease["token"])]
    assert row.endswith('  {"host":"a","pid":18446744073709551615}')
    answer = printed("locks", "shown/", "-o", "json", url=service.url)
    assert (json.loads(answer)["lock"], "lease_id" in answer) == ("shown/a", False)


def test_a_lock_is_released_by_what_identifies_the_lease(service: Server) -> None:
    by_token, by_lease, by_force = (lease_of(service, f"released/{number}") for number in range(3))
    printed("unlock", "released/0", "--token", str(by_token["token"]), url=service.url)
    printed("unlock", "released/1", "--lease", by_lease["lease_id"], url=service.url)
    printed("unlock", "released/2", "--force", url=service.url)
    assert printed("locks", "released/", url=service.url) == ""
    assert run("unlock", "released/2", "--force", url=service.url).code == 3
    again = lease_of(service, "released/2")
    assert run("unlock", "released/2", "--token", str(by_force["token"]), url=service.url).code == 76
    assert again["token"] == service.client.get("/locks/released/2").json()["token"]


@pytest.mark.parametrize("words", [["a"], ["a", "--force", "--token=1"], ["a", "--token=0"], ["--force"]], ids=" ".join)
def test_an_unlock_without_a_clear_lease_is_wrong_usage(service: Server, words: list[str]) -> None:
    assert run("unlock", *words, url=service.url).code == 2
