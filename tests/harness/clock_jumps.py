"""Leases exclude each other although the system clock jumps by hours in either direction while the service is down.

A few holders append to a list under one lock: they read it and write it back with `If-Lease`. In between, other
holders, kills of the service and starts with another clock may come. A lease may end early or late by real time. Still
no two leases may be alive at the same time, so no element may be lost, and tokens only grow.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from running import Server, running

from harness import Finding

PROGRAM = str(Path(__file__).with_name("shifted_clock.py"))
CLOCK = "LEASEHOLD_TEST_CLOCK_SECONDS"
HOLDERS = 3
MOST_SECONDS = 14_400.0
LEASE_SECONDS = 1_800
"""Similar in size to the jumps, so that some leases end by them and some do not."""
STEPS = 60
"""Steps between two kills."""


@dataclass
class Holder:
    """A client that appends. `read`: the list as it read it under its lease and will write it back."""

    name: str
    lease_id: str | None = None
    read: list[str] | None = None
    appended: list[str] = field(default_factory=list)


class Run:
    """The holders and their answers."""

    def __init__(self, server: Server, chance: random.Random) -> None:
        self._server = server
        self._chance = chance
        self.holders = [Holder(f"h{number}") for number in range(HOLDERS)]
        self.tokens: list[int] = []
        self.finding = Finding()

    def step(self) -> None:
        """One holder takes its next step."""
        holder = self._chance.choice(self.holders)
        if holder.lease_id is None:
            self._acquire(holder)
        elif holder.read is None:
            response = self._server.get("list")
            holder.read = response.json()["value"] if response.status_code == 200 else []
        elif self._chance.random() < 0.8:
            self._append(holder, holder.read)
        else:
            self._release(holder)

    def _acquire(self, holder: Holder) -> None:
        response = self._server.request("POST", "/locks/l", json={"ttl": LEASE_SECONDS, "wait": 0})
        if response.status_code == 201:
            lease = response.json()
            holder.lease_id = lease["lease_id"]
            self.tokens.append(lease["token"])
            self.finding.figures["leases"] += 1

    def _append(self, holder: Holder, read: list[str]) -> None:
        element = f"{holder.name}-{len(holder.appended)}"
        response = self._server.request(
            "PUT", "/kv/list", json=[*read, element], headers={"If-Lease": str(holder.lease_id)}
        )
        holder.read = None
        if response.status_code in (200, 201):
            holder.appended.append(element)
            self.finding.figures["elements"] += 1
            return
        if (response.status_code, response.json()["error"]) != (412, "lease_lost"):
            self.finding.violations.append(f"a fenced write was answered {response.text}")
        self.finding.figures["writes refused"] += 1
        holder.lease_id = None

    def _release(self, holder: Holder) -> None:
        self._server.request("DELETE", "/locks/l", params={"lease_id": holder.lease_id})
        holder.lease_id = holder.read = None

    def check(self) -> None:
        """Check that every acknowledged element is there exactly once, and that tokens only grow."""
        response = self._server.get("list")
        found: list[Any] = response.json()["value"] if response.status_code == 200 else []
        expected = sorted(element for holder in self.holders for element in holder.appended)
        if sorted(found) != expected:
            self.finding.violations.append(f"lost or invented: {sorted(set(expected) ^ set(found))[:5]}")
        if self.tokens != sorted(set(self.tokens)):
            self.finding.violations.append(f"tokens do not grow: {self.tokens}")


def survive_clock_jumps(store: str | Path, seed: int, *, kills: int) -> Finding:
    """Kill the service of the file `store` this many times, and start it with another clock each time."""
    chance = random.Random(seed)
    with running(store, program=(PROGRAM,), environment={CLOCK: "0"}) as server:
        run, clock = Run(server, chance), 0.0
        for _ in range(kills):
            for _ in range(STEPS):
                run.step()
            run.finding.figures["jumps with a lease alive"] += bool(server.request("GET", "/locks").json()["locks"])
            # More jumps go forward, because the service's own clock never goes back.
            clock += chance.uniform(-MOST_SECONDS / 4, MOST_SECONDS)
            server._environment[CLOCK] = f"{clock:.3f}"
            server.restart()
            run.finding.figures["jumps"] += 1
            run.check()
    return run.finding
