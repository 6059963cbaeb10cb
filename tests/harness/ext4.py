"""Acknowledged changes survive when a real file system loses power right after the answer.

The real server has its store on an ext4 of its own. Each client writes its own entries and locks, one request at a
time. When one client gets its answer, the file system is shut down at once without a flush, and the server is killed.
After a new mount and start the store must have what every client knows, possibly with the change that it had in
progress.

A single client makes a small store write `data.json` with each commit; eight clients, or a large store, use the
journal.
"""

import itertools
import json
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from running import Answer, Server, Wire, message

from harness import Finding
from harness.mounts import LoopMount

MOST_CLIENTS = 8
KEYS = 3
LOCKS = 2
TTL_SECONDS = 3600
PADDING = "x" * 300
LARGE = "y" * 300_000
"""With this value a store is too large to be rewritten by each commit."""
OPTIONS = ("", "", "data=writeback")
"""Mount options. Most systems use the defaults."""
MOST_ANSWERS = 150
"""Answers before a cut."""

PLANTED = str(Path(__file__).with_name("planted_disk.py"))

Record = dict[str, Any]
"""An entry or a lease as the service returns it."""


@dataclass(frozen=True)
class Operation:
    """A request of a client. `value`: of a put, or the owner of a lease."""

    method: str
    path: str
    body: Any = None
    value: str = ""
    lease_id: str = ""
    """The lease_id that guards a write."""

    def send(self, wire: Wire) -> None:
        fields = [f"If-Lease: {self.lease_id}"] if self.lease_id else []
        body = None if self.body is None else json.dumps(self.body).encode()
        wire.send(message(self.method, self.path, *fields, body=body))


@dataclass
class Client:
    """What one client knows, by path (`/kv/…`, `/locks/…`). No other client writes there."""

    number: int
    known: dict[str, Record] = field(default_factory=dict)
    under_way: Operation | None = None
    abandoned: int = 0
    """Locks whose `lease_id` the client never got. It uses others."""

    def next_operation(self, rng: random.Random, number: int) -> Operation:
        value = f"{self.number}.{number}"
        if rng.random() < 0.35:
            return self._lock_operation(f"/locks/{self.number}/{self.abandoned + rng.randrange(LOCKS)}", value, rng)
        path = f"/kv/{self.number}/{rng.randrange(KEYS)}"
        leases = [record["lease_id"] for record in self.known.values() if "lease_id" in record]
        lease_id = rng.choice(leases) if leases and rng.random() < 0.3 else ""
        if path in self.known and rng.random() < 0.2:
            return Operation("DELETE", path, lease_id=lease_id)
        value += f" {PADDING}"
        return Operation("PUT", path, value, value, lease_id)

    def _lock_operation(self, path: str, value: str, rng: random.Random) -> Operation:
        if path not in self.known:
            return Operation("POST", path, {"ttl": TTL_SECONDS, "wait": 0, "owner": value}, value)
        lease_id = self.known[path]["lease_id"]
        if rng.random() < 0.5:
            return Operation("PUT", path, {"lease_id": lease_id, "ttl": TTL_SECONDS + rng.randrange(1000)})
        return Operation("DELETE", path, {"lease_id": lease_id})

    def learn(self, operation: Operation, answer: Record) -> None:
        if operation.method == "DELETE":
            del self.known[operation.path]
        else:
            self.known[operation.path] = answer

    def faults(self, found: dict[str, Record]) -> list[str]:
        """Where `found` under its paths is neither what the client knows nor that plus the change in progress."""
        return [
            f"{path} is {_short(found.get(path))} instead of {_short(self.known.get(path))}"
            for path in self.known.keys() | found.keys()
            if not _is_same(found.get(path), self.known.get(path)) and not self._may_be(path, found.get(path))
        ]

    def _may_be(self, path: str, found: Record | None) -> bool:
        if self.under_way is None or self.under_way.path != path:
            return False
        if self.under_way.method == "DELETE" or found is None:
            return self.under_way.method == "DELETE" and found is None
        before = self.known.get(path, {})
        if path.startswith("/kv/"):
            return bool(found["value"] == self.under_way.value and found["revision"] > before.get("revision", 0))
        if self.under_way.method == "POST":
            return bool(found["owner"] == self.under_way.value)
        names = ("token", "owner", "acquired_at")
        return _fields(found, names) == _fields(before, names) and bool(found["expires_at"] >= before["expires_at"])

    def begin_again(self, found: dict[str, Record]) -> None:
        """Take what was found as durable. No outcome is unknown any more."""
        lease_ids = {path: record["lease_id"] for path, record in self.known.items() if "lease_id" in record}
        self.known = {
            path: record | ({"lease_id": lease_ids[path]} if path in lease_ids else {})
            for path, record in found.items()
        }
        if any(path.startswith("/locks/") and "lease_id" not in record for path, record in self.known.items()):
            self.abandoned += LOCKS
        self.under_way = None


def _is_same(found: Record | None, known: Record | None) -> bool:
    if found is None or known is None:
        return found is known
    return all(found[name] == value for name, value in known.items() if name not in ("lease_id", "waiters"))


def _fields(record: Record, names: tuple[str, ...]) -> list[Any]:
    return [record.get(name) for name in names]


def _short(record: Record | None) -> str:
    if record is None:
        return "nothing"
    names = ("revision", "token", "value", "owner", "expires_at")
    return ", ".join(f"{name} {str(record[name])[:20]}" for name in names if name in record)


class Life:
    """From a start of the server to the cut. The power is cut after `answers` answers."""

    def __init__(self, server: Server, mount: LoopMount, clients: list[Client], seed: int, answers: int) -> None:
        self._server = server
        self._mount = mount
        self._clients = clients
        self._seed = seed
        self._answers_left = answers
        self._turn = threading.Lock()
        self._is_cut = False
        self.answers = 0
        self.violations: list[str] = []

    def run(self) -> None:
        with ThreadPoolExecutor(len(self._clients)) as pool:
            for _ in pool.map(self._write_until_cut, self._clients):
                pass

    def _cut(self) -> None:
        self._is_cut = True
        self._mount.cut()
        assert self._server.process is not None
        self._server.process.send_signal(signal.SIGKILL)

    def _write_until_cut(self, client: Client) -> None:
        rng = random.Random(self._seed * MOST_CLIENTS + client.number)
        try:
            with Wire(self._server) as wire:
                self._write(client, wire, rng)
        except OSError as error:
            # Only the cut may end a client. Its request is then in progress.
            with self._turn:
                if not self._is_cut:
                    self._end_by(f"the server ended a connection: {error}")

    def _write(self, client: Client, wire: Wire, rng: random.Random) -> None:
        for number in itertools.count():
            operation = client.next_operation(rng, number)
            if not self._begin(client, operation):
                return
            operation.send(wire)
            if not self._end(client, operation, wire.answer()):
                return

    def _end_by(self, violation: str) -> None:
        self.violations.append(violation)
        self._cut()

    def _begin(self, client: Client, operation: Operation) -> bool:
        with self._turn:
            if self._is_cut:
                return False
            client.under_way = operation
            return True

    def _end(self, client: Client, operation: Operation, answer: Answer) -> bool:
        """Record the answer. After the last one the power is cut before any client continues."""
        with self._turn:
            if self._is_cut:
                return False
            if answer.status not in (200, 201):
                self._end_by(f"{operation.method} {operation.path} was refused: {answer.body!r}")
                return False
            client.learn(operation, json.loads(answer.body))
            client.under_way = None
            self.answers += 1
            self._answers_left -= 1
            if self._answers_left <= 0:
                self._cut()
                return False
            return True


def _found(server: Server) -> dict[str, Record]:
    entries = server.request("GET", "/kv").json()["entries"]
    locks = server.request("GET", "/locks").json()["locks"]
    return {f"/kv/{entry['key']}": entry for entry in entries} | {f"/locks/{lock['lock']}": lock for lock in locks}


def _faults(clients: list[Client], found: dict[str, Record], head: int, least: int) -> list[str]:
    faults = []
    for client in clients:
        faults += client.faults(_of(client, found))
    owners = {str(client.number) for client in clients} | {"large"}
    faults += [f"{path} exists although no client wrote it" for path in found if path.split("/")[2] not in owners]
    under_way = sum(client.under_way is not None for client in clients)
    if not least <= head <= least + under_way:
        faults.append(f"the head is {head}; {least} were acknowledged and {under_way} under way")
    return faults


def _of(client: Client, found: dict[str, Record]) -> dict[str, Record]:
    return {path: record for path, record in found.items() if path.split("/")[2] == str(client.number)}


def survive_lost_file_system(folder: Path, seed: int, *, cuts: int, bug: str = "") -> Finding:
    """Cut the power of the file system this many times, and compare. `bug`: one of `planted_disk`."""
    rng = random.Random(seed)
    finding = Finding()
    clients = [Client(number) for number in range(MOST_CLIENTS)]
    program = (PLANTED, bug) if bug else ("-m", "leasehold")
    with (
        LoopMount(folder, options=rng.choice(OPTIONS)) as mount,
        Server(mount.path / "data.json", program=program) as server,
    ):
        if rng.random() < 0.3:
            assert server.put("large", json.dumps(LARGE)).status_code == 201
        for number in range(cuts):
            active = clients[: rng.choice([1, MOST_CLIENTS])]
            life = Life(server, mount, active, rng.randrange(2**32), rng.randrange(1, MOST_ANSWERS))
            faults = _survive_cut(life, server, mount, clients, finding)
            finding.violations += [f"after cut {number + 1}: {fault}" for fault in faults]
            if faults:
                break
    return finding


def _survive_cut(life: Life, server: Server, mount: LoopMount, clients: list[Client], finding: Finding) -> list[str]:
    head = server.revision()
    life.run()
    server.kill()
    under_way = sum(client.under_way is not None for client in clients)
    finding.figures.update(
        {
            "cuts": 1,
            "cuts with changes under way": under_way > 0,
            "changes under way at cuts": under_way,
            "acknowledged changes": life.answers,
        }
    )
    mount.unmount()
    mount.mount()
    try:
        server.start()
    except AssertionError as error:
        return [*life.violations, str(error)]
    found = _found(server)
    faults = life.violations + _faults(clients, found, server.revision(), head + life.answers)
    for client in clients:
        client.begin_again(_of(client, found))
    return faults
