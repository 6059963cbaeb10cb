"""The service stays linearizable while its servers are killed and paused.

16 clients do all kinds of operations on few keys, on one server or on several that share a database. All answers are
recorded (`register_clients`, `histories`) and checked twice: by the revisions of the whole history (`revisions`), and
by a search through the history of each key (`registers`).
"""

import asyncio
import os
import random
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import uvloop
from proxy import Proxy
from running import Server

from harness import Finding
from harness.histories import History
from harness.register_clients import Client, Load, Place
from harness.registers import search
from harness.revisions import faults_by_revisions

CLIENTS = 16
PLANTED = str(Path(__file__).with_name("planted.py"))
MOST_DELAY_SECONDS = 0.02
PAUSE_SECONDS = (0.05, 0.3)
HANG_SECONDS = 280.0
"""A round takes tens of seconds."""
SHOWN = 10
"""Violations of each kind that are reported. One fault causes many."""


def stay_linearizable(
    store: str | Path,
    seed: int,
    *,
    operations: int,
    kills: int = 3,
    pauses: int = 3,
    servers: int = 1,
    lost_answers: int = 0,
    bug: str | None = None,
) -> Finding:
    """Do this many operations on `store`, which is empty and not used otherwise, and check the answers.

    `lost_answers`: how often the connection to the database is cut while it answers a COMMIT. `bug`: one of those in
    `planted`.
    """
    run = _Round(str(store), random.Random(seed), operations, bug)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run.drive(["kill"] * kills + ["pause"] * pauses, servers, lost_answers))
    return run.finding()


class _Round:
    def __init__(self, store: str, rng: random.Random, operations: int, bug: str | None) -> None:
        self._store = store
        self._rng = rng
        self._bug = bug
        self._history = History()
        self._load = Load(self._history, operations, self._progress)
        self._progressed = asyncio.Event()
        self._awaited = 0
        self._servers: list[Server] = []
        self._places: list[Place] = []
        self._clients: list[Client] = []

    # The run ------------------------------------------------------------------------------------------------------

    async def drive(self, faults: Sequence[str], servers: int, lost_answers: int) -> None:
        async with asyncio.timeout(HANG_SECONDS), AsyncExitStack() as stack:
            stores = [self._store] * servers
            if lost_answers:
                stores[0] = await self._cut_off(stack, lost_answers)
            running = ExitStack()
            # Starting a server blocks, and the proxy to its database runs on this loop.
            stack.push_async_callback(asyncio.to_thread, running.close)
            for store in stores:
                await self._start(running, store)
            self._clients = [
                Client(f"c{number}", self._places[number % servers], self._load, random.Random(self._rng.random()))
                for number in range(CLIENTS)
            ]
            async with asyncio.TaskGroup() as group:
                for client in self._clients:
                    group.create_task(client.run())
                await self._strike(self._rng.sample(faults, len(faults)))
            await self._look(self._places[0])

    async def _start(self, running: ExitStack, store: str) -> None:
        program = ("-m", "leasehold") if self._bug is None else (PLANTED,)
        environment = None if self._bug is None else {"LEASEHOLD_TEST_BUG": self._bug}
        server = Server(store, log_level="error", program=program, environment=environment)
        await asyncio.to_thread(running.enter_context, server)
        self._servers.append(server)
        self._places.append(Place(server.address))
        self._places[-1].is_up.set()

    async def _cut_off(self, stack: AsyncExitStack, times: int) -> str:
        """A store behind a proxy that cuts the connection this many times at the answer of a COMMIT."""
        parts = urlsplit(self._store)
        assert parts.port is not None
        proxy = await stack.enter_async_context(Proxy(parts.port))
        proxy.to_client = partial(self._lose, proxy, times)
        return self._store.replace(f":{parts.port}/", f":{proxy.port}/", 1)

    def _lose(self, proxy: Proxy, times: int, data: bytes) -> int | None:
        due = self._load.operations * (proxy.cuts + 1) // (times + 1)
        if b"COMMIT\0" not in data or proxy.cuts >= times or self._load.done < due:
            return None
        self._load.figures["answers of COMMIT lost"] += 1
        return 0

    async def _strike(self, faults: Sequence[str]) -> None:
        """Cause the faults one after another, spread over the load, at each server in turn."""
        for number, fault in enumerate(faults):
            self._awaited = self._load.operations * (number + 1) // (len(faults) + 1)
            self._progressed.clear()
            self._progress()
            await self._progressed.wait()
            # Not always directly after an answer.
            await asyncio.sleep(self._rng.uniform(0, MOST_DELAY_SECONDS))
            target = number % len(self._servers)
            count = sum(client.connection.is_waiting for client in self._at(target))
            self._load.figures.update({f"{fault}s": 1, f"{fault}s with operations under way": count > 0})
            self._load.figures[f"operations under way at {fault}s"] += count
            await (self._kill if fault == "kill" else self._pause)(target)

    def _progress(self) -> None:
        if self._load.done >= self._awaited:
            self._progressed.set()

    def _at(self, target: int) -> list[Client]:
        return self._clients[target :: len(self._servers)]

    async def _kill(self, target: int) -> None:
        server, place = self._servers[target], self._places[target]
        place.is_up.clear()
        server.kill()
        await asyncio.to_thread(server.start)
        self._load.lock_names += 1
        place.address = server.address
        await self._look(place)
        place.is_up.set()

    async def _pause(self, target: int) -> None:
        """Pause the server. Some of its clients disconnect meanwhile; the server handles their requests later."""
        os.kill(self._servers[target].pid, signal.SIGSTOP)
        await asyncio.sleep(self._rng.uniform(*PAUSE_SECONDS))
        for client in self._at(target):
            if self._rng.random() < 0.3:
                client.connection.hang_up()
        os.kill(self._servers[target].pid, signal.SIGCONT)

    async def _look(self, place: Place) -> None:
        """Read all keys. What is there must not disappear by itself."""
        await Client("observer", place, self._load, self._rng).look()

    # The judgement --------------------------------------------------------------------------------------------

    def finding(self) -> Finding:
        searched = search(self._history)
        # The last operation was a list of all keys.
        by_revisions = faults_by_revisions(self._history, self._history.sights[-1].head)
        figures = self._load.figures
        figures.update({"windows searched": searched.windows, "steps of the search": searched.steps})
        judgements = {"answers": self._history.faults, "revisions": by_revisions, "search": searched.faults}
        return Finding(figures, [line for name, found in judgements.items() for line in _shown(name, found)])


def _shown(name: str, found: Sequence[str]) -> list[str]:
    more = [f"{name}: {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return [f"{name}: {fault}" for fault in found[:SHOWN]] + more
