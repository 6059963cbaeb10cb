"""SIGTERM ends the process though something in it hangs for ever; what was acknowledged is kept."""

import os
import signal
from pathlib import Path

import pytest
from running import Server, Wire, message, running, until

HANGING = (str(Path(__file__).with_name("hanging.py")),)
FORCED = 1
WRITE = message("PUT", "/kv/a", body=b"2")


def hanging(hang: str, store: str | Path, *arguments: str, folder: Path) -> Server:
    environment = {"LEASEHOLD_TEST_HANG": hang, "LEASEHOLD_SHUTDOWN_TIMEOUT_SECONDS": "0.5"}
    return Server(store, environment=environment, program=HANGING, folder=folder, arguments=arguments)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("hang", ["lane", "loop", "housekeeping", "engine"])
def test_a_process_that_hangs_ends_with_a_log_line_and_1(tmp_path: Path, hang: str, number: signal.Signals) -> None:
    with hanging(hang, "memory:", folder=tmp_path) as server, Wire(server) as wire:
        wire.send(WRITE)
        if hang in ("housekeeping", "engine"):
            assert wire.answer().status == 201
        elif hang == "lane":
            until(lambda: server.request("GET", "/health/live").status_code == 200)
        assert server.terminate(number) == FORCED
        assert "exit forced" in server.log()


def test_a_process_that_does_not_hang_ends_normally(tmp_path: Path) -> None:
    with hanging("nothing", "memory:", folder=tmp_path) as server:
        assert server.put("a", "1").status_code == 201
        assert server.terminate() == 0
        assert "forced" not in server.log()


def test_acknowledged_writes_are_kept_if_a_sync_of_the_disk_hangs(tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    with hanging("disk", data, folder=tmp_path) as server, Wire(server) as wire:
        assert server.put("a", "1").status_code == 201
        (tmp_path / "stuck").touch()
        wire.send(WRITE)
        until(lambda: "leasehold_waiting_operations 0.0" in server.request("GET", "/metrics").text)
        assert server.terminate() == FORCED
        assert "exit forced" in server.log()
    with running(data) as server:
        assert server.value("a") in (1, 2)


def test_a_worker_that_hangs_is_killed_by_its_supervisor(tmp_path: Path) -> None:
    with hanging("nothing", "memory:", "--workers=2", folder=tmp_path) as server:
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGSTOP)
        assert server.terminate() == FORCED
        assert "ended by force" in server.log()
        assert not any(Path(f"/proc/{pid}").exists() for pid in children)
