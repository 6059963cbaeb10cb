"""Locks exclude each other: clients append to a set under fenced writes and are stopped past the end of their leases.

Clients (`appender`) append to a list under a lock, many clients to each list, by reading it and writing it back. Only
the fence of the write protects it. Clients are stopped (SIGSTOP) while they hold the lock and resumed when it is no
longer theirs; meanwhile the service is killed and started again. `faults` then compares the answers: no element may be
lost, no two leases may be alive at the same time, and tokens must grow.
"""

import heapq
import itertools
import json
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from proxy import proxy_on_a_thread
from running import Server, running

from harness import Finding
from harness.turns import FaultInTurn, Turns, port_of, through

APPENDER = Path(__file__).with_name("appender.py")
PLANTED = str(Path(__file__).with_name("planted.py"))
TTL_SECONDS = 1.0
TTL = 1_000_000
SLACK = 5_000
"""The largest difference in microseconds between the clocks of a client and the service. Both run on this machine."""
WAIT_SECONDS = 120.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(text: str | None) -> int:
    """A time of the service in microseconds since the epoch."""
    return 0 if text is None else (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)


# What the clients were answered ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """One request of a client and its outcome. Its times: monotonic seconds, and microseconds since the epoch."""

    kind: str
    """`grant`, `renewal`, `write` or `release`."""
    client: str
    lock: str
    sent: float
    answered: float
    sent_wall: int
    answered_wall: int
    status: int | None
    """None: the connection ended before the answer, so the outcome is unknown."""
    token: int
    """The token of the lease; 0 if none was granted."""
    element: str = ""
    error: str = ""
    acquired_at: int = 0
    expires_at: int = 0
    updated_at: int = 0
    """The revision of the list after a write."""
    revision: int = 0

    @classmethod
    def told(cls, line: bytes | str) -> Self:
        members = json.loads(line)
        for name in ("acquired_at", "expires_at", "updated_at"):
            members[name] = microseconds(members.get(name))
        return cls(**members)

    @property
    def is_done(self) -> bool:
        return self.status is not None and self.status < 300

    @property
    def outcome(self) -> str:
        return f"{self.kind} {self.status} {self.error}".rstrip()


EXPECTED = {
    "grant 201",
    "grant 423 lock_held",
    "renewal 200",
    "renewal 409 lease_lost",
    "write 200",
    "write 201",
    "write 412 lease_lost",
    "release 200",
    "release 404 lock_not_found",
    "release 409 lease_lost",
    *(f"{kind} None" for kind in ("grant", "renewal", "write", "release")),
}


@dataclass
class Lease:
    """A granted lease, and what its holder did with it."""

    grant: Event
    renewals: list[Event] = field(default_factory=list)
    writes: list[Event] = field(default_factory=list)
    releases: list[Event] = field(default_factory=list)
    """One of each kind, or more if the connection was lost before an answer."""

    @property
    def expires_at(self) -> int:
        """When the lease expires if it is not released."""
        return max(each.expires_at for each in (self.grant, *self.renewals))

    @property
    def is_clear(self) -> bool:
        """Whether every request that could have moved its end got an answer."""
        return all(each.status is not None for each in (*self.renewals, *self.releases))

    def ended_before(self, after: "Lease") -> bool:
        released = any(each.is_done and each.revision < after.grant.token for each in self.releases)
        return released or self.expires_at <= after.grant.acquired_at


def leases_of(events: Sequence[Event]) -> list[Lease]:
    """Leases in the order of their tokens."""
    leases = {each.token: Lease(each) for each in events if each.kind == "grant" and each.is_done}
    for each in events:
        lease = leases.get(each.token)
        if lease is not None and each.kind != "grant":
            {"renewal": lease.renewals, "write": lease.writes, "release": lease.releases}[each.kind].append(each)
    return [leases[token] for token in sorted(leases)]


# The checks ---------------------------------------------------------------------------------------------------


def faults(events: Sequence[Event], lists: Mapping[str, Sequence[str]]) -> list[str]:
    """Where the answers, and the final lists by lock, contradict the promises."""
    leases = leases_of(events)
    found = [f"unexpected: {each.outcome}" for each in events if each.outcome not in EXPECTED]
    found += _faults_of_tokens(events)
    found += itertools.chain.from_iterable(map(_faults_of_lease, leases))
    by_lock = defaultdict(list)
    for lease in leases:
        by_lock[lease.grant.lock].append(lease)
    for of_lock in by_lock.values():
        found += itertools.chain.from_iterable(map(_faults_between, of_lock, of_lock[1:]))
    for lock, elements in lists.items():
        found += _faults_of_list(elements, [each for each in events if each.kind == "write" and each.lock == lock])
    return found


def _faults_of_tokens(events: Sequence[Event]) -> Iterator[str]:
    """A lease requested after another was granted has a larger token, whoever the holders are."""
    grants = [each for each in events if each.kind == "grant" and each.is_done]
    if len({each.token for each in grants}) < len(grants):
        yield "a token was given twice"
    largest = 0
    answered = iter(sorted(grants, key=lambda each: each.answered))
    known = next(answered, None)
    for each in sorted(grants, key=lambda each: each.sent):
        while known is not None and known.answered < each.sent:
            largest = max(largest, known.token)
            known = next(answered, None)
        if each.token <= largest:
            yield f"token {each.token} was given after {largest}"


def _faults_of_lease(lease: Lease) -> Iterator[str]:
    """What was done under a lease was done before its end, and what was refused was requested after its end."""
    name = f"lease {lease.grant.token} of {lease.grant.lock}"
    ends, is_known = lease.grant.expires_at, True
    for renewal in lease.renewals:
        # A renewal that moved the end was decided one ttl before the new end.
        if renewal.is_done and is_known and renewal.expires_at > ends and renewal.expires_at - TTL >= ends:
            yield f"{name} was renewed after its end"
        ends = max(ends, renewal.expires_at)
        is_known = renewal.status is not None  # one without an answer may have moved the end
    if lease.is_clear:
        if any(each.is_done and each.updated_at >= ends for each in lease.writes):
            yield f"{name}: a write was done after its end"
        if any(each.is_done and each.sent_wall > ends + SLACK for each in lease.releases):
            yield f"{name} was released after its end"
    for each in (*lease.renewals, *lease.writes, *(lease.releases if lease.is_clear else ())):
        if each.status is not None and each.status >= 400 and each.answered_wall + SLACK < ends:
            yield f"{name} was lost before its end: {each.outcome}"


def _faults_between(before: Lease, after: Lease) -> Iterator[str]:
    name = f"leases {before.grant.token} and {after.grant.token} of {after.grant.lock}"
    if before.is_clear and not before.ended_before(after):
        yield f"{name} were alive at once"
    if any(each.is_done and each.revision > after.grant.token for each in before.writes):
        yield f"{name}: the first holder wrote when the second had the lock"


def _faults_of_list(elements: Sequence[str], writes: Sequence[Event]) -> Iterator[str]:
    written = {each.element for each in writes if each.is_done}
    doubtful = {each.element for each in writes if each.status is None}
    counted = Counter(elements)
    yield from (f"{element} is lost" for element in sorted(written - counted.keys()))
    yield from (f"{element} is there {count} times" for element, count in counted.items() if count > 1)
    yield from (f"{element} was refused, but is there" for element in sorted(counted.keys() - written - doubtful))


# The clients --------------------------------------------------------------------------------------------------


@dataclass
class Client:
    name: str
    process: subprocess.Popen[bytes]
    reader: threading.Thread
    lease: Event | None = None
    """The latest grant that the client has reported, until it reports the release."""
    expires_at: int = 0


@dataclass(frozen=True)
class Pause:
    """A pause of a client that held a lease: monotonic seconds, and microseconds since the epoch."""

    token: int
    stopped: float
    resumed_wall: int


class Crowd:
    """Client processes of some `services`. They end with the `with` block."""

    def __init__(self, services: Sequence[Server], seed: int, *, may_be_unavailable: bool = False) -> None:
        self._services = services
        self._seed = seed
        self._may_be_unavailable = may_be_unavailable
        self._folder = tempfile.TemporaryDirectory(prefix="leasehold-clients-")
        self._over = Path(self._folder.name) / "over"
        self._queue: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.clients: dict[str, Client] = {}
        self.events: list[Event] = []
        self.announce()

    def announce(self) -> None:
        """Tell the clients the addresses of the services."""
        for number, service in enumerate(self._services):
            new = self._place(number).with_suffix(".new")
            new.write_text("{} {}".format(*service.address))
            new.replace(self._place(number))

    def _place(self, number: int) -> Path:
        return Path(self._folder.name) / f"service-{number}"

    def add(
        self,
        lock: str,
        *,
        service: int = 0,
        dwell: tuple[float, float] = (0.0, 0.0),
        renews: float = 0.0,
        rounds: int | None = None,
        wait: float = 10.0,
    ) -> Client:
        name = f"c{len(self.clients)}"
        settings = {
            "service": str(self._place(service)),
            "over": str(self._over),
            "lock": lock,
            "name": name,
            "ttl": TTL_SECONDS,
            "wait": wait,
            "dwell": dwell,
            "renews": renews,
            "rounds": rounds,
            "seed": f"{self._seed}/{name}",
            "may_be_unavailable": self._may_be_unavailable,
        }
        process = subprocess.Popen([sys.executable, "-I", "-S", APPENDER, json.dumps(settings)], stdout=subprocess.PIPE)
        reader = threading.Thread(target=self._read, args=(process,))
        reader.start()
        self.clients[name] = Client(name, process, reader)
        return self.clients[name]

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._queue.put(Event.told(line))

    def next_event(self, seconds: float) -> Event | None:
        """The next event that a client reports, if it comes soon."""
        try:
            event = self._queue.get(timeout=max(seconds, 0.0))
        except queue.Empty:
            return None
        self.events.append(event)
        client = self.clients[event.client]
        if event.kind == "grant":
            client.lease = event if event.is_done else None
            client.expires_at = event.expires_at
        elif event.kind == "release":
            client.lease = None
        else:
            client.expires_at = max(client.expires_at, event.expires_at)
        return event

    def wait_for(self, condition: Callable[[Event], bool]) -> Event:
        deadline = time.monotonic() + WAIT_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            event = self.next_event(left)
            if event is not None and condition(event):
                return event
        raise AssertionError("the clients do not report it")

    def stop(self, client: Client) -> None:
        client.process.send_signal(signal.SIGSTOP)

    def resume(self, client: Client) -> None:
        client.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Let each client finish its round, and collect their events."""
        self._over.touch()
        for client in self.clients.values():
            code = client.process.wait(WAIT_SECONDS)
            assert code == 0, f"a client ended with {code}"
            client.reader.join()
        while self.next_event(0.0) is not None:
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients.values():
            client.process.kill()
            client.process.wait()
            client.reader.join()
            assert client.process.stdout is not None
            client.process.stdout.close()
        self._folder.cleanup()


# The harnesses ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Load:
    """The load. `locks` have `clients` each, `lone_locks` one each: a stopped client there loses its lease to no other
    client."""

    pauses: int = 25
    """This many holders are stopped past the end of their leases."""
    late_writes: int = 0
    """They stay stopped until this many writes were sent after the end of the lease."""
    grants: int = 0
    """At least this many leases are granted."""
    kills: int = 2
    locks: int = 4
    clients: int = 3
    lone_locks: int = 2
    dwell: float = 0.04
    renews: float = 0.3


class _Run:
    """The driver of one round. It decides when clients are stopped and when the service is killed."""

    def __init__(self, service: Server, crowd: Crowd, load: Load, seed: int) -> None:
        self._service = service
        self._crowd = crowd
        self._load = load
        self._rng = random.Random(seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._busy: set[str] = set()
        """Clients that are stopped or will be."""
        self.pauses: list[Pause] = []
        """Pauses of clients that held the lease all the time, as far as was known at their end."""
        self._has_enough = load.pauses == 0
        self._released: set[int] = set()
        """The tokens of leases whose release was reported."""
        self._judged = 0
        """How many pauses could be judged last."""
        self._missing = load.pauses
        """How many more were needed then."""
        self._late_writes = 0
        self._grants = 0
        self._grants_at_kill = 0
        self.kills = 0
        self.leases_at_kills = 0

    def pause_and_kill(self) -> None:
        deadline = time.monotonic() + WAIT_SECONDS + self._load.pauses
        load = self._load
        while self._wants_pauses() or self._grants < load.grants or not self._is_back():
            assert time.monotonic() < deadline, "the holders are not stopped, or no client gets a lock"
            self._step()
        for name in self._busy:  # more may be stopped than were wanted
            self._crowd.resume(self._crowd.clients[name])

    def _wants_pauses(self) -> bool:
        return self._missing_pauses() > 0 or self._late_writes < self._load.late_writes

    def _missing_pauses(self) -> int:
        """How many more are needed. Only what a client did up to its release shows whether its pause counts."""
        judged = [pause for pause in self.pauses if pause.token in self._released]
        if len(judged) > self._judged and not self._has_enough:
            self._judged = len(judged)
            self._missing = self._load.pauses - _held(judged, leases_of(self._crowd.events))
            self._has_enough = self._missing <= 0
        return self._missing

    def _is_back(self) -> bool:
        """Whether all kills are done and leases were granted after the last one."""
        load = self._load
        return self.kills == load.kills and self._grants - self._grants_at_kill >= load.locks + load.lone_locks

    def _step(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()
        soon = self._due[0][0] - time.monotonic() if self._due else 0.1
        event = self._crowd.next_event(min(soon, 0.1))
        if event is not None and event.kind == "write":
            self._late_writes += event.sent_wall > self._crowd.clients[event.client].expires_at
        if event is not None and event.kind == "release":
            self._released.add(event.token)
        if event is None or event.kind != "grant" or not event.is_done:
            return
        self._grants += 1
        client = self._crowd.clients[event.client]
        is_wanted = self._missing_pauses() > len(self._busy) or self._late_writes < self._load.late_writes
        if is_wanted and client.name not in self._busy and self._rng.random() < 0.7:
            self._busy.add(client.name)
            self._later(self._rng.uniform(0, self._load.dwell), lambda: self._stop(client))

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), action))

    def _stop(self, client: Client) -> None:
        if client.lease is None:  # it released before it was stopped
            self._busy.discard(client.name)
            return
        self._crowd.stop(client)
        token, stopped = client.lease.token, time.monotonic()
        past_end = self._rng.choice((0.0, 0.02, 0.1, 0.4)) * self._rng.random() + SLACK * 2e-6
        self._later(past_end, lambda: self._resume(client, token, stopped, past_end))

    def _resume(self, client: Client, token: int, stopped: float, past_end: float) -> None:
        """Resume a client when its lease has been over for a while. Renewals that it reports late count."""
        now = time.time_ns() // 1000
        left = client.expires_at * 1e-6 + past_end - now * 1e-6
        if left > 0:
            self._later(left, lambda: self._resume(client, token, stopped, past_end))
            return
        self._crowd.resume(client)
        self._busy.discard(client.name)
        if client.lease is None or client.lease.token != token:
            return  # it had released before it was stopped, as a later event showed
        self.pauses.append(Pause(token, stopped, now))
        due = len(self.pauses) * (self._load.kills + 1) // self._load.pauses
        if self.kills < min(due, self._load.kills):
            self._kill()

    def _kill(self) -> None:
        self.kills += 1
        self.leases_at_kills += sum(each.lease is not None for each in self._crowd.clients.values())
        self._service.restart()
        # Events that are still unread may be from before the pause.
        self._grants_at_kill = self._grants + len(self._crowd.clients)
        self._crowd.announce()


def append_with_pauses(
    store: str | Path,
    seed: int,
    *,
    load: Load | None = None,
    planted: Mapping[str, str] | None = None,
) -> Finding:
    """Stop this many holders past the end of their leases, kill the service meanwhile, and compare.

    `store` is empty at first, durable, and not used otherwise. `planted`: the environment for `planted`.
    """
    load = Load() if load is None else load
    with ExitStack() as stack:
        service = stack.enter_context(_service(store, planted))
        crowd = stack.enter_context(Crowd([service], seed))
        for number in range(load.locks * load.clients):
            crowd.add(f"shared/{number % load.locks}", dwell=(0.0, load.dwell), renews=load.renews)
        for number in range(load.lone_locks):
            crowd.add(f"lone/{number}", dwell=(0.0, load.dwell), renews=load.renews)
        run = _Run(service, crowd, load, seed)
        run.pause_and_kill()
        crowd.end()
        finding = _finding(service, crowd)
        finding.figures.update(_figures_of_pauses(run.pauses, crowd.events))
        finding.figures.update({"kills": run.kills, "leases alive at kills": run.leases_at_kills})
        return finding


def append_on_two_servers(
    store: str,
    seed: int,
    *,
    rounds: int = 25,
    clients: int = 16,
    in_turns: Sequence[FaultInTurn] = (),
    planted: Mapping[str, str] | None = None,
) -> Finding:
    """The clients of two servers append under one lock until each has done this many rounds. Then compare.

    `store` is shared by the servers. `in_turns`: faults of the servers in their turns. Each comes after a round of each
    client on average, so there must be more rounds. The figures say how many leases each server had granted when all
    clients of one of them had finished.
    """
    with ExitStack() as stack:
        stores, turns = [store] * 2, []
        if in_turns:
            proxies = [stack.enter_context(proxy_on_a_thread(port_of(store))) for _ in range(2)]
            stores, turns = [through(store, proxy) for proxy in proxies], [Turns(proxy) for proxy in proxies]
        services = [stack.enter_context(_service(each, planted)) for each in stores]
        crowd = stack.enter_context(Crowd(services, seed, may_be_unavailable=bool(in_turns)))
        for number in range(clients):
            crowd.add("shared", service=number % 2)
        done: Counter[str] = Counter()
        faults_done: Counter[str] = Counter()
        while min(done[name] for name in crowd.clients) < rounds:
            done[crowd.wait_for(lambda event: event.kind == "grant" and event.is_done).client] += 1
            number = faults_done.total()
            if number < len(in_turns) and done.total() >= clients * (number + 1):
                _strike_in_turn(services, crowd, turns, number % 2, in_turns[number])
                faults_done[f"{in_turns[number][0]}s in a turn"] += 1
        crowd.end()
        finding = _finding(services[0], crowd)
        finding.figures.update(faults_done)
        granted = sorted(
            sum(count for name, count in done.items() if int(name[1:]) % 2 == number) for number in range(2)
        )
        finding.figures.update({"least granted by a server": granted[0], "most granted by a server": granted[1]})
        finding.figures.update(
            {"least granted to a client": min(done.values()), "most granted to a client": max(done.values())}
        )
        return finding


def _strike_in_turn(
    services: Sequence[Server], crowd: Crowd, turns: Sequence[Turns], target: int, fault: FaultInTurn
) -> None:
    turns[target].strike(services[target], turns[1 - target], fault)
    if fault[0] == "kill":
        services[target].restart()
        crowd.announce()
    turns[target].end(fault[0])


@contextmanager
def _service(store: str | Path, planted: Mapping[str, str] | None) -> Iterator[Server]:
    program = ("-m", "leasehold") if planted is None else (PLANTED,)
    with running(store, program=program, environment=planted, log_level="warning") as service:
        yield service


def _held(pauses: Sequence[Pause], leases: Sequence[Lease]) -> int:
    """How many of the clients held the lease all the time, judged by what they did afterwards."""
    by_token = {lease.grant.token: lease for lease in leases}
    return sum(
        pause.resumed_wall > by_token[pause.token].expires_at
        and all(each.sent > pause.stopped for each in by_token[pause.token].releases)
        for pause in pauses
    )


def _figures_of_pauses(pauses: Sequence[Pause], events: Sequence[Event]) -> Mapping[str, int]:
    leases = leases_of(events)
    late = Counter(
        "sent before and refused after" if each.sent_wall < lease.expires_at else "sent after"
        for lease in leases
        for each in lease.writes
        if each.answered_wall > lease.expires_at and (each.status == 412 or each.sent_wall > lease.expires_at)
    )
    figures = {f"writes {when} the lease's end": count for when, count in late.items()}
    return {"pauses": len(pauses), "holders paused past their ttl": _held(pauses, leases), **figures}


def _list_of(service: Server, lock: str) -> Sequence[str]:
    """What was appended under a lock. It is empty if no holder came to that."""
    response = service.get(lock)
    if response.status_code == 404:
        return ()
    elements: list[str] = response.json()["value"]
    return elements


def _finding(service: Server, crowd: Crowd) -> Finding:
    locks = sorted({event.lock for event in crowd.events})
    lists = {lock: _list_of(service, lock) for lock in locks}
    figures = Counter(
        {f"answers: {outcome}": count for outcome, count in Counter(e.outcome for e in crowd.events).items()}
    )
    figures["elements"] = sum(map(len, lists.values()))
    return Finding(figures, faults(crowd.events, lists))
