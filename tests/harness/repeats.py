"""Requests with idempotency keys take effect exactly once, while answers are cut at any byte and servers are killed.

16 clients send requests that would show if they were done twice or not at all: appends, increments, creations,
deletions, transactions, acquisitions. A client repeats a request, at any of the servers, until it has a whole answer.
It sends some requests again after that, and some twice at the same time. All whole answers to a request must be equal.
At the end, what is stored is compared with what the requests do.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from driving import Driver
from running import message

from harness import Finding
from harness.linearizability import Round, shown
from harness.register_clients import Answer, Connection, Load, Place
from harness.transfers import all_entries
from leasehold.engines import open_engine
from leasehold.limits import MAX_PAGE_ENTRIES
from leasehold.model import LEASE, Entry

PLANTED_RECEIPTS: Final = str(Path(__file__).with_name("planted_receipts.py"))
LISTS: Final = 4
COUNTERS: Final = 4
SHARED_LOCKS: Final = 2
DELETED_TOGETHER: Final = 3
LEASE_SECONDS: Final = 3_600
"""The ttl of leases. None expires during a run."""
CUT_SHARE: Final = 0.35
MOST_ANSWER_BYTES: Final = 600
"""Longer than nearly all answers. The connection is cut at one of these bytes, so sometimes after the whole answer."""
AGAIN_SHARE: Final = 0.15
TWICE_SHARE: Final = 0.1
PAUSE_SECONDS: Final = 0.01


@dataclass(slots=True, eq=False)
class Requested:
    """A request, and all whole answers to it. `mark` is its idempotency key."""

    kind: str
    mark: str
    data: bytes
    status: int
    """Of its success."""
    answers: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def json(self) -> Mapping[str, Any]:
        """The body of the answer."""
        body: Mapping[str, Any] = msgspec.json.decode(self.answers[0][1])
        return body


@dataclass
class Record:
    """What all clients requested. `faults`: answers that are never allowed. `stops`: at the first of them."""

    stops: bool
    requests: list[Requested] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        return self.stops and bool(self.faults)


class Over(Exception):  # noqa: N818 - not an error
    """A fault was found, so the requests that may wait for ever are given up."""


class Cutting(Connection):
    """A connection that can be cut after some bytes of an answer."""

    cut_after: int | None = None
    head = b""

    async def ask(self, request: bytes) -> Answer:
        asked = asyncio.ensure_future(super().ask(request))
        if self.cut_after == 0:
            await asyncio.sleep(0)  # it sends the request
            self.hang_up()
        return await asked

    def data_received(self, data: bytes) -> None:
        if self.cut_after is not None:
            if len(data) >= self.cut_after:
                self.hang_up()
                return
            self.cut_after -= len(data)
        self.head = (self._received + data).partition(b"\r\n\r\n")[0]
        super().data_received(data)


class Client:
    """Does one request after another until the load is done. Each has its own key, and is repeated until it is done."""

    def __init__(self, name: str, places: Sequence[Place], load: Load, record: Record, rng: random.Random) -> None:
        self._name = name
        self._places = places
        self._load = load
        self._record = record
        self._rng = rng
        self._marks = 0
        self._created: list[str] = []
        self.connection: Connection = Connection()
        steps = {
            self._append: 20,
            self._append_by_patch: 8,
            self._increment: 20,
            self._set: 12,
            self._transact: 14,
            self._create: 12,
            self._delete: 8,
            self._delete_together: 3,
            self._acquire: 8,
            self._hold_shared: 4,
        }
        self._choices = [step for step, weight in steps.items() for _ in range(weight)]

    async def run(self) -> None:
        with suppress(Over):
            while not self._load.is_over:
                await self._rng.choice(self._choices)()
        if self._record.is_over:
            self._load.done = self._load.operations
            self._load.progress()

    async def look(self) -> None:
        """Do nothing: what is stored is compared at the end."""

    async def prepare(self) -> None:
        """Create the lists, because a JSON patch changes only what exists."""
        with suppress(Over):
            for number in range(LISTS):
                await self._do("prepare", "PUT", f"/kv/lists/{number}", 201, body=[])

    # Requests -------------------------------------------------------------------------------------------------

    async def _append(self) -> None:
        await self._do("append", "POST", f"/kv/lists/{self._rng.randrange(LISTS)}?path=/-", 200, body=self._next_mark())

    async def _append_by_patch(self) -> None:
        patch = [{"op": "add", "path": "/-", "value": self._next_mark()}]
        kind = "Content-Type: application/json-patch+json"
        await self._do("append", "PATCH", f"/kv/lists/{self._rng.randrange(LISTS)}", 200, kind, body=patch)

    async def _increment(self) -> None:
        target = f"/kv/counters/{self._rng.randrange(COUNTERS)}?increment"
        await self._do("increment", "POST", target, (200, 201), body=1)

    async def _set(self) -> None:
        """The service chooses the key."""
        await self._do("set", "POST", "/set", 201, body={"value": self._next_mark()})

    async def _transact(self) -> None:
        mark = self._next_mark()
        source, target = self._rng.sample(range(COUNTERS), 2)
        amount = self._rng.randrange(100)
        value: Mapping[str, Any] = self._rng.choice([{"value": amount}, {"base64": "AP8="}])
        do = [
            {"op": "increment", "key": f"accounts/{source}", "value": -amount},
            {"op": "increment", "key": f"accounts/{target}", "value": amount},
            {"op": "increment", "key": "accounts/count", "value": 1},
            {"op": "put", "key": f"transfers/{mark}", **value},
            {"op": "get", "key": "accounts/count"},
        ]
        await self._do("transfer", "POST", "/txn", 200, body={"do": do})

    async def _create(self) -> None:
        """If it were done twice, it would be refused the second time."""
        key = f"created/{self._next_mark()}"
        media = self._rng.choice(["application/json", "image/png"])
        await self._do("create", "PUT", f"/kv/{key}", 201, "If-None-Match: *", f"Content-Type: {media}", body=1)
        self._created.append(key)

    async def _delete(self) -> None:
        if not self._created:
            await self._create()
        self._next_mark()
        await self._do("delete", "DELETE", f"/kv/{self._created.pop()}", 200)

    async def _delete_together(self) -> None:
        prefix = f"together/{self._next_mark()}/"
        for number in range(DELETED_TOGETHER):
            self._next_mark()
            await self._do("prepare", "PUT", f"/kv/{prefix}{number}", 201, body=1)
        self._next_mark()
        done = await self._do("delete together", "DELETE", f"/kv?prefix={prefix}", 200)
        if done.json["deleted"] != DELETED_TOGETHER:
            self._record.faults.append(f"{done.mark} deleted {done.json}")

    async def _acquire(self) -> None:
        """A lock that no other request acquires, so a second acquisition would be refused."""
        target = f"/locks/own/{self._next_mark()}?wait=0&ttl={LEASE_SECONDS}"
        await self._do("acquire", "POST", target, 201)

    async def _hold_shared(self) -> None:
        """Wait for a lock, and release it. A lease that nobody knew of would keep all other clients waiting."""
        self._next_mark()
        lock = f"shared/{self._rng.randrange(SHARED_LOCKS)}"
        acquired = await self._do("acquire shared", "POST", f"/locks/{lock}?wait=0.5&ttl={LEASE_SECONDS}", 201)
        self._next_mark()
        await self._do("release", "DELETE", f"/locks/{lock}?lease_id={acquired.json['lease_id']}", 200)

    def _next_mark(self) -> str:
        self._marks += 1
        return f"{self._name}.{self._marks}"

    # Sending --------------------------------------------------------------------------------------------------

    async def _do(
        self, kind: str, method: str, target: str, status: int | tuple[int, ...], *fields: str, body: Any = None
    ) -> Requested:
        mark = f"{self._name}.{self._marks}.{kind.replace(' ', '-')}.{len(self._record.requests)}"
        content = None if body is None else json.dumps(body).encode()
        data = message(method, target, f'Idempotency-Key: "{mark}"', *fields, body=content)
        requested = Requested(kind, mark, data, status if isinstance(status, int) else 0)
        self._record.requests.append(requested)
        if self._rng.random() < TWICE_SHARE:
            self._load.figures["requests sent twice at once"] += 1
            twice = (self._send_until_done(requested), self._send_until_done(requested))
            ends = await asyncio.gather(*twice, return_exceptions=True)
            for failure in filter(None, ends):
                raise failure
        else:
            await self._send_until_done(requested)
        if self._rng.random() < AGAIN_SHARE:
            await self._send_until_done(requested, must_be_replayed=True)
        self._check(requested)
        self._load.count(kind)
        return requested

    async def _send_until_done(self, requested: Requested, *, must_be_replayed: bool = False) -> None:
        """Repeat it until there is a whole answer of success."""
        while True:
            if self._record.is_over:
                raise Over
            place = self._rng.choice(self._places)
            await place.is_up.wait()
            connection = Cutting()
            try:
                await asyncio.get_running_loop().create_connection(lambda made=connection: made, *place.address)  # type: ignore[misc]
                if self._rng.random() < CUT_SHARE:
                    connection.cut_after = self._rng.randrange(MOST_ANSWER_BYTES)
                self.connection = connection
                answer = await connection.ask(requested.data)
            except OSError:
                self._load.figures["lost answers"] += 1
                continue
            finally:
                connection.hang_up()
            # Refused, and nothing was done; or it was perhaps done.
            if answer.status == 503 or (answer.status == 423 and requested.kind == "acquire shared"):
                self._load.figures[f"answers {answer.status}"] += 1
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            is_replayed = b"\r\nIdempotent-Replayed: true" in connection.head
            self._load.figures["replayed answers"] += is_replayed
            if must_be_replayed and not is_replayed:
                self._record.faults.append(f"{requested.mark} was done again: {answer}")
            requested.answers.append((answer.status, answer.body))
            return

    def _check(self, requested: Requested) -> None:
        if len(set(requested.answers)) != 1:
            self._record.faults.append(f"{requested.mark} was answered differently: {set(requested.answers)}")
        status = requested.answers[0][0]
        if status != requested.status and (requested.status or status not in (200, 201)):
            self._record.faults.append(f"{requested.mark} was answered with {requested.answers[0]}")


# The check --------------------------------------------------------------------------------------------------------


def faults_at_end(record: Record, entries: Mapping[str, Entry], tokens: Mapping[str, int]) -> list[str]:
    """Where what is stored differs from what the requests do, each exactly once. `tokens`: of the leases, by lock."""
    faults: list[str] = []
    values: dict[str, Any] = {
        key: msgspec.json.decode(entry.value) if entry.value else entry.value for key, entry in entries.items()
    }
    of_kind: dict[str, list[Requested]] = {}
    for requested in record.requests:
        of_kind.setdefault(requested.kind, []).append(requested)

    def compare(what: str, found: Any, expected: Any) -> None:
        if found != expected:
            faults.append(f"{what}: {found} instead of {expected}")

    listed = Counter(mark for number in range(LISTS) for mark in values.get(f"lists/{number}", []))
    faults += [f"{mark} is {count} times in the lists" for mark, count in listed.items() if count != 1]
    compare("appended", listed.total(), len(of_kind.get("append", [])))
    counted = sum(values.get(f"counters/{number}", 0) for number in range(COUNTERS))
    compare("increments", counted, len(of_kind.get("increment", [])))
    transfers = of_kind.get("transfer", [])
    compare("transfers", values.get("accounts/count", 0), len(transfers))
    compare("records of transfers", sum(key.startswith("transfers/") for key in values), len(transfers))
    compare("the sum", sum(values.get(f"accounts/{number}", 0) for number in range(COUNTERS)), 0)
    uuids = {key for key in values if "/" not in key}
    compare("entries by UUID", uuids, {requested.json["key"] for requested in of_kind.get("set", [])})
    created = sum(key.startswith("created/") for key in values)
    compare("created", created, len(of_kind.get("create", [])) - len(of_kind.get("delete", [])))
    compare("left of those deleted together", [key for key in values if key.startswith("together/")], [])
    acquired = [
        requested.json for requested in of_kind.get("acquire", []) if requested.answers[0][0] == requested.status
    ]
    own = {lease["lock"]: lease["token"] for lease in acquired}
    compare("leases", tokens, own)
    return faults


# The run ----------------------------------------------------------------------------------------------------------


class _Repeats(Round):
    planted = PLANTED_RECEIPTS

    def __init__(self, store: str, rng: random.Random, operations: int, bug: str | None) -> None:
        super().__init__(store, rng, operations, bug)
        self.record = Record(stops=bug is not None)

    def make_client(self, name: str, place: Place) -> Client:  # noqa: ARG002 - it uses all places
        return Client(name, self._places, self.load, self.record, random.Random(self.rng.random()))

    async def prepare(self, place: Place) -> None:
        await self.make_client("first", place).prepare()

    def finding(self, driver: Driver) -> Finding:
        page = driver.run(driver.space.scan(LEASE, "", None, MAX_PAGE_ENTRIES))
        tokens = {lease.lock: lease.token for lease in page.records}
        # After a run that was broken off, some requests have no answer.
        stored = [] if self.record.is_over else faults_at_end(self.record, all_entries(driver), tokens)
        found = {"answers": self.record.faults, "stored": stored}
        return Finding(self.load.figures, [line for name, faults in found.items() for line in shown(name, faults)])


def take_effect_once(
    store: str | Path,
    seed: int,
    *,
    operations: int,
    kills: int = 3,
    pauses: int = 1,
    servers: int = 1,
    lost_commits: int = 0,
    bug: str | None = None,
) -> Finding:
    """Do this many requests on `store`, which is empty and not used otherwise, and compare.

    `lost_commits`: how often the connection to the database is cut while it answers a COMMIT. `bug`: one of those in
    `planted_receipts`.
    """
    run = _Repeats(str(store), random.Random(seed), operations, bug)
    run.go(kills=kills, pauses=pauses, servers=servers, lost_answers=lost_commits)
    with Driver(open_engine(str(store)).space()) as driver:
        return run.finding(driver)
