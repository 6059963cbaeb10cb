"""`--workers`: several processes on one port, kept by a supervisor. `sharing` stands in for a shared store."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import forked
import pytest
from forked import ForkedProcess
from running import ANSWER_SECONDS, clean_environment, leasehold, message, running, until

SHARING = str(Path(__file__).with_name("sharing.py"))
LIVE = message("GET", "/health/live")
USAGE = 2
FAULT = 1


def start(*arguments: str, errors: IO[str], fault: str = "") -> ForkedProcess:
    """Start a supervisor with two workers."""
    return forked.start_service(
        [SHARING],
        ["serve", "--store=memory:", "--port=0", "--workers=2", *arguments],
        errors=errors,
        environment=clean_environment() | {"LEASEHOLD_TEST_FAULT": fault},
        folder=None,
    )


class Workers:
    """A supervisor with two workers, which are ready."""

    def __init__(self, *arguments: str, log_level: str = "info") -> None:
        self.log = open(os.memfd_create("log"), "w+")  # noqa: PTH123, SIM115 - no path; closed in close()
        self.process = start(*arguments, f"--log-level={log_level}", errors=self.log)
        assert self.process.stdout is not None
        self.ready_line = self.process.stdout.readline().rstrip("\n")
        host, _, port = self.ready_line.split()[3].removeprefix("http://").rpartition(":")
        self.address = (host, int(port))

    def pids(self) -> set[int]:
        """The process ids of the workers that run."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return {int(pid) for pid in children if is_alive(int(pid))}

    def asked(self) -> str | None:
        """Which worker answers a new connection, by the mark in its request ids; None if none does."""
        try:
            with socket.create_connection(self.address, timeout=10) as client:
                client.sendall(LIVE)
                answer = client.recv(4096).decode()
        except ConnectionError:
            return None
        return next((line[14:26] for line in answer.split("\r\n") if line.startswith("X-Request-Id: ")), None)

    def log_text(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(ANSWER_SECONDS)

    def close(self) -> None:
        if self.process.poll() is None:
            self.stop()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.log.close()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def workers() -> Iterator[Workers]:
    started = Workers()
    yield started
    started.close()


def start_in_vain(*arguments: str, fault: str = "") -> "subprocess.CompletedProcess[str]":
    with TemporaryFile("w+") as errors:
        process = start(*arguments, errors=errors, fault=fault)
        assert process.stdout is not None
        with process.stdout as output:
            printed = output.read()
        code = process.wait(ANSWER_SECONDS)
        errors.seek(0)
        return subprocess.CompletedProcess(arguments, code, printed, errors.read())


# Start --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["data.json", "memory:"])
def test_several_workers_are_refused_if_the_store_cannot_be_shared(tmp_path: Path, store: str) -> None:
    url = store if store == "memory:" else str(tmp_path / store)
    result = leasehold("serve", f"--store={url}", "--port=0", "--workers=2")
    line = "leasehold: --workers needs a store that processes can share, like postgresql://…\n"
    assert (result.returncode, result.stdout, result.stderr) == (USAGE, "", line)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", ["0", "-1", "two", "1.5", ""])
def test_an_invalid_number_of_workers_is_wrong_usage(number: str) -> None:
    assert leasehold("serve", "--store=memory:", "--port=0", f"--workers={number}").returncode == USAGE


def test_one_worker_works_with_a_store_that_cannot_be_shared(tmp_path: Path) -> None:
    with running(tmp_path / "data.json", arguments=["--workers=1"]) as server:
        assert server.put("a", "1").status_code == 201


def test_two_workers_answer_on_one_port(workers: Workers) -> None:
    seen = {workers.asked() for _ in range(100)}
    assert (len(workers.pids()), len(seen), None in seen) == (2, 2, False)


def test_one_ready_line_is_printed(workers: Workers) -> None:
    port = workers.address[1]
    assert workers.ready_line == f"leasehold ready on http://127.0.0.1:{port} store memory:"
    assert workers.stop() == 0
    assert workers.process.stdout is not None
    assert workers.process.stdout.read() == ""


def test_a_warning_about_open_access_is_logged_once() -> None:
    started = Workers("--host=0.0.0.0", "--insecure-open", log_level="warning")
    try:
        assert started.stop() == 0
        log = started.log_text()
    finally:
        started.close()
    assert (log.count("\n"), "anybody who can reach the port" in log) == (1, True)


def test_workers_that_cannot_start_are_reported_in_one_line() -> None:
    result = start_in_vain(fault="unopened")
    assert (result.returncode, result.stdout, result.stderr) == (
        FAULT,
        "",
        "leasehold: the database cannot be reached\n",
    )


def test_an_unexpected_error_of_a_worker_is_reported_with_its_cause() -> None:
    result = start_in_vain(fault="crash")
    assert (result.returncode, result.stdout) == (FAULT, "")
    assert "nobody foresaw this" in result.stderr
    assert result.stderr.endswith("leasehold: the worker died\n")


def test_workers_without_a_verification_key_are_refused_on_other_addresses_than_loopback() -> None:
    result = start_in_vain("--host=0.0.0.0")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (FAULT, "", 1)


def test_a_port_in_use_by_other_workers_is_reported(workers: Workers) -> None:
    port = workers.address[1]
    result = start_in_vain(f"--port={port}")
    line = f"leasehold: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    assert (result.returncode, result.stdout, result.stderr) == (FAULT, "", line)


def test_a_single_server_cannot_listen_on_a_port_of_workers(workers: Workers) -> None:
    result = leasehold("serve", "--store=memory:", f"--port={workers.address[1]}")
    assert (result.returncode, "Address already in use" in result.stderr) == (FAULT, True)


# Workers that die ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_is_replaced(workers: Workers, number: signal.Signals) -> None:
    before = workers.pids()
    killed = min(before)
    os.kill(killed, number)
    until(lambda: len(workers.pids() - {killed}) == 2)
    until(lambda: None not in {workers.asked() for _ in range(20)})
    assert workers.pids() & before == before - {killed}
    assert "a worker died and will be started again" in workers.log_text()


def test_workers_that_die_together_are_all_replaced(workers: Workers) -> None:
    before = workers.pids()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(workers.pids() - before) == 2)
    until(lambda: workers.asked() is not None)
    assert workers.stop() == 0


# End ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_processes_normally(workers: Workers, number: signal.Signals) -> None:
    pids = workers.pids()
    assert workers.stop(number) == 0
    assert [pid for pid in pids if is_alive(pid)] == []
    assert workers.log_text().count("stopped") == 2


def test_ctrl_c_to_supervisor_and_workers_at_once_ends_all_normally() -> None:
    workers = Workers()
    pids = workers.pids()
    for pid in [*pids, workers.process.pid]:
        os.kill(pid, signal.SIGINT)
    code = workers.process.wait(ANSWER_SECONDS)
    died = "a worker died" in workers.log_text()
    workers.close()
    assert (code, [pid for pid in pids if is_alive(pid)], died) == (0, [], False)


def test_a_request_under_way_is_answered(workers: Workers) -> None:
    sent = message("PUT", "/kv/a", body=b"1")
    with socket.create_connection(workers.address, timeout=ANSWER_SECONDS) as client:
        client.sendall(sent[:-1])
        until(lambda: workers.asked() is not None)
        workers.process.send_signal(signal.SIGTERM)
        until(lambda: workers.asked() is None)
        client.sendall(sent[-1:])
        assert client.recv(4096).startswith(b"HTTP/1.1 201 ")
    assert workers.process.wait(ANSWER_SECONDS) == 0


def test_a_signal_while_a_worker_is_missing_ends_all_processes(workers: Workers) -> None:
    pids = workers.pids()
    os.kill(min(pids), signal.SIGKILL)
    assert workers.stop() == 0
    assert [pid for pid in pids if is_alive(pid)] == []


def test_a_request_under_way_is_answered_after_a_second_signal(workers: Workers) -> None:
    sent = message("PUT", "/kv/a", body=b"1")
    with socket.create_connection(workers.address, timeout=ANSWER_SECONDS) as client:
        client.sendall(sent[:-1])
        until(lambda: workers.asked() is not None)
        for _ in range(2):
            workers.process.send_signal(signal.SIGTERM)
            workers.process.send_signal(signal.SIGINT)
            until(lambda: workers.asked() is None)
        client.sendall(sent[-1:])
        assert client.recv(4096).startswith(b"HTTP/1.1 201 ")
    assert (workers.process.wait(ANSWER_SECONDS), "Traceback" in workers.log_text()) == (0, False)


def test_a_signal_ends_workers_that_hang_while_they_start() -> None:
    with TemporaryFile("w+") as errors:
        process = start(errors=errors, fault="hang")
        assert process.stdout is not None
        with process.stdout as output:
            assert output.readline() == "opening\n"
            process.terminate()
            assert (process.wait(ANSWER_SECONDS), output.read()) == (0, "")


def test_workers_end_when_their_supervisor_is_killed(workers: Workers) -> None:
    pids = workers.pids()
    workers.process.kill()
    workers.process.wait(ANSWER_SECONDS)
    until(lambda: not any(is_alive(pid) for pid in pids))
    # The system's list of children may lack one, which is then still stopping.
    until(lambda: workers.log_text().count("stopped") == 2)
    assert workers.asked() is None


def test_workers_without_a_supervisor_use_little_cpu_while_they_drain() -> None:
    workers = Workers()
    pids = workers.pids()
    with socket.create_connection(workers.address) as busy:
        request = message("PUT", "/kv/a", "Expect: 100-continue", body=b"12")
        busy.sendall(request[:-2])
        assert busy.recv(4096).startswith(b"HTTP/1.1 100 ")  # so a worker has the request
        busy.sendall(request[-2:-1])
        workers.process.kill()
        workers.process.wait(ANSWER_SECONDS)
        until(lambda: len([pid for pid in pids if is_alive(pid)]) == 1)
        (left,) = [pid for pid in pids if is_alive(pid)]
        before, began = cpu_seconds(left), time.monotonic()
        until(lambda: time.monotonic() - began > 1)
        assert cpu_seconds(left) - before < 0.5
    until(lambda: not is_alive(left))
    workers.close()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
