"""Memory that is returned to the system."""

import subprocess
import sys

import pytest

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
