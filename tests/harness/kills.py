"""Acknowledged writes survive SIGKILL of the real server under 16 clients.

All clients write all the time, to their own keys and to shared ones. The server is killed in between and started again.
Its contents are compared with the answers that the clients got.
"""

import contextlib
import itertools
import json
import random
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from running import Server, Wire, message, running

from harness import Finding

CLIENTS = 16
SHARED_KEYS = 8
OWN_KEYS = 4
LEAST_WRITES = 16 * 5
MOST_WRITES = 16 * 60
"""Acknowledged writes between two kills."""
PADDING = "x" * 200
WAIT_SECONDS = 120.0


@dataclass(frozen=True)
class Write:
    """A change that a client sent: a value, or None for a deletion."""

    key: str
    value: str | None


@dataclass
class History:
    """What all clients together know. `acknowledged`: the state of each key by revision, None for deleted."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    acknowledged: dict[str, dict[int, str | None]] = field(default_factory=lambda: defaultdict(dict))
    under_way: list[Write] = field(default_factory=list)
    uncertain: dict[str, set[str | None]] = field(default_factory=lambda: defaultdict(set))
    """Writes in progress at a kill, which may have been stored or not."""
    last_revision: int = 0
    writes: int = 0

    def begin(self, write: Write) -> None:
        with self.changed:
            self.under_way.append(write)

    def end(self, write: Write, revision: int | None) -> None:
        """Record the answer to `write`. No revision: it deleted a key that did not exist."""
        with self.changed:
            self.under_way.remove(write)
            self.writes += 1
            self.changed.notify()
            if revision is not None:
                self.acknowledged[write.key][revision] = write.value
                self.last_revision = max(self.last_revision, revision)

    def wait_for_writes(self, count: int) -> None:
        """Wait until the clients have done `count` more writes."""
        with self.changed:
            enough = self.writes + count
            assert self.changed.wait_for(lambda: self.writes >= enough, WAIT_SECONDS), "the clients do not write"

    def note_kill(self) -> int:
        """Call this when the clients have ended after a kill. Returns how many writes were in progress."""
        count = len(self.under_way)
        for write in self.under_way:
            self.uncertain[write.key].add(write.value)
        self.under_way.clear()
        return count

    def faults(self, entries: dict[str, Any], head: int) -> list[str]:
        """Where the `entries` of a restarted server differ from what was acknowledged."""
        found = []
        if head < self.last_revision:
            found.append(f"the head went back from {self.last_revision} to {head}")
        for key in self.acknowledged.keys() | self.uncertain.keys() | entries.keys():
            known = self.acknowledged.get(key, {})
            last = max(known, default=0)
            entry = entries.get(key)
            revision = 0 if entry is None else entry["revision"]
            value = None if entry is None else entry["value"].removesuffix(PADDING)
            if revision == last and last:
                if value != known[last]:
                    found.append(f"{key} at {revision} is {value}, not {known[last]}")
            elif revision > last:
                if value not in self.uncertain[key]:
                    found.append(f"{key} is {value}, which no client wrote")
            elif entry is not None:
                found.append(f"{key} went back from {last} to {revision}")
            elif known.get(last) is not None and None not in self.uncertain[key]:
                found.append(f"{key} is gone; {known[last]} at {last} is lost")
        return found

    def learn(self, entries: dict[str, Any], head: int) -> None:
        """Take the contents of a restarted server as durable. They must not change by themselves."""
        self.acknowledged.clear()
        self.uncertain.clear()
        for key, entry in entries.items():
            self.acknowledged[key][entry["revision"]] = entry["value"].removesuffix(PADDING)
        self.last_revision = head


def write_until_killed(server: Server, history: History, client: int, round_number: int) -> None:
    rng = random.Random(round_number * CLIENTS + client)
    # Only the kill ends a client. An incomplete answer counts as no answer.
    with contextlib.suppress(OSError), Wire(server) as wire:
        for number in itertools.count():
            is_shared = rng.random() < 0.5
            key = f"shared/{rng.randrange(SHARED_KEYS)}" if is_shared else f"own/{client}/{rng.randrange(OWN_KEYS)}"
            value = None if rng.random() < 0.1 else f"{round_number}.{client}.{number} "
            write = Write(key, value)
            history.begin(write)
            if value is None:
                wire.send(message("DELETE", f"/kv/{key}"))
            else:
                wire.send(message("PUT", f"/kv/{key}", body=json.dumps(value + PADDING).encode()))
            answer = wire.answer()
            assert answer.status in (200, 201, 404), answer
            history.end(write, None if answer.status == 404 else json.loads(answer.body)["revision"])


def survive_kills(store: str | Path, seed: int, *, kills: int) -> Finding:
    """Kill the server of `store` this many times while clients write, start it again, and compare.

    `store` is empty at first, durable, and not used otherwise.
    """
    rng = random.Random(seed)
    history, finding = History(), Finding()
    with running(store) as server, ThreadPoolExecutor(CLIENTS) as pool:
        for round_number in range(kills):
            clients = [
                pool.submit(write_until_killed, server, history, client, seed + round_number)
                for client in range(CLIENTS)
            ]
            history.wait_for_writes(rng.randrange(LEAST_WRITES, MOST_WRITES))
            assert not any(client.done() for client in clients), "only the kill may end a client"
            server.kill()
            for client in clients:
                client.result()
            under_way = history.note_kill()
            server.start()
            entries = {entry["key"]: entry for entry in server.request("GET", "/kv").json()["entries"]}
            found = history.faults(entries, server.revision())
            finding.violations += [f"after kill {round_number + 1}: {fault}" for fault in found]
            finding.figures.update(
                {"kills": 1, "kills with writes under way": under_way > 0, "writes under way at kills": under_way}
            )
            history.learn(entries, server.revision())
    finding.figures["acknowledged writes"] = history.writes
    return finding
