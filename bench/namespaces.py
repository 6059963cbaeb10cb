"""What many namespaces cost in files: `python -m bench.namespaces [--namespaces 1000] [--entries 20 100]`.

Two stores have the same entries: one has them in `default`, the other one in many namespaces. Each table compares how
long the service takes to start with each of them, in turn, and its threads and open files after that. A row shows how
much of a start is the opening of the engine, by the CPU time of this process. The last figure is what an idle namespace
takes: its space and its store, as the allocator of Python counts them.
"""

import argparse
import asyncio
import gc
import random
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.service import Leasehold
from bench.workload import key, value
from leasehold.engines.file.engine import FileEngine
from leasehold.limits import KIB, Limits
from leasehold.model import Put, QuotaChange
from leasehold.namespaces import DEFAULT_NAMESPACE
from leasehold.store.stores import Stores

_ROUNDS: Final = 5
_SEED: Final = 4


def _names(count: int) -> Sequence[str]:
    return [f"team-{number:05}" for number in range(count)]


async def _fill(folder: Path, names: Sequence[str], entries: int) -> None:
    """Make a store that has so many entries in each of these namespaces."""
    rng = random.Random(_SEED)
    stores = Stores(FileEngine(folder / "data.json"), Limits())
    await stores.start()
    for name in names:
        if name != DEFAULT_NAMESPACE:
            await stores.create(name, QuotaChange())
        store = await stores.open(name)
        for begin in range(0, entries, 1_000):
            numbers = range(begin, min(begin + 1_000, entries))
            await asyncio.gather(*(store.submitted(Put(key(number), value(rng))) for number in numbers))
    await stores.close()


async def _idle_bytes(folder: Path, count: int) -> float:
    """What each of so many namespaces takes that were opened and are idle."""
    stores = Stores(FileEngine(folder / "data.json"), Limits())
    await stores.start()
    first, *names = _names(count + 1)
    await stores.create(first, QuotaChange())
    await stores.open(first)  # what the first one needs, such as imports
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for name in names:
        await stores.create(name, QuotaChange())
        await stores.open(name)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await stores.close()
    return (after - before) / count


async def _open(folder: Path) -> float:
    """The CPU seconds to open the engine."""
    engine = FileEngine(folder / "data.json")
    gc.collect()
    begun = time.process_time()
    await engine.open()
    taken = time.process_time() - begun
    await engine.close()
    return taken


class _Started:
    """The service on one of the stores."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._service = Leasehold(stack, folder, [str(Path(sys.executable).with_name("leasehold"))])
        self._folder = folder
        self.seconds: list[float] = []
        self.opening_seconds: list[float] = []
        self.threads = self.descriptors = 0

    def start_and_stop(self) -> None:
        self.seconds.append(self._service.start())
        process = Path("/proc") / str(self._service.pid)
        self.threads = len(list((process / "task").iterdir()))
        self.descriptors = len(list((process / "fd").iterdir()))
        self._service.stop()
        self.opening_seconds.append(asyncio.run(_open(self._folder)))


def _row(title: str, *cells: object) -> None:
    sys.stdout.write(f"| {title} | {' | '.join(map(str, cells))} |\n")


def _times(seconds: Sequence[Sequence[float]]) -> tuple[str, str]:
    one, many = map(statistics.median, seconds)
    return f"{one * 1_000:.0f} ms", f"{many * 1_000:.0f} ms ({many / one:.2f} times)"


def _compare(count: int, entries: int) -> None:
    """Print the table for so many namespaces with so many entries in each."""
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        folders = [Path(made) / name for name in ("one", "many")]
        for folder in folders:
            folder.mkdir()
        asyncio.run(_fill(folders[0], [DEFAULT_NAMESPACE], count * entries))
        asyncio.run(_fill(folders[1], _names(count), entries))
        sides = [_Started(stack, folder) for folder in folders]
        for _ in range(_ROUNDS):
            for side in sides:
                side.start_and_stop()
        _row(f"{count * entries:,} entries", "in one namespace", f"in {count:,} namespaces")
        _row("---", "---", "---")
        _row(f"start, median of {_ROUNDS}", *_times([side.seconds for side in sides]))
        _row("CPU time of opening the engine", *_times([side.opening_seconds for side in sides]))
        _row("threads", *(side.threads for side in sides))
        _row("open files", *(side.descriptors for side in sides))
        sys.stdout.write("\n")


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--namespaces", type=int, default=1_000)
    parser.add_argument("--entries", type=int, nargs="+", default=[20, 100], help="in each namespace")
    arguments = parser.parse_args()
    for entries in arguments.entries:
        _compare(arguments.namespaces, entries)
    with tempfile.TemporaryDirectory() as folder:
        idle = asyncio.run(_idle_bytes(Path(folder), arguments.namespaces))
    sys.stdout.write(f"An idle namespace takes {idle / KIB:.1f} KiB.\n")


if __name__ == "__main__":
    main()
