"""`leasehold` with the store `memory:` taken for one that servers may share, so that workers can be tried without one.

Each worker then has entries of its own, which is all that these tests need. LEASEHOLD_TEST_FAULT: `unopened` keeps
every store from being opened, `crash` raises what nobody foresaw, `hang` waits for ever.
"""

import asyncio
import os
import sys

from leasehold.__main__ import main
from leasehold.engines.memory.engine import MemoryEngine
from leasehold.engines.memory.space import MemorySpace
from leasehold.errors import unavailable

FAULT = os.environ.pop("LEASEHOLD_TEST_FAULT", "")


async def fail(_space: MemorySpace) -> None:
    """Stand in for an engine that cannot be opened."""
    if FAULT == "hang":
        sys.stdout.write("opening\n")
        sys.stdout.flush()
        await asyncio.Event().wait()
    if FAULT == "crash":
        raise RuntimeError("nobody foresaw this")
    raise unavailable("the database cannot be reached")


MemoryEngine.shared = True
if FAULT:
    MemorySpace.open = fail  # type: ignore[assignment,method-assign]
main()
