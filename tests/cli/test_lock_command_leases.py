"""`leasehold lock`: renewals, the end of the command when the lease ends, and the end of the lease.

`tests/faults/test_lock_command_faults.py` shows that the command is gone before another holder gets the lock.
"""

import datetime as dt
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from commands import printed, run
from lock_commands import FOREVER, PROGRAM, LockCommand, parent_of, running_in
from running import ANSWER_SECONDS, Server, free_port, running, until


@pytest.fixture(scope="module")
def service() -> Iterator[Server]:
    with running() as server:
        yield server


def script(text: str) -> Sequence[str]:
    return ["sh", "-c", text]


def test_the_lease_is_renewed_while_the_command_runs(service: Server) -> None:
    with LockCommand(service.url, "jobs/renewed --ttl 6", script("echo $$; read line; exit 4")) as held:
        held.started()
        first = service.holder("jobs/renewed").json()

        def is_renewed_for_long() -> bool:
            now = service.holder("jobs/renewed").json()
            assert now["token"] == first["token"]
            return bool(_time(now["expires_at"]) - _time(first["expires_at"]) > dt.timedelta(seconds=2))

        until(is_renewed_for_long)
        assert held.end("\n") == (4, "", "")


def test_a_restart_of_the_service_is_survived(tmp_path: Path) -> None:
    with (
        free_port() as port,
        running(tmp_path / "data.json", environment={"LEASEHOLD_PORT": str(port)}) as server,
        LockCommand(server.url, "jobs/restart --ttl 20", script("echo $$; read line; exit 4")) as held,
    ):
        held.started()
        server.kill()
        server.start()
        first = server.holder("jobs/restart").json()
        until(lambda: server.holder("jobs/restart").json()["expires_at"] > first["expires_at"])
        code, _, errors = held.end("\n")
        assert (code, "lost" in errors) == (4, False)
        assert server.is_free("jobs/restart")


def test_a_command_is_told_to_end_before_it_is_killed() -> None:
    text = "trap 'echo told; exit 5' TERM; " + FOREVER
    with running() as server, LockCommand(server.url, "jobs/told --ttl 6 --grace 3", script(text)) as held:
        held.started()
        server.kill()
        code, output, errors = held.end()
        assert (code, output) == (76, "told\n")
        assert errors.splitlines()[-1] == "leasehold: the lease on 'jobs/told' is lost, and the command was ended"
        assert running_in(held.group) == []


def test_a_command_that_ignores_the_signal_is_killed_with_its_group() -> None:
    text = "trap '' TERM; sleep 1000 & " + FOREVER
    with running() as server, LockCommand(server.url, "jobs/stubborn --ttl 1", script(text)) as held:
        held.started()
        server.kill()
        assert held.end()[0] == 76
        assert running_in(held.group) == []


def test_a_stopped_command_is_told_to_end_too() -> None:
    text = "trap 'echo told; exit 5' TERM; " + FOREVER
    with running() as server, LockCommand(server.url, "jobs/still --ttl 6 --grace 3", script(text)) as held:
        os.killpg(held.started().group, signal.SIGSTOP)
        server.kill()
        assert held.end()[:2] == (76, "told\n")


def test_a_lease_that_was_ended_by_force_kills_the_command(service: Server) -> None:
    with LockCommand(service.url, "jobs/forced --ttl 6", script(FOREVER)) as held:
        held.started()
        assert service.request("DELETE", "/locks/jobs/forced?force").status_code == 200
        code, _, errors = held.end()
        assert (code, errors) == (76, "leasehold: the lease on 'jobs/forced' is lost, and the command was ended\n")


def test_without_its_parent_the_command_is_told_to_end_at_once(service: Server) -> None:
    text = "trap 'echo told; exit 5' TERM; " + FOREVER
    with LockCommand(service.url, "jobs/orphan --ttl 600", script(text)) as held:
        held.started().send(signal.SIGKILL)
        assert held.line() == "told"
        until(lambda: running_in(held.group) == [])


def test_a_command_under_two_locks_is_killed_when_the_outer_lease_is_over(service: Server) -> None:
    inner = [sys.executable, *PROGRAM, "lock", "--ttl=1800", "--grace=900", "jobs/inner", "--"]
    stubborn = script(f"trap '' TERM; {FOREVER}")
    with LockCommand(service.url, "jobs/outer --ttl 3 --grace 0.1", [*inner, *stubborn]) as held:
        held.started()
        assert service.request("DELETE", "/locks/jobs/outer?force").status_code == 200
        assert held.process.wait(ANSWER_SECONDS) == 76
        until(lambda: running_in(held.group) == [])


def test_a_command_under_two_locks_is_killed_when_the_outer_command_has_ended(service: Server) -> None:
    inner = shlex.join([sys.executable, *PROGRAM, "lock", "--ttl=1800", "--grace=900", "jobs/inner/2", "--"])
    stubborn = shlex.join(script(f"trap '' TERM; {FOREVER}"))
    outer = script(f"exec 3<&0; {inner} {stubborn} & read line <&3; exit 4")
    with LockCommand(service.url, "jobs/outer/2 --ttl 1800 --grace 0.1", outer) as held:
        held.started()
        assert held.process.stdin is not None
        held.process.stdin.write("\n")
        held.process.stdin.flush()
        assert held.process.wait(ANSWER_SECONDS) == 4
        until(lambda: running_in(held.group) == [])


def test_without_its_guard_the_command_is_killed(service: Server) -> None:
    with LockCommand(service.url, "jobs/unguarded --ttl 600", script(FOREVER)) as held:
        os.kill(parent_of(held.started().group), signal.SIGKILL)
        code, _, errors = held.end()
        assert (code, "is not released" in errors) == (125, True)
        until(lambda: running_in(held.group) == [])


def test_a_lock_is_kept_for_at_least_so_long(service: Server) -> None:
    assert printed("lock", "--ttl=10", "--at-least=600", "jobs/kept", "--", "echo", "ran", url=service.url) == "ran\n"
    shown = service.holder("jobs/kept").json()
    kept = _time(shown["expires_at"]) - _time(shown["acquired_at"])
    assert dt.timedelta(seconds=600) <= kept < dt.timedelta(seconds=700)
    assert run("lock", "-n", "jobs/kept", "--", "true", url=service.url).code == 75


def test_a_command_that_takes_longer_frees_the_lock_at_its_end(service: Server) -> None:
    assert run("lock", "--at-least=0.001", "jobs/longer", "--", "true", url=service.url).code == 0
    assert service.is_free("jobs/longer")


def test_a_lock_that_cannot_be_released_does_not_change_the_exit_code() -> None:
    with running() as server, LockCommand(server.url, "jobs/left", script("echo $$; read line; exit 4")) as held:
        held.started()
        server.kill()
        code, _, errors = held.end("\n")
        assert code == 4
        assert "is not released, and ends by itself" in errors


def _time(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)
