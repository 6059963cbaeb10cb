"""The service stays linearizable while its servers are killed and paused, also in their turns (`turns`).

16 clients do all kinds of operations on few keys, on one server or on several that share a database. All answers are
recorded (`register_clients`, `histories`) and checked twice: by the revisions of the whole history (`revisions`), and
by a search through the history of each key (`registers`).
"""

import asyncio
import os
import random
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from typing import Protocol

import uvloop
from proxy import Proxy
from running import Server

from harness import Finding
from harness.histories import History
from harness.register_clients import Client, Connection, Load, Place
from harness.registers import search
from harness.revisions import faults_by_revisions
from harness.turns import FaultInTurn, Turns, port_of, through

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
    in_turns: Sequence[FaultInTurn] = (),
    bug: str | None = None,
) -> Finding:
    """Do this many operations on `store`, which is empty and not used otherwise, and check the answers.

    `lost_answers`: how often the connection to the database is cut while it answers a COMMIT. `in_turns`: faults of two
    servers in their turns; without `lost_answers`. `bug`: one of those in `planted`.
    """
    run = _Registers(str(store), random.Random(seed), operations, bug)
    run.go(kills=kills, pauses=pauses, servers=servers, lost_answers=lost_answers, in_turns=in_turns)
    return run.finding()


class AnyClient(Protocol):
    """A client of a round."""

    connection: Connection

    async def run(self) -> None:
        """Do operations until the load is done."""

    async def look(self) -> None:
        """Read everything once."""


class Round(ABC):
    """Clients on one server or on several, while the servers are killed and paused. `rng` decides everything."""

    planted = PLANTED
    """The program with the planted bugs."""

    def __init__(self, store: str, rng: random.Random, operations: int, bug: str | None) -> None:
        self._store = store
        self.rng = rng
        self._bug = bug
        self.history = History()
        self.load = Load(self.history, operations, self._progress)
        self._progressed = asyncio.Event()
        self._awaited = 0
        self._servers: list[Server] = []
        self._places: list[Place] = []
        self._clients: list[AnyClient] = []
        self._turns: list[Turns] = []
        """Of each server, if there are faults in turns."""

    @abstractmethod
    def make_client(self, name: str, place: Place) -> AnyClient:
        """A client of the server at `place`."""

    @abstractmethod
    async def prepare(self, place: Place) -> None:
        """Do what must be done before the clients begin."""

    # The run ------------------------------------------------------------------------------------------------------

    def go(
        self, *, kills: int, pauses: int, servers: int, lost_answers: int, in_turns: Sequence[FaultInTurn] = ()
    ) -> None:
        """Do the whole load with these faults."""
        faults: list[str | FaultInTurn] = ["kill"] * kills + ["pause"] * pauses + list(in_turns)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._drive(faults, servers, lost_answers))

    async def _drive(self, faults: Sequence[str | FaultInTurn], servers: int, lost_answers: int) -> None:
        async with asyncio.timeout(HANG_SECONDS), AsyncExitStack() as stack:
            stores = [self._store] * servers
            if lost_answers:
                stores[0] = await self._cut_off(stack, lost_answers)
            if not all(isinstance(fault, str) for fault in faults):
                stores = [await self._watch_turns(stack) for _ in stores]
            running = ExitStack()
            # Starting a server blocks, and the proxy to its database runs on this loop.
            stack.push_async_callback(asyncio.to_thread, running.close)
            for store in stores:
                await self._start(running, store)
            await self.prepare(self._places[0])
            self._clients = [
                self.make_client(f"c{number}", self._places[number % servers]) for number in range(CLIENTS)
            ]
            async with asyncio.TaskGroup() as group:
                for client in self._clients:
                    group.create_task(client.run())
                await self._strike(self.rng.sample(faults, len(faults)))
            await self._look(self._places[0])

    async def _start(self, running: ExitStack, store: str) -> None:
        program = ("-m", "leasehold") if self._bug is None else (self.planted,)
        environment = None if self._bug is None else {"LEASEHOLD_TEST_BUG": self._bug}
        server = Server(store, log_level="error", program=program, environment=environment)
        await asyncio.to_thread(running.enter_context, server)
        self._servers.append(server)
        self._places.append(Place(server.address))
        self._places[-1].is_up.set()

    async def _cut_off(self, stack: AsyncExitStack, times: int) -> str:
        """A store behind a proxy that cuts the connection this many times at the answer of a COMMIT."""
        proxy = await stack.enter_async_context(Proxy(port_of(self._store)))
        proxy.to_client = partial(self._lose, proxy, times)
        return through(self._store, proxy)

    async def _watch_turns(self, stack: AsyncExitStack) -> str:
        """A store behind a proxy that sees the turns of the server that uses it."""
        proxy = await stack.enter_async_context(Proxy(port_of(self._store)))
        self._turns.append(Turns(proxy))
        return through(self._store, proxy)

    def _lose(self, proxy: Proxy, times: int, data: bytes) -> int | None:
        due = self.load.operations * (proxy.cuts + 1) // (times + 1)
        if b"COMMIT\0" not in data or proxy.cuts >= times or self.load.done < due:
            return None
        self.load.figures["answers of COMMIT lost"] += 1
        return 0

    async def _strike(self, faults: Sequence[str | FaultInTurn]) -> None:
        """Cause the faults one after another, spread over the load, at each server in turn."""
        for number, fault in enumerate(faults):
            self._awaited = self.load.operations * (number + 1) // (len(faults) + 1)
            self._progressed.clear()
            self._progress()
            await self._progressed.wait()
            # Not always directly after an answer.
            await asyncio.sleep(self.rng.uniform(0, MOST_DELAY_SECONDS))
            target = number % len(self._servers)
            if not isinstance(fault, str):
                await self._strike_in_turn(target, fault)
                continue
            while not (count := self._under_way_at(target)) and not self.load.is_over:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.001)
            self.load.figures.update({f"{fault}s": 1, f"{fault}s with operations under way": count > 0})
            self.load.figures[f"operations under way at {fault}s"] += count
            await (self._kill if fault == "kill" else self._pause)(target)

    def _progress(self) -> None:
        if self.load.done >= self._awaited:
            self._progressed.set()

    def _under_way_at(self, target: int) -> int:
        return sum(client.connection.is_waiting for client in self._at(target))

    def _at(self, target: int) -> list[AnyClient]:
        return self._clients[target :: len(self._servers)]

    async def _kill(self, target: int) -> None:
        server, place = self._servers[target], self._places[target]
        place.is_up.clear()
        server.kill()
        await asyncio.to_thread(server.start)
        self.load.lock_names += 1
        place.address = server.address
        await self._look(place)
        place.is_up.set()

    async def _pause(self, target: int) -> None:
        """Pause the server. Some of its clients disconnect meanwhile; the server handles their requests later."""
        os.kill(self._servers[target].pid, signal.SIGSTOP)
        await asyncio.sleep(self.rng.uniform(*PAUSE_SECONDS))
        self._hang_up_some(target)
        os.kill(self._servers[target].pid, signal.SIGCONT)

    def _hang_up_some(self, target: int) -> None:
        for client in self._at(target):
            if self.rng.random() < 0.3:
                client.connection.hang_up()

    async def _strike_in_turn(self, target: int, fault: FaultInTurn) -> None:
        kind, place = fault
        turns, other = self._turns[target], self._turns[1 - target]
        # What is done meanwhile does not count, because a server without a database refuses thousands of writes.
        planned, before, self.load.operations = self.load.operations, self.load.done, sys.maxsize
        await asyncio.to_thread(turns.strike, self._servers[target], other, fault)
        self.load.figures.update({f"{kind}s in a turn": 1, f"faults in a turn, {place}": 1})
        self._hang_up_some(target)
        if kind == "kill":
            await self._kill(target)
        await asyncio.to_thread(turns.end, kind)
        self.load.operations = planned + self.load.done - before

    async def _look(self, place: Place) -> None:
        """Read all keys. What is there must not disappear by itself."""
        await self.make_client("observer", place).look()


class _Registers(Round):
    def make_client(self, name: str, place: Place) -> Client:
        return Client(name, place, self.load, random.Random(self.rng.random()))

    async def prepare(self, place: Place) -> None:
        """Do nothing: all keys are missing at first."""

    def finding(self) -> Finding:
        searched = search(self.history)
        # The last operation was a list of all keys.
        by_revisions = faults_by_revisions(self.history, self.history.sights[-1].head)
        figures = self.load.figures
        figures.update({"windows searched": searched.windows, "steps of the search": searched.steps})
        judgements = {"answers": self.history.faults, "revisions": by_revisions, "search": searched.faults}
        return Finding(figures, [line for name, found in judgements.items() for line in shown(name, found)])


def shown(name: str, found: Sequence[str]) -> list[str]:
    """The first of the violations that a check found."""
    more = [f"{name}: {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return [f"{name}: {fault}" for fault in found[:SHOWN]] + more
