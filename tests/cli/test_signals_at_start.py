"""SIGTERM and ctrl+c while the service starts: it ends with 0 at any moment and leaves no files or processes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from programs import AS_PID_1, PID_NAMESPACES, needs
from running import START_SECONDS, clean_environment, until

ROOT = Path(__file__).parents[2]
SERVE = ["-m", "leasehold", "serve", "--store=data.json", "--port=0"]
SHARING = [str(Path(__file__).with_name("sharing.py")), "serve", "--store=memory:", "--port=0", "--workers=2"]
HANGING = [str(Path(__file__).with_name("sharing.py")), "serve", "--store=memory:", "--port=0"]
MOMENTS = 4
"""At each another one is tried: between the first line of the program and some time after it is ready."""
LATEST_SECONDS = 1.2


def moment(number: int) -> float:
    return random.Random(number).uniform(0, LATEST_SECONDS)


def start(command: Sequence[str], folder: Path, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=clean_environment() | environment,
        start_new_session=True,
    )


def is_python(pid: int) -> bool:
    """Whether a process that was started has become this Python, which has perhaps not come to its first line."""
    program = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    return program == sys.executable.encode()


def holds_sigterm(pid: int) -> bool:
    """Whether the program has begun and keeps SIGTERM for later, or has a handler for it."""
    if not is_python(pid):
        return False  # between its fork and its exec, a process may hold all signals for a moment
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigBlk:", "SigCgt:"))]
    return any(mask >> (signal.SIGTERM - 1) & 1 for mask in masks)


def end_of(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """The exit code, and what was written to standard error."""
    try:
        _, told = process.communicate(timeout=START_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, told = process.communicate()
        raise AssertionError(f"it did not end: {told}") from None
    return process.returncode, told


def nothing_is_left(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("attempt", range(MOMENTS))
def test_a_signal_at_any_moment_of_the_start_ends_it_with_0(
    tmp_path: Path, attempt: int, number: signal.Signals
) -> None:
    process = start([sys.executable, *SERVE], tmp_path)
    until(lambda: holds_sigterm(process.pid), seconds=START_SECONDS)
    time.sleep(moment(attempt))
    process.send_signal(number)
    code, told = end_of(process)
    assert (code, "Traceback" in told) == (0, False), told


@pytest.mark.parametrize("to_all", [False, True], ids=["to the supervisor", "to all, as ctrl+c"])
@pytest.mark.parametrize("attempt", range(MOMENTS))
def test_a_signal_at_any_moment_of_the_start_of_workers_ends_all_with_0(
    tmp_path: Path, attempt: int, *, to_all: bool
) -> None:
    process = start([sys.executable, *SHARING], tmp_path)
    until(lambda: holds_sigterm(process.pid), seconds=START_SECONDS)
    time.sleep(moment(attempt) * 1.5)
    if to_all:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGTERM)
    code, told = end_of(process)
    assert (code, "Traceback" in told, nothing_is_left(process.pid)) == (0, False, True), told


def test_the_signals_are_blocked_before_large_modules_are_imported() -> None:
    code = (
        "import sys, leasehold.process.signal_mask as signals;"
        "late = {'argparse', 'msgspec', 'asyncio'};"
        "signals.hold_ends = lambda: sys.exit(str(sorted(late & sys.modules.keys())));"
        "import leasehold.__main__ as program; program.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "[]\n"


def test_more_signals_during_a_stop_do_not_change_the_exit_code(tmp_path: Path) -> None:
    process = start([sys.executable, *SERVE], tmp_path)
    until(lambda: holds_sigterm(process.pid), seconds=START_SECONDS)
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.001)
    assert end_of(process)[0] == 0


def test_a_signal_ends_a_service_whose_store_does_not_open(tmp_path: Path) -> None:
    process = start([sys.executable, *HANGING], tmp_path, LEASEHOLD_TEST_FAULT="hang")
    assert process.stdout is not None
    assert process.stdout.readline() == "opening\n"
    process.send_signal(signal.SIGTERM)
    code, told = end_of(process)
    assert (code, "ready" in told) == (0, False)


WAITING = """
import sys, time
from leasehold import engines
from leasehold.cli import status
from leasehold.__main__ import main

def wait(*_, **__):
    print("waiting", flush=True)
    time.sleep(600)

engines.inspect_file = status.ask = wait
main()
"""
"""A command whose work takes long."""


@pytest.mark.parametrize("command", ["check data.json", "status"])
def test_a_signal_ends_other_commands_with_its_default_action(tmp_path: Path, command: str) -> None:
    process = start([sys.executable, "-c", WAITING, *command.split()], tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGTERM)
    assert end_of(process)[0] == -signal.SIGTERM


# As the first process of a container --------------------------------------------------------------------------


def entrypoint() -> list[str]:
    """What the image puts in front of the command, with this Python in place of the installed program."""
    [line] = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("ENTRYPOINT ")]
    front: list[str] = json.loads(line.removeprefix("ENTRYPOINT "))
    program = front.pop()
    assert program == "leasehold"
    return front


@needs(PID_NAMESPACES)
@pytest.mark.parametrize("arguments", [SERVE, SHARING], ids=["alone", "workers"])
@pytest.mark.parametrize("attempt", range(MOMENTS))
def test_pid_1_ends_with_0_at_any_moment_of_its_start(tmp_path: Path, attempt: int, arguments: list[str]) -> None:
    process = start([*AS_PID_1, *entrypoint(), sys.executable, *arguments], tmp_path)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(lambda: children.read_text().split(), seconds=START_SECONDS)
    first = int(children.read_text())
    until(lambda: is_python(first), seconds=START_SECONDS)
    # Half of them before Python itself has started.
    time.sleep(moment(attempt) if attempt % 2 else random.Random(attempt).uniform(0, 0.03))
    os.kill(first, signal.SIGTERM)
    try:
        code, told = end_of(process)
    finally:
        if Path(f"/proc/{first}").exists():
            os.kill(first, signal.SIGKILL)
    assert (code, "Traceback" in told) == (0, False), told
