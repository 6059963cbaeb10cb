"""Clients that change all kinds of records over HTTP all the time and record the answers in a `Ledger`.

They append to lists, count with If-Match, create and delete entries, take locks and write under them, and list
everything. They tolerate 503 answers as documented, and no other failure.
"""

import json
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.parse import quote

from running import Answer, Server, Wire, message

from harness.ledger import Ledger, Outcome

CLIENTS = 16
LISTS = 4
APPENDS_TO_A_LIST = 20
"""Elements that each client appends before it starts a new list, so that lists stay short."""
COUNTERS = 4
LOCKS = 4
TTL_SECONDS = 10
"""The ttl of leases. Longer than the time for which the service retries, so that few leases expire before their
release."""
WAIT_SECONDS = 0.2
PAUSE_SECONDS = 0.05
"""The pause after a 503."""
UNKNOWN = b"may or may not have been stored"
REFUSALS = (404, 409, 412, 423)


@dataclass(frozen=True)
class Reply:
    """The answer to a write."""

    status: int
    outcome: Outcome
    body: dict[str, Any]

    @property
    def revision(self) -> int | None:
        """The revision of the change, if it was done."""
        if self.outcome != "done":
            return None
        revision = self.body.get("revision", self.body.get("token"))
        assert isinstance(revision, int), self.body
        return revision


class Client:
    """One writing client, on one connection. `number` is its place in the ledger; `name` is unique."""

    def __init__(
        self, wire: Wire, ledger: Ledger, number: int, name: str, rng: random.Random, *, compares: bool
    ) -> None:
        self._wire = wire
        self._ledger = ledger
        self._number = number
        self._name = name
        self._rng = rng
        self._count_weight = 3 if compares else 0
        self._serial = count()
        self._created: list[str] = []
        """What certainly exists."""

    def step(self) -> None:
        steps = (self._append, self._count, self._create, self._delete, self._lock, self._list)
        self._rng.choices(steps, weights=(4, self._count_weight, 3, 2, 1, 1))[0]()

    # Steps --------------------------------------------------------------------------------------------------------

    def _append(self) -> None:
        number, element = self._element()
        self._append_to(f"lists/{self._rng.randrange(LISTS)}/{number // APPENDS_TO_A_LIST}", element, (200, 201))

    def _append_to(self, key: str, element: str, expected: tuple[int, ...], *fields: str) -> Reply:
        reply = self._write("POST", f"/kv/{quote(key)}?path=/-", *fields, body=json.dumps(element).encode())
        self._ledger.append(key, element, reply.outcome, reply.revision)
        self._expect(reply, expected, f"an append to {key}")
        return reply

    def _count(self) -> None:
        """Compare and set. No increment of another client may be lost."""
        key = f"counters/{self._rng.randrange(COUNTERS)}"
        at_least = self._ledger.last_seen(key)
        found = self._ask("GET", f"/kv/{key}")
        if found.status == 503:
            return
        number, condition = 0, "If-None-Match: *"
        if found.status == 200:
            entry = json.loads(found.body)
            number, condition = entry["value"], f"If-Match: {found.headers['etag']}"
            self._ledger.saw(key, entry["revision"])
            self._ledger.expect(
                that=entry["revision"] >= at_least,
                otherwise=f"{key} was read at {entry['revision']} although {at_least} was known before",
            )
        else:
            self._ledger.expect(that=at_least == 0, otherwise=f"{key} was not found, and was there at {at_least}")
        reply = self._write("PUT", f"/kv/{key}", condition, body=b"%d" % (number + 1))
        self._ledger.count(key, reply.outcome)
        if reply.revision is not None:
            self._ledger.saw(key, reply.revision)
        self._expect(reply, (200, 201, 412), f"an increment of {key}")

    def _create(self) -> None:
        number, value = self._element()
        key = f"created/{self._name}/{number}"
        reply = self._write("PUT", f"/kv/{key}", "If-None-Match: *", body=json.dumps(value).encode())
        self._ledger.create(key, value, reply.outcome)
        self._expect(reply, (201,), f"the creation of {key}, which only we create")
        if reply.outcome == "done":
            self._created.append(key)

    def _delete(self) -> None:
        if not self._created:
            return
        key = self._created.pop(self._rng.randrange(len(self._created)))
        reply = self._write("DELETE", f"/kv/{key}")
        self._ledger.delete(key, reply.outcome)
        self._expect(reply, (200,), f"the deletion of {key}, which is there")
        if reply.status == 503 and reply.outcome == "not done":
            self._created.append(key)

    def _lock(self) -> None:
        """Acquire, write under the lease, release. Sometimes write again after it, which must be refused."""
        ledger, lock = self._ledger, f"lock-{self._rng.randrange(LOCKS)}"
        last_token = ledger.last_token(lock)
        asked_at = time.monotonic()
        body = json.dumps({"ttl": TTL_SECONDS, "wait": WAIT_SECONDS, "owner": self._name}).encode()
        acquired = self._write("POST", f"/locks/{lock}", body=body)
        self._expect(acquired, (201, 423), f"the acquisition of {lock}")
        if acquired.status != 201:
            return
        lease_id, alive_until = acquired.body["lease_id"], asked_at + TTL_SECONDS
        ledger.hold(lock, lease_id, acquired.body["token"], last_token, time.monotonic(), alive_until)
        number, element = self._element()
        key = f"fenced/{lock}/{number // APPENDS_TO_A_LIST}"
        fence = f"If-Lease: {lease_id}"
        written = self._append_to(key, element, (200, 201, 412), fence)
        ledger.expect(
            that=written.status != 412 or time.monotonic() > alive_until,
            otherwise=f"a lease on {lock} was lost before its time",
        )
        ledger.let_go(lock, lease_id)
        if self._release(lock, lease_id, alive_until) and self._rng.random() < 0.3:
            _, late = self._element()
            self._append_to(key, late, (412,), fence)

    def _release(self, lock: str, lease_id: str, alive_until: float) -> bool:
        """Release a lease and retry until the answer is final. Returns False if the outcome is unknown."""
        may_be_over = False
        while True:
            reply = self._write("DELETE", f"/locks/{lock}?lease_id={lease_id}")
            if reply.status != 503:
                self._expect(reply, (200, 404, 409), f"the release of {lock}")
                self._ledger.expect(
                    that=reply.status == 200 or may_be_over or time.monotonic() > alive_until,
                    otherwise=f"a lease on {lock} was gone before it was released: {reply.status}",
                )
                return True
            may_be_over = may_be_over or reply.outcome == "unknown"
            if time.monotonic() > alive_until + WAIT_SECONDS:
                return False

    def _list(self) -> None:
        target = self._rng.choice(("/kv?limit=10", "/kv?limit=10&prefix=counters/", "/locks?limit=10"))
        at_least = self._ledger.last_told()
        answer = self._ask("GET", target)
        if answer.status == 200:
            revision = json.loads(answer.body)["revision"]
            self._ledger.expect(
                that=revision >= at_least, otherwise=f"a list of {revision} although {at_least} was known before"
            )

    def _element(self) -> tuple[int, str]:
        """A value that no other request writes."""
        number = next(self._serial)
        return number, f"{self._name}.{number}"

    # Requests -----------------------------------------------------------------------------------------------------

    def _write(self, method: str, target: str, *fields: str, body: bytes | None = None) -> Reply:
        begun_at = self._ledger.begin()
        outcome: Outcome = "unknown"
        revision: int | None = None
        try:
            answer = self._ask(method, target, *fields, body=body)
            if answer.status in (200, 201):
                outcome = "done"
            elif answer.status in REFUSALS or (answer.status == 503 and UNKNOWN not in answer.body):
                outcome = "not done"
            reply = Reply(answer.status, outcome, json.loads(answer.body))
            revision = reply.revision
            return reply
        finally:
            self._ledger.end(self._number, outcome, begun_at, revision)

    def _ask(self, method: str, target: str, *fields: str, body: bytes | None = None) -> Answer:
        answer = self._wire.send(message(method, target, *fields, body=body)).answer(to=method)
        with self._ledger.changed:
            self._ledger.figures["answers"] += 1
        if answer.status == 503:
            retry_after = answer.headers.get("retry-after", "")
            self._ledger.expect(
                that=retry_after.isdecimal() and int(retry_after) > 0 and answer.refusal == (503, "unavailable"),
                otherwise=f"a 503 that is not as promised: {answer}",
            )
            with self._ledger.changed:
                self._ledger.figures["answers 503"] += 1
            time.sleep(PAUSE_SECONDS)
        else:
            self._ledger.expect(
                that=answer.status in (200, 201, *REFUSALS), otherwise=f"{method} {target} was answered {answer}"
            )
        return answer

    def _expect(self, reply: Reply, statuses: tuple[int, ...], what: str) -> None:
        self._ledger.expect(
            that=reply.status in (*statuses, 503), otherwise=f"{what} was answered {reply.status} {reply.body}"
        )


@contextmanager
def clients_at_work(server: Server, ledger: Ledger, seed: int, *, compares: bool = True) -> Iterator[None]:
    """Run CLIENTS clients until the `with` block ends. An exception in a client is a violation.

    `compares`: they also compare and set, and compare what they read with earlier reads.
    """
    over = threading.Event()
    ledger.done = [0] * CLIENTS

    def work(number: int) -> None:
        with Wire(server) as wire:
            client = Client(
                wire, ledger, number, f"{seed}-{number}", random.Random(f"{seed}/{number}"), compares=compares
            )
            while not over.is_set():
                client.step()

    with ThreadPoolExecutor(CLIENTS) as pool:
        at_work: list[Future[None]] = [pool.submit(work, number) for number in range(CLIENTS)]
        try:
            yield
        finally:
            over.set()
    for number, client in enumerate(at_work):
        failure = client.exception()
        if failure is not None:
            ledger.fault(f"client {number} gave up: {failure!r}")
