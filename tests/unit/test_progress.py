"""The log of a long start or stop: what is done, and what is left."""

import asyncio

import pytest
from structlog.testing import capture_logs

from leasehold import progress
from leasehold.progress import Progress, reported


def test_a_step_says_what_is_done_and_what_is_left_in_its_unit() -> None:
    shown = Progress()
    shown.begin("importing data.json", 5_000_000, "entries")
    shown.done = 1_250_000
    assert shown.figures() == {
        "step": "importing data.json",
        "done": "1,250,000 entries",
        "left": "3,750,000 entries",
    }


def test_bytes_are_shown_in_megabytes() -> None:
    shown = Progress()
    shown.begin("reading data.json", 1_200_000_000)
    shown.done = 200_999_999
    assert shown.figures() == {"step": "reading data.json", "done": "200 MB", "left": "999 MB"}


def test_a_step_of_unknown_length_shows_its_name_only() -> None:
    shown = Progress()
    shown.begin("first", 10)
    shown.done = 10
    shown.begin("syncing the files")
    assert shown.figures() == {"step": "syncing the files"}


def test_nothing_is_left_if_a_step_does_more_than_was_known() -> None:
    shown = Progress()
    shown.begin("writing data.json", 10, "lines")
    shown.done = 12
    assert shown.figures() == {"step": "writing data.json", "done": "10 lines", "left": "0 lines"}


def test_the_lines_of_a_text_are_counted_when_they_were_taken() -> None:
    shown = Progress()
    chunks = shown.counting_lines([b"a\nb\n", b"c", b"\n"])
    assert (next(chunks), shown.done) == (b"a\nb\n", 0)
    assert (list(chunks), shown.done) == ([b"c", b"\n"], 3)


def test_the_figures_are_logged_again_and_again_while_the_block_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REPORT_SECONDS", 0.001)

    async def scenario() -> None:
        done = 0
        enough = asyncio.Event()

        def figures() -> dict[str, object]:
            nonlocal done
            done += 1
            if done == 3:
                enough.set()
            return {"done": done}

        async with asyncio.timeout(60):
            with reported("the store is being opened", figures):
                await enough.wait()

    with capture_logs() as logs:
        asyncio.run(scenario())
    assert [entry["done"] for entry in logs][:3] == [1, 2, 3]
    assert {entry["event"] for entry in logs} == {"the store is being opened"}


def test_nothing_is_logged_after_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REPORT_SECONDS", 0.001)

    async def scenario() -> None:
        with pytest.raises(RuntimeError), reported("the store is being opened", dict):
            raise RuntimeError
        await asyncio.sleep(0.02)

    with capture_logs() as logs:
        asyncio.run(scenario())
    assert logs == []
