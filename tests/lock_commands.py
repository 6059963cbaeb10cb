"""Runs `leasehold lock`, and finds the processes of its command."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from running import ANSWER_SECONDS, clean_environment

PROGRAM = ("-m", "leasehold")
TAKING_SIGNALS = ("env", "--default-signal=HUP,INT,QUIT")
"""Before a command that must not ignore them, although the tests may run in the background of a shell."""
PATH = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
"""In the environment of a shell that runs `leasehold`."""
FOREVER = "echo $$; while :; do sleep 0.05; done"
"""A script that tells its process group and does not end."""


class LockCommand:
    """`leasehold lock OPTIONS -- COMMAND`, which runs in a session of its own. The end of the `with` block ends it.

    `options` includes the name of the lock. `program`: what Python runs instead of the installed command.
    """

    def __init__(
        self,
        url: str,
        options: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self.process = subprocess.Popen(
            [*TAKING_SIGNALS, sys.executable, *program, "lock", *options.split(), "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment() | {"LEASEHOLD_URL": url} | dict(environment or {}),
            start_new_session=True,
        )
        self.group = 0
        """The process group of the command, once it has told it (`started`)."""

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        """The next line that the command prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().removesuffix("\n")

    def started(self) -> Self:
        """Wait for the first line of the command, which is its process id."""
        told = self.line()
        assert told.isdecimal(), (told, self.end())
        self.group = int(told)
        return self

    def send(self, number: int) -> Self:
        self.process.send_signal(number)
        return self

    def end(self, given: str | None = None) -> tuple[int, str, str]:
        """Wait for the end. Returns the exit code, and the rest of standard output and of standard error."""
        output, errors = self.process.communicate(given, timeout=ANSWER_SECONDS)
        return self.process.returncode, output, errors

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in (signal.SIGKILL, signal.SIGCONT):
            self.process.send_signal(number)
        if self.group:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.group, signal.SIGKILL)
        with self.process:
            pass


def running_in(group: int) -> Sequence[int]:
    """The processes of a process group that have not ended; those whose exit status nobody has taken do not count."""
    return [pid for pid, of, state in _processes() if of == group and state not in "ZX"]


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])


def _processes() -> Iterator[tuple[int, int, str]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                state, _, group, *_ = (folder / "stat").read_text().rpartition(") ")[2].split()
                yield int(folder.name), int(group), state
