"""The line on a terminal that shows how far a command has come."""

import asyncio
import os
import pty
import sys
import threading
from collections.abc import Mapping

import pytest

from leasehold.cli import progress_line
from leasehold.cli.progress_line import shown, shown_by_thread
from leasehold.progress import Progress


def lines_of(progress: Progress, monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool) -> list[str]:
    """What is written while a block runs until it was shown twice."""
    written: list[str] = []
    monkeypatch.setattr(progress_line, "SHOW_SECONDS", 0.0)
    monkeypatch.setattr(progress_line, "_write", written.append)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)

    async def scenario() -> None:
        with shown(progress.figures):
            progress.done = 250
            while is_terminal and len(written) < 2:  # noqa: ASYNC110 - for the timer of the loop
                await asyncio.sleep(0)

    asyncio.run(scenario())
    return written


def test_the_figures_of_the_step_are_shown_and_erased_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    progress = Progress()
    progress.begin("copying entries", 1_000, "entries")
    assert lines_of(progress, monkeypatch, is_terminal=True) == [
        "\r\x1b[Kcopying entries, done 0 entries, left 1,000 entries",
        "\r\x1b[Kcopying entries, done 250 entries, left 750 entries",
        "\r\x1b[K",
    ]


def test_nothing_is_shown_if_standard_error_is_not_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines_of(Progress(), monkeypatch, is_terminal=False) == []


def test_a_terminal_that_is_gone_does_not_end_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    os.close(ours)
    monkeypatch.setattr(progress_line, "STANDARD_ERROR", theirs)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    def figures() -> Mapping[str, object]:
        return {"step": "copying"}

    async def scenario() -> None:
        with pytest.raises(OSError, match="error"):
            os.write(theirs, b"x")
        with shown(figures):
            pass

    asyncio.run(scenario())
    os.close(theirs)


def test_a_thread_shows_the_figures_of_work_without_an_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    has_shown_twice = threading.Event()

    def write(text: str) -> None:
        written.append(text)
        if len(written) == 2:
            has_shown_twice.set()

    monkeypatch.setattr(progress_line, "SHOW_SECONDS", 0.0)
    monkeypatch.setattr(progress_line, "_write", write)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with shown_by_thread(lambda: {"step": "importing", "done": "5 entries"}):
        assert has_shown_twice.wait(60)
    assert written[0] == "\r\x1b[Kimporting, done 5 entries"
    assert written[-1] == "\r\x1b[K"
    written.clear()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    with shown_by_thread(lambda: {"step": "importing"}):
        pass
    assert written == []
