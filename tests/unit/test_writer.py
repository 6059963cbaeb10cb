"""The order in which tasks use the connection for writes, also if the end of a block fails."""

import asyncio
from unittest.mock import Mock

import pytest

from leasehold.engines.postgres.links import Link
from leasehold.engines.postgres.writer import Writer

SECONDS = 60.0


def writer_whose_link_fails_once() -> tuple[Writer, Mock]:
    """Dropping its connection fails the first time."""
    link = Mock(spec=Link)
    link.drop.side_effect = [OSError("no answer"), None, None]
    return Writer(link), link


async def fail(writer: Writer) -> None:
    """A block whose end fails."""
    with pytest.raises(OSError, match="no answer"):
        async with writer:
            raise TimeoutError


def test_a_task_whose_block_did_not_end_can_begin_another_one() -> None:
    async def scenario() -> None:
        writer, link = writer_whose_link_fails_once()
        async with asyncio.timeout(SECONDS):
            await fail(writer)
            async with writer:
                assert link.drop.call_count == 2, "nothing is known of the state of the connection"

    asyncio.run(scenario())


def test_the_others_continue_after_a_block_that_did_not_end() -> None:
    async def scenario() -> list[str]:
        writer, _ = writer_whose_link_fails_once()
        order: list[str] = []
        has_failed, goes_on = asyncio.Event(), asyncio.Event()

        async def first() -> None:
            await fail(writer)
            has_failed.set()
            await goes_on.wait()
            async with writer:
                order.append("first")
            writer.end()

        async def second() -> None:
            await has_failed.wait()
            goes_on.set()
            async with writer:
                order.append("second")

        async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
            group.create_task(first())
            group.create_task(second())
        return sorted(order)

    assert asyncio.run(scenario()) == ["first", "second"]
