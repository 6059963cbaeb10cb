"""Standard output and standard error that are closed, full, or without a reader."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from running import START_SECONDS, clean_environment, free_port, leasehold, running, until

NO_SPACE = "No space left on device"
CLOSED = "Bad file descriptor"
LEASEHOLD = f"exec {sys.executable} -m leasehold"


def run(command: str) -> subprocess.CompletedProcess[str]:
    """Run a command by a shell, which makes its redirections. The result has only the output that is not redirected."""
    return subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, check=False, timeout=START_SECONDS
    )


@contextlib.contextmanager
def serving(folder: Path, port: int, redirections: str, stdout: int | None = None) -> Iterator[subprocess.Popen[str]]:
    command = f"{LEASEHOLD} serve --port {port} --store {folder / 'data.json'} {redirections}"
    with subprocess.Popen(["/bin/sh", "-c", command], env=clean_environment(), stdout=stdout, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def port() -> Iterator[int]:
    with free_port() as number:
        yield number


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(("redirection", "reason"), [(">/dev/full", NO_SPACE), (">&-", CLOSED)], ids=["full", "closed"])
def test_a_service_that_cannot_print_its_ready_line_logs_it_and_serves(
    tmp_path: Path, port: int, redirection: str, reason: str
) -> None:
    log = tmp_path / "log"
    with serving(tmp_path, port, f"{redirection} 2>{log}") as process:
        until(lambda: answers(port))
        assert httpx.put(f"http://127.0.0.1:{port}/kv/a", json=1).status_code == 201
        process.send_signal(signal.SIGTERM)
        code = process.wait(START_SECONDS)
    warned = [line for line in log.read_text().splitlines() if "the ready line cannot be printed" in line]
    assert (code, len(warned), reason in warned[0]) == (0, 1, True)


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "<&- >&- 2>&-"])
def test_a_service_whose_log_cannot_be_written_serves(tmp_path: Path, port: int, redirection: str) -> None:
    with serving(tmp_path, port, redirection) as process:
        until(lambda: answers(port))
        assert httpx.put(f"http://127.0.0.1:{port}/kv/a", json=1).status_code == 201
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_SECONDS) == 0
    assert "1 entries" in leasehold("check", str(tmp_path / "data.json")).stdout


def test_a_service_serves_if_nobody_reads_its_ready_line(tmp_path: Path, port: int) -> None:
    receiving, sending = os.pipe()
    os.set_blocking(sending, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(sending, bytes(4096))
    os.set_blocking(sending, True)
    try:
        with serving(tmp_path, port, "", stdout=sending) as process:
            until(lambda: answers(port))
            process.send_signal(signal.SIGTERM)
            assert process.wait(START_SECONDS) == 0
    finally:
        os.close(receiving)
        os.close(sending)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with running(tmp_path / "data.json") as server:
        server.put("a", "1")
    return tmp_path / "data.json"


@pytest.mark.parametrize(("redirection", "reason"), [(">/dev/full", NO_SPACE), (">&-", CLOSED)], ids=["full", "closed"])
@pytest.mark.parametrize("command", ["check {store}", "--version", "--help"])
def test_a_command_fails_if_its_output_cannot_be_written(
    store: Path, command: str, redirection: str, reason: str
) -> None:
    result = run(f"{LEASEHOLD} {command.format(store=store)} {redirection}")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"leasehold: standard output cannot be written: {reason}\n"


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_a_fault_has_its_exit_code_if_standard_error_cannot_be_written(tmp_path: Path, redirection: str) -> None:
    assert run(f"{LEASEHOLD} check {tmp_path / 'none.json'} {redirection}").returncode == 1
    assert run(f"{LEASEHOLD} serve --port 70000 {redirection}").returncode == 2
