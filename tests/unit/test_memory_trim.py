"""Memory that is returned to the system."""

import subprocess
import sys
from pathlib import Path

import pytest
from running import Server

MIB = 1 << 20
KEEPS_A_LATER_BLOCK = f"""
from leasehold.process.memory_trim import return_large_blocks

def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

if {{returns}}:
    return_large_blocks()
del (block := [b"x" * {24 * MIB}])[:]  # without the call, this raises the limit of the library
large = b"x" * {20 * MIB}
later = [b"x" * {100 * 1024} for _ in range(50)]
before = resident_bytes()
del large
print(before - resident_bytes())
"""
"""Blocks that are allocated after a large one must not keep it from being returned."""


@pytest.mark.parametrize("returns", [True, False])
def test_a_large_block_is_returned_when_it_is_freed_only_if_that_was_asked_for(returns: bool) -> None:  # noqa: FBT001
    done = subprocess.run(
        [sys.executable, "-c", KEEPS_A_LATER_BLOCK.format(returns=returns)], capture_output=True, text=True, check=True
    )
    assert (int(done.stdout) >= 20 * MIB) == returns


KEEPS_THE_END_OF_THE_HEAP = f"""
from leasehold.process.memory_trim import give_back_memory

def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

blocks = [b"x" * {64 * 1024} for _ in range(200)]
last = b"x" * {64 * 1024}
del blocks
before = resident_bytes()
give_back_memory()
print(before - resident_bytes())
"""
"""The library returns by itself only what is free at the end of the heap."""


def test_free_memory_within_the_heap_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", KEEPS_THE_END_OF_THE_HEAP], capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 10 * MIB


TELLS_WHEN_IT_GIVES_BACK = """
import os
import leasehold.server.run as server
give_back_memory = server.give_back_memory
server.give_back_memory = lambda: (os.write(2, b"it gives back\\n"), give_back_memory())
from leasehold.__main__ import main
main()
"""


def test_a_service_gives_back_what_reading_its_store_has_freed(tmp_path: Path) -> None:
    with Server(tmp_path / "data.json", program=("-c", TELLS_WHEN_IT_GIVES_BACK)) as server:
        before, told, after = server.log().partition("it gives back\n")
    assert told
    assert " ready " not in before
    assert "it gives back" not in after
