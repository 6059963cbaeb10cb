"""How the Python interpreter switches threads and collects garbage in a server."""

import gc
import sys
from typing import Final

SWITCH_INTERVAL_SECONDS: Final = 0.0002
"""How long a sync thread that has finished waits for the interpreter while the event loop computes. Python's default
is 5 ms, which would be added to the latency of commits."""
COLLECTOR_THRESHOLDS: Final = (1_000, 1, 10_000)
"""A garbage collection stops the event loop. Generation 0 runs every 1,000 allocations, in less than 1 ms. A full
collection takes 20 ms with thousands of connections, and 160 ms while there are half a million lists of a body, so it
runs rarely: the cycles of a request are found while they are young, and few others are made."""


def shorten_switch_interval() -> None:
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)


def freeze_loaded_objects() -> None:
    """Exclude all present objects from garbage collection. Call it when the store is loaded: its entries stay."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
