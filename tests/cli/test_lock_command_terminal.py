"""`leasehold lock` in a terminal: the command is in the foreground, and a shell stops and continues it."""

import os
import pty
import select
import sys
from collections.abc import Iterator
from typing import Self

import pytest
from lock_commands import PATH, TAKING_SIGNALS
from running import ANSWER_SECONDS, Server, clean_environment, running, until


@pytest.fixture(scope="module")
def service() -> Iterator[Server]:
    with running() as server:
        yield server


class Terminal:
    """A program in a terminal of its own, whose foreground group it is. The `with` block ends it."""

    def __init__(self, url: str, *words: str) -> None:
        environment = clean_environment() | PATH | {"LEASEHOLD_URL": url, "PS1": "prompt> ", "TERM": "dumb"}
        self._pid, self._own = pty.fork()
        if self._pid == 0:
            os.execvpe(TAKING_SIGNALS[0], [*TAKING_SIGNALS, *words], environment)
        self._shown = b""

    def type(self, text: str) -> None:
        os.write(self._own, text.encode())

    def until(self, text: str) -> None:
        """Wait until the terminal shows the text, after what was waited for before."""
        while text.encode() not in self._shown:
            ready = select.select([self._own], [], [], ANSWER_SECONDS)[0]
            assert ready, self._shown
            try:
                self._shown += os.read(self._own, 4096)
            except OSError:  # the end of all programs in the terminal
                raise AssertionError(self._shown) from None
        self._shown = self._shown.partition(text.encode())[2]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._own)  # which hangs up
        until(lambda: os.waitpid(self._pid, os.WNOHANG)[0] != 0)


FOREGROUND = f"{sys.executable} -c 'import os; print(os.tcgetpgrp(0) == os.getpgrp())'"


def test_the_command_has_the_terminal_and_gives_it_back(service: Server) -> None:
    text = f"leasehold lock jobs/terminal -- {FOREGROUND}; {FOREGROUND}; read line; echo read $line"
    with Terminal(service.url, "sh", "-c", text) as terminal:
        terminal.until("True")
        terminal.until("True")
        terminal.type("typed\n")
        terminal.until("read typed")


def test_a_command_that_cannot_be_run_leaves_the_terminal(service: Server) -> None:
    text = f"leasehold lock jobs/none -- no-such-command; echo code $?; {FOREGROUND}"
    with Terminal(service.url, "sh", "-c", text) as terminal:
        terminal.until("code 127")
        terminal.until("True")


def test_a_reader_of_its_output_keeps_the_terminal(service: Server) -> None:
    shown = FOREGROUND.replace("tcgetpgrp(0)", "tcgetpgrp(2)")
    text = f"leasehold lock jobs/piped -- echo through | (cat; {shown})"
    with Terminal(service.url, "sh", "-c", text) as terminal:
        terminal.until("through")
        terminal.until("True")


def test_ctrl_c_goes_to_the_command(service: Server) -> None:
    text = (
        "leasehold lock jobs/typed -- sh -c 'trap \"echo told; exit 6\" INT; echo ready; while :; do sleep 0.05; done'"
    )
    with Terminal(service.url, "sh", "-c", f"trap : INT; {text}; echo code $?") as terminal:
        terminal.until("ready")
        terminal.type("\x03")
        terminal.until("told")
        terminal.until("code 6")


def test_a_job_in_the_background_gets_the_terminal_when_it_comes_to_the_foreground(service: Server) -> None:
    # With -b, bash tells that a job has stopped as soon as it knows. Before it knows, its `fg` sends no SIGCONT. /proc
    # shows the state T too early: the system tells bash only when the thread that renews has stopped, too.
    with Terminal(service.url, "bash", "--norc", "-i", "-b") as terminal:
        terminal.until("prompt> ")
        terminal.type("leasehold lock jobs/background --ttl 600 -- sh -c 'read line; echo read $line' &\n")
        terminal.until("Stopped")  # because the command has read from the terminal
        terminal.until("\n")
        terminal.type("fg\n")
        terminal.until("leasehold lock")
        terminal.type("typed\n")
        terminal.until("read typed")
        terminal.until("prompt> ")


def test_ctrl_z_and_fg_of_a_shell_stop_and_continue_the_command(service: Server) -> None:
    text = "echo re''ady; while read line; do echo read $line; done; exit 6"
    with Terminal(service.url, "bash", "--norc", "-i") as terminal:
        terminal.until("prompt> ")
        terminal.type(f'leasehold lock jobs/shell --ttl 600 -- sh -c "{text.replace("$", chr(92) + "$")}"\n')
        terminal.until("ready")
        for word in ("one", "two"):
            terminal.type("\x1a")
            terminal.until("Stopped")
            terminal.until("prompt> ")
            assert not service.is_free("jobs/shell")
            terminal.type("fg\n")
            terminal.until("leasehold lock")
            terminal.type(f"{word}\n")
            terminal.until(f"read {word}")
        terminal.type("\x04")
        terminal.until("prompt> ")
        terminal.type("echo code $?\n")
        terminal.until("code 6")
    assert service.is_free("jobs/shell")
