"""The real service while its database fails: nothing is lost, nothing is done twice, and callers get no errors.

CLIENTS write all the time (`clients`). Connections to the database are cut at any byte, its sessions and its postmaster
are killed, and it is frozen. After each fault the service must recover by itself within seconds. After the last one the
contents of the store are compared with the answers to the clients (`ledger`).
"""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final, Literal

from databases import WHICH_SESSIONS, Database, PostgresServer
from proxy import Proxy, Watch, proxy_on_a_thread
from running import Server, running

from harness import Finding
from harness.clients import clients_at_work
from harness.ledger import Ledger

PROMISE: Final = "PostgreSQL fails: nothing is lost or done twice, no status 500"
FIRST_WRITES: Final = 200
MOST_WRITES: Final = 60
"""Writes between two faults."""
RECOVERY_SECONDS: Final = 60.0
"""Within this time every client must have written again and the service must report that it is healthy. Most of it is
for busy machines."""
STRIKE_SECONDS: Final = 20.0
LONG_SECONDS: Final = (5.5, 8.0)
"""Longer than the service retries, so that callers get errors."""

SIGNS_OF_A_FAULT: Final = ("Traceback", "never retrieved", "in an unexpected way", "could not be decided")
"""A line in the log of the service."""
PLANTED: Final = str(Path(__file__).with_name("planted.py"))

Kind = Literal["cut", "backends", "postmaster", "freeze", "no network", "no postmaster", "long freeze"]

_numbers = count(1)


# Cuts -------------------------------------------------------------------------------------------------------------


BIND_BEGIN: Final = b"\0begin_"
BIND_COMMIT: Final = b"\0commit_"
"""The beginning of the Bind of these statements, after its type and length: no portal, and the statement's name."""
BIND_HEAD_BYTES: Final = 5
"""The type and the length."""
READY: Final = b"Z\0\0\0\x05I"
"""The end of an answer when no transaction is open."""

Place = Literal["anywhere", "a commit", "COMMIT"]
PLACES: Final[tuple[Place, ...]] = ("anywhere", "a commit", "COMMIT", "COMMIT")
"""Chosen at random, critical places more often."""


@dataclass(frozen=True)
class Cut:
    """A cut after `at` more bytes in both directions, counted from the next beginning of `place`.

    `takes_all`: the other connections are cut as well. `closes`: no new connection is accepted until the proxy is
    opened again.
    """

    place: Place
    at: int
    takes_all: bool = False
    closes: bool = False


class Conversation:
    """One connection through the proxy."""

    def __init__(self, cutter: "Cutter") -> None:
        self._cutter = cutter
        self.stage: Place = "anywhere"
        """The place that the conversation is in."""
        self._passed = 0
        """Bytes since the last BEGIN."""
        self._commit_at = 0
        """What `_passed` was at the last COMMIT."""

    def to_server(self, data: bytes) -> int | None:
        begin, commit = data.find(BIND_BEGIN), data.find(BIND_COMMIT)
        if begin >= 0:
            self.stage, self._passed = "a commit", -(begin - BIND_HEAD_BYTES)
            return self._pass(data, begins_at=begin - BIND_HEAD_BYTES)
        if commit >= 0:
            self.stage, self._commit_at = "COMMIT", self._passed + commit - BIND_HEAD_BYTES
            return self._pass(data, begins_at=commit - BIND_HEAD_BYTES)
        return self._pass(data, begins_at=None)

    def to_client(self, data: bytes) -> int | None:
        passing = self._pass(data, begins_at=None)
        if passing is None and self.stage != "anywhere" and data.endswith(READY):
            if self.stage == "COMMIT":
                self._cutter.commit_bytes = self._passed
                self._cutter.last_bytes = self._passed - self._commit_at
            self.stage = "anywhere"
        return passing

    def _pass(self, data: bytes, *, begins_at: int | None) -> int | None:
        self._passed += len(data)
        return self._cutter.room(self, data, begins_at=begins_at)


class Cutter:
    """Cuts connections through `proxy` as ordered. All methods but `order` and `cut` run on the thread of the proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self.cuts = 0
        self.commit_bytes = self.last_bytes = 1
        """The length of the last commit in bytes, and of its end: COMMIT, and the answers that come after it."""
        self._proxy = proxy
        self._conversations: list[Conversation] = []
        self._ordered: Cut | None = None
        self._in: Conversation | None = None
        """The conversation in which the place has begun."""
        self._room = 0
        self._has_struck = threading.Event()
        self._stages: list[Place] = []
        """The places of the connections that the last cut ended."""
        proxy.new_connection = self._new_connection

    def order(self, cut: Cut) -> None:
        """Cut as soon as the place has come."""
        self._has_struck.clear()
        self._ordered = cut

    def cut(self, cut: Cut) -> list[Place]:
        """Cut, and wait until it is done. Returns the places of the connections that were cut."""
        self.order(cut)
        assert self._has_struck.wait(STRIKE_SECONDS), f"nothing passed that could be cut: {cut}"
        return self._stages

    def _new_connection(self) -> tuple[Watch, Watch]:
        conversation = Conversation(self)
        self._conversations.append(conversation)
        return conversation.to_server, conversation.to_client

    def room(self, conversation: Conversation, data: bytes, *, begins_at: int | None) -> int | None:
        """How many bytes of `data` may pass before the cut; None for all. `begins_at`: where a place begins in it."""
        cut = self._ordered
        if cut is None or conversation not in self._conversations:
            return None
        if self._in is None:
            if cut.place != "anywhere" and (begins_at is None or conversation.stage != cut.place):
                return None
            self._in, self._room = conversation, cut.at
            if cut.place != "anywhere":
                self._room += begins_at or 0
        elif self._in is not conversation and cut.place != "anywhere":
            return None
        if self._room >= len(data):
            self._room -= len(data)
            return None
        self._strike(cut, conversation)
        return self._room

    def _strike(self, cut: Cut, conversation: Conversation) -> None:
        self.cuts += 1
        taken = self._conversations if cut.takes_all else [conversation]
        self._stages = [each.stage for each in taken]
        self._conversations = [each for each in self._conversations if each not in taken]
        self._ordered = self._in = None
        if cut.closes:
            self._proxy.is_open = False
        if cut.takes_all:
            asyncio.get_running_loop().call_soon(self._proxy.cut)
        self._has_struck.set()


# Faults -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """What a fault can act on."""

    database_server: PostgresServer
    database: Database
    proxy: Proxy
    cutter: Cutter
    ledger: Ledger
    finding: Finding
    rng: random.Random

    def note(self, **figures: int) -> None:
        self.finding.figures += Counter({name.replace("_", " "): number for name, number in figures.items()})


def _cut(scene: Scene) -> None:
    """Cut one connection, or several in short succession, so that the later cuts hit the recovery from the first."""
    rng = scene.rng
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        place = rng.choice(PLACES)
        sizes = {"anywhere": 20_000, "a commit": scene.cutter.commit_bytes, "COMMIT": scene.cutter.last_bytes}
        _note_cut(scene, Cut(place, rng.randrange(sizes[place]), takes_all=rng.random() < 0.3))


def _lose_network(scene: Scene, seconds: tuple[float, float]) -> None:
    """Lose the network during a COMMIT, so that its outcome cannot be learnt."""
    _note_cut(scene, Cut("COMMIT", scene.rng.randrange(scene.cutter.last_bytes), takes_all=True, closes=True))
    time.sleep(scene.rng.uniform(*seconds))
    scene.proxy.is_open = True


def _note_cut(scene: Scene, cut: Cut) -> None:
    stages = scene.cutter.cut(cut)
    is_commit = any(stage != "anywhere" for stage in stages)
    scene.note(cuts=1, cuts_of_a_commit=is_commit, cuts_in_COMMIT="COMMIT" in stages, connections_cut=len(stages))


def _kill_backends(scene: Scene) -> None:
    which = scene.rng.choice(WHICH_SESSIONS)
    killed: list[bool] = []
    while not killed:
        time.sleep(scene.rng.uniform(0.0, 0.05))
        killed = scene.database.kill_sessions(which)
    scene.note(kills_of_backends=1, backends_killed=len(killed), kills_in_a_commit=any(killed))


def _kill_postmaster(scene: Scene, seconds: tuple[float, float]) -> None:
    scene.database_server.kill()
    time.sleep(scene.rng.uniform(*seconds))
    scene.database_server.start()
    scene.note(postmaster_kills=1)


def _freeze(scene: Scene, seconds: tuple[float, float]) -> None:
    scene.database_server.freeze()
    try:
        time.sleep(scene.rng.uniform(*seconds))
    finally:
        scene.database_server.thaw()
    scene.note(freezes=1)


LONG_ABSENCES: Final = ("no network", "no postmaster", "long freeze")
FAULTS: Final[Mapping[Kind, Callable[[Scene], None]]] = {
    "cut": _cut,
    "backends": _kill_backends,
    "postmaster": partial(_kill_postmaster, seconds=(0.0, 0.2)),
    "freeze": partial(_freeze, seconds=(1.0, 3.0)),
    # LONG_ABSENCES
    "no network": partial(_lose_network, seconds=LONG_SECONDS),
    "no postmaster": partial(_kill_postmaster, seconds=LONG_SECONDS),
    "long freeze": partial(_freeze, seconds=LONG_SECONDS),
}


# Rounds -----------------------------------------------------------------------------------------------------------


def survive_database_faults(
    database_server: PostgresServer,
    seed: int,
    faults: Sequence[Kind],
    *,
    workers: int = 1,
    bug: str | None = None,
) -> Finding:
    """Cause the `faults` one after another under a service and its clients, and compare at the end.

    The server is not used otherwise, and keeps running afterwards. `bug`: one of those in `planted`.
    """
    finding, ledger, rng = Finding(), Ledger(), random.Random(seed)
    database = Database(database_server.url, f"faults_{seed}_{next(_numbers)}").create()
    with _service(database, workers, bug) as (service, proxy, cutter):
        scene = Scene(database_server, database, proxy, cutter, ledger, finding, rng)
        with clients_at_work(service, ledger, seed):
            ledger.wait_for_writes(FIRST_WRITES)
            for number, kind in enumerate(faults, start=1):
                ledger.wait_for_writes(rng.randrange(MOST_WRITES))
                under_way = ledger.under_way
                scene.note(faults_with_writes_under_way=under_way > 0, writes_under_way_at_faults=under_way)
                FAULTS[kind](scene)
                scene.note(faults=1, long_absences=kind in LONG_ABSENCES)
                late = what_has_not_recovered(service, ledger)
                if late:
                    ledger.fault(f"{RECOVERY_SECONDS:g} s after fault {number} ({kind}): {late}")
                    break
        finding.violations += [*ledger.violations, *differences(service, ledger), *bad_end(service)]
    finding.figures.update(ledger.figures)
    return finding


def rounds_of(faults: Sequence[Kind]) -> Callable[[Path, int], Finding]:
    """Rounds for `make torture`: with a database server of their own, and one or two processes of the service."""

    def round_by(_folder: Path, seed: int) -> Finding:
        with PostgresServer(fsync=True) as database_server:
            return survive_database_faults(database_server, seed, faults, workers=1 + seed % 2)

    return round_by


@contextmanager
def _service(database: Database, workers: int, bug: str | None) -> Iterator[tuple[Server, Proxy, Cutter]]:
    """The service, which reaches its database through the proxy."""
    program = ("-m", "leasehold") if bug is None else (PLANTED,)
    environment = {} if bug is None else {"LEASEHOLD_TEST_BUG": bug}
    arguments = [f"--workers={workers}"]
    with proxy_on_a_thread(database.port) as proxy:
        cutter = Cutter(proxy)
        url = database.at(f"127.0.0.1:{proxy.port}")
        with running(url, arguments=arguments, program=program, environment=environment) as service:
            yield service, proxy, cutter


def what_has_not_recovered(service: Server, ledger: Ledger) -> str | None:
    deadline = time.monotonic() + RECOVERY_SECONDS
    waiting = ledger.wait_for_all(RECOVERY_SECONDS)
    if waiting:
        return f"{len(waiting)} clients could not write"
    while (health := service.client.get("/health")).status_code != 200:
        if time.monotonic() > deadline:
            return f"the service says {health.text}"
        time.sleep(0.05)
    return None


def differences(service: Server, ledger: Ledger) -> list[str]:
    """The differences between the store, when no write is in progress any more, and the ledger."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    # When this is stored, the outcome of everything before is final.
    while (settled := service.client.put("/kv/settled", content=b"1")).status_code not in (200, 201):
        if time.monotonic() > deadline:
            return [f"the service did not take a write at the end: {settled.text}"]
        time.sleep(0.05)
    entries = {entry["key"]: entry["value"] for entry in service.client.get("/kv").json()["entries"]}
    del entries["settled"]
    return ledger.differences(entries)


def bad_end(service: Server) -> list[str]:
    """A fault in the last lines of the log or in the exit code."""
    code = service.terminate()
    found = [line for line in service.log().splitlines() if any(sign in line for sign in SIGNS_OF_A_FAULT)]
    return found if code == 0 else [*found, f"the service ended with {code}"]
