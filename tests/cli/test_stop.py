"""SIGTERM and ctrl+c: requests under way are answered, the stored file is complete, and the stop is not delayed."""

import contextlib
import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import ANSWER_SECONDS, Ended, Server, Wire, leasehold, message, running, until

SOON_SECONDS = 30.0
"""Enough for a busy machine, and half of what the service would wait for connections that it must end."""
LIVE = message("GET", "/health/live")
every_signal = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[Server]:
    patient = {"LEASEHOLD_SHUTDOWN_TIMEOUT_SECONDS": str(2 * SOON_SECONDS)}
    with running(tmp_path / "data.json", environment=patient) as started:
        yield started


def stop(server: Server, number: signal.Signals = signal.SIGTERM) -> None:
    """Send SIGTERM and return when the service accepts no new connection."""
    assert server.process is not None
    server.process.send_signal(number)
    until(lambda: refuses_connections(server))


def refuses_connections(server: Server) -> bool:
    try:
        socket.create_connection(server.address).close()
    except ConnectionRefusedError:
        return True
    return False


def exit_code(server: Server) -> int:
    assert server.process is not None
    return server.process.wait(ANSWER_SECONDS)


def has_arrived(server: Server) -> None:
    """Return when the server has read what was sent to it before."""
    with Wire(server) as other:
        other.send(LIVE).answer()


def stored(folder: Path) -> dict[str, Any]:
    """What the file of a stopped store holds, read without the service."""
    return {entry["key"]: entry["value"] for entry in json.loads((folder / "data.json").read_bytes())["entries"]}


# Requests under way -------------------------------------------------------------------------------------------


@every_signal
def test_a_service_that_gets_a_signal_exits_with_0(durable: Server, number: signal.Signals) -> None:
    assert durable.terminate(number) == 0


@every_signal
def test_a_request_under_way_is_answered_and_kept(durable: Server, tmp_path: Path, number: signal.Signals) -> None:
    sent = message("PUT", "/kv/a", body=b'"late"')
    with Wire(durable) as wire:
        wire.send(sent[:-1])
        has_arrived(durable)
        stop(durable, number)
        answer = wire.send(sent[-1:]).answer()
        seen = (answer.status, answer.headers["connection"], wire.is_closed(), exit_code(durable))
    assert (seen, stored(tmp_path)) == ((201, "close", True, 0), {"a": "late"})


def test_a_list_under_way_is_sent_completely(durable: Server) -> None:
    large = '"%s"' % ("x" * 500_000)
    for number in range(30):
        durable.put(str(number), large, headers={"Prefer": "return=minimal"})
    with Wire(durable, receive_buffer_bytes=64 * 1024) as wire:
        wire.send(message("GET", "/kv"))
        assert wire.socket.recv(1, socket.MSG_PEEK) == b"H"
        stop(durable)
        entries = json.loads(wire.answer().body)["entries"]
    assert (len(entries), exit_code(durable)) == (30, 0)


def test_every_write_that_was_answered_is_kept(durable: Server, tmp_path: Path) -> None:
    answered = []
    with Wire(durable) as wire, contextlib.suppress(Ended):
        wire.send(*(message("PUT", f"/kv/{number}", body=b"1") for number in range(400)))
        answered.append(wire.answer())
        stop(durable)
        while True:
            answered.append(wire.answer())
    assert exit_code(durable) == 0
    assert {json.loads(answer.body)["key"] for answer in answered} - stored(tmp_path).keys() == set()


def test_an_incomplete_request_is_cut_after_the_shutdown_timeout(tmp_path: Path) -> None:
    with running(environment={"LEASEHOLD_SHUTDOWN_TIMEOUT_SECONDS": "1"}) as server, Wire(server) as wire:
        wire.send(message("PUT", "/kv/a", body=b"12")[:-1])
        has_arrived(server)
        started = time.monotonic()
        code = server.terminate()
        took = time.monotonic() - started
    assert (code, 0.9 < took < 1.0 + SOON_SECONDS) == (0, True)


# Connections --------------------------------------------------------------------------------------------------


def test_idle_connections_do_not_delay_the_stop(durable: Server) -> None:
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(durable)) for _ in range(50)]
        for wire in wires[:25]:
            wire.send(LIVE).answer()
        started = time.monotonic()
        code = durable.terminate()
        took = time.monotonic() - started
        ends = [wire.is_cut() for wire in wires]
    assert (code, took < SOON_SECONDS, all(ends)) == (0, True, True)


def test_a_connection_is_closed_after_the_request_under_way(durable: Server) -> None:
    sent = message("PUT", "/kv/a", body=b"1")
    with Wire(durable) as wire:
        wire.send(sent[:-1])
        has_arrived(durable)
        stop(durable)
        wire.send(sent[-1:], LIVE).answer()
        assert wire.is_cut()


def test_a_request_under_way_is_answered_after_a_second_signal(durable: Server, tmp_path: Path) -> None:
    sent = message("PUT", "/kv/a", body=b"1")
    with Wire(durable) as wire:
        wire.send(sent[:-1])
        has_arrived(durable)
        stop(durable)
        stop(durable)
        answer = wire.send(sent[-1:]).answer()
    assert (answer.status, exit_code(durable), stored(tmp_path)) == (201, 0, {"a": 1})


# The store ----------------------------------------------------------------------------------------------------


@every_signal
def test_a_stopped_store_is_one_complete_file(durable: Server, tmp_path: Path, number: signal.Signals) -> None:
    value = b'"%b"' % (b"x" * 1_000)
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(durable)) for _ in range(4)]
        for writer, wire in enumerate(wires):
            wire.send(*(message("PUT", f"/kv/{writer}/{n}", body=value) for n in range(200)))
        assert {wire.answer().status for wire in wires for _ in range(200)} == {201}
    durable.terminate(number)
    assert stored(tmp_path) == {f"{writer}/{n}": "x" * 1_000 for writer in range(4) for n in range(200)}


def test_a_stopped_store_passes_its_check(durable: Server, tmp_path: Path) -> None:
    durable.put("a", "1")
    durable.terminate()
    result = leasehold("check", str(tmp_path / "data.json"))
    assert (result.returncode, result.stderr) == (0, "")


def test_another_service_can_open_a_stopped_store_at_once(durable: Server, tmp_path: Path) -> None:
    durable.put("a", "1")
    durable.terminate()
    with running(tmp_path / "data.json") as other:
        assert other.value("a") == 1
