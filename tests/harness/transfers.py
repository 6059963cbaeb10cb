"""Transactions are all or nothing and seen at one moment, while servers are killed and paused: transfers of money.

16 clients move amounts between accounts, by transactions with checks of revisions. Each transfer also writes a record
of its own, at the same revision as the two accounts. So the records at the end give the order of all transfers, also of
those whose answer was lost. The check repeats them on plain dictionaries and compares every answer: what a transfer
found, what a read of all accounts showed, and what was known before a request began.

At the end the store is opened without its servers, and its changes are read page by page, as a watcher reads them: each
page must have whole revisions.
"""

import asyncio
import random
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from driving import Driver, json_text
from running import message

from harness import Finding
from harness.linearizability import Round, shown
from harness.register_clients import Answer, Connection, Load, Place, clock
from leasehold.engines import open_engine
from leasehold.limits import MAX_PAGE_ENTRIES
from leasehold.model import ENTRY, Entry

ACCOUNTS: Final = 8
START_BALANCE: Final = 1_000
RECORDS: Final = "transfers/"
OPENED_AT: Final = 1
"""The revision of the transaction that creates all accounts."""
RECONNECT_SECONDS: Final = 0.01
MOST_PAGE_CHANGES: Final = 7
"""Pages of changes are shorter than this, so that many of them would end within a transaction."""


@dataclass(slots=True, eq=False)
class Transfer:
    """A transfer that was sent. `revision`: from the answer; None without an answer, or if it was refused.

    `seen`: the revision and the balance of each account on which it was decided.
    """

    mark: str
    amount: int
    seen: dict[str, tuple[int, int]]
    began: int
    ended: int | None = None
    revision: int | None = None
    is_refused: bool = False

    def __str__(self) -> str:
        return f"the transfer {self.mark} of {' to '.join(self.seen)}"


@dataclass(slots=True, eq=False)
class Sight:
    """What an answer showed: the accounts with their revisions and balances, as of `head` if that is given."""

    began: int
    ended: int
    accounts: dict[str, tuple[int, int]]
    head: int = 0


@dataclass
class Ledger:
    """What all clients sent and saw. `faults`: answers that are never allowed."""

    transfers: list[Transfer] = field(default_factory=list)
    sights: list[Sight] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def account(number: int) -> str:
    return f"accounts/{number}"


NAMES: Final = tuple(account(number) for number in range(ACCOUNTS))
ALL: Final = "&".join(f"key={name}" for name in NAMES)


class Client:
    """Moves money and looks at accounts, at `place`, until the load is done."""

    def __init__(self, name: str, place: Place, load: Load, ledger: Ledger, rng: random.Random) -> None:
        self._name = name
        self._place = place
        self._load = load
        self._ledger = ledger
        self._rng = rng
        self._marks = 0
        self._known: dict[str, tuple[int, int]] = {}
        """The accounts as last seen. A transfer is decided on them, so some of its checks fail."""
        self.connection = Connection()
        operations = {self._transfer: 50, self._look: 20, self._look_by_transaction: 15, self._read: 10, self._list: 5}
        self._choices = [operation for operation, weight in operations.items() for _ in range(weight)]

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._load.is_over:
            await self._place.is_up.wait()
            try:
                _, self.connection = await loop.create_connection(Connection, *self._place.address)
                while not self._load.is_over:
                    await self._rng.choice(self._choices)()
            except OSError:
                await asyncio.sleep(RECONNECT_SECONDS)
            finally:
                self.connection.hang_up()

    async def look(self) -> None:
        """Read all accounts once, on a connection of its own."""
        _, self.connection = await asyncio.get_running_loop().create_connection(Connection, *self._place.address)
        await self._look()
        self.connection.hang_up()

    async def open_accounts(self) -> None:
        """Create all accounts in one transaction."""
        _, self.connection = await asyncio.get_running_loop().create_connection(Connection, *self._place.address)
        do = [{"op": "put", "key": name, "value": value_of(START_BALANCE, "")} for name in NAMES]
        answer = await self._ask_for({"do": do})
        assert answer.status == 200, answer
        self.connection.hang_up()

    async def _ask_for(self, body: object) -> Answer:
        return await self.connection.ask(message("POST", "/txn?current", body=msgspec.json.encode(body)))

    # Transfers ------------------------------------------------------------------------------------------------

    async def _transfer(self) -> None:
        source, target = self._rng.sample(NAMES, 2)
        if source not in self._known or target not in self._known:
            await self._look()
            return
        self._marks += 1
        mark = f"{self._name}.{self._marks}"
        seen = {name: self._known[name] for name in (source, target)}
        amount = self._rng.randint(0, seen[source][1])
        transfer = Transfer(mark, amount, seen, clock())
        balances = {source: seen[source][1] - amount, target: seen[target][1] + amount}
        do = [{"op": "put", "key": name, "value": value_of(balance, mark)} for name, balance in balances.items()]
        do.insert(self._rng.randrange(3), {"op": "put", "key": RECORDS + mark, "value": amount})
        checks = [{"key": name, "revision": revision} for name, (revision, _) in seen.items()]
        self._ledger.transfers.append(transfer)
        self._load.count("transfers")
        answer = await self._ask_for({"if": checks, "do": do})
        if answer.status == 200:
            transfer.ended, transfer.revision = answer.ended, answer.json["revision"]
            self._known |= {name: (answer.json["revision"], balance) for name, balance in balances.items()}
        elif answer.status == 412:
            transfer.ended, transfer.is_refused = answer.ended, True
            self._refused(transfer, answer)
        elif answer.status != 503:
            self._ledger.faults.append(f"{transfer} was answered with {answer.status}: {answer.body[:200]!r}")

    def _refused(self, transfer: Transfer, answer: Answer) -> None:
        """Note the accounts that had changed. The others have the revision that the transfer named."""
        accounts = dict(transfer.seen)
        for failed in answer.json["failed"]:
            current = failed["current"]
            accounts[failed["key"]] = (current["revision"], current["value"]["balance"])
        if accounts == transfer.seen:
            self._ledger.faults.append(f"{transfer} was refused although its checks hold")
        self._saw(transfer.began, answer, accounts)
        self._load.figures["refused"] += 1

    # Reads ----------------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Read all accounts at one moment."""
        began = clock()
        answer = await self.connection.ask(message("GET", f"/kv?{ALL}"))
        if self._is_good(answer):
            self._saw(began, answer, accounts_in(answer.json["entries"]), head=answer.json["revision"])

    async def _look_by_transaction(self) -> None:
        began = clock()
        answer = await self._ask_for({"do": [{"op": "get", "key": name} for name in NAMES]})
        if self._is_good(answer):
            self._saw(began, answer, accounts_in(answer.json["results"]), head=answer.json["revision"])

    async def _read(self) -> None:
        name = self._rng.choice(NAMES)
        began = clock()
        answer = await self.connection.ask(message("GET", f"/kv/{name}"))
        if self._is_good(answer):
            self._saw(began, answer, accounts_in([answer.json]))

    async def _list(self) -> None:
        """Read the accounts in a list. It is not of one moment, so each account is judged for itself."""
        began = clock()
        answer = await self.connection.ask(message("GET", "/kv?prefix=accounts/"))
        if self._is_good(answer):
            for entry in answer.json["entries"]:
                self._saw(began, answer, accounts_in([entry]))

    def _is_good(self, answer: Answer) -> bool:
        self._load.count("reads")
        if answer.status not in (200, 503):
            self._ledger.faults.append(f"a read was answered with {answer.status}: {answer.body[:200]!r}")
        return answer.status == 200

    def _saw(self, began: int, answer: Answer, accounts: dict[str, tuple[int, int]], *, head: int = 0) -> None:
        self._known |= accounts
        self._ledger.sights.append(Sight(began, answer.ended, accounts, head))


def value_of(balance: int, mark: str) -> Any:
    return {"balance": balance, "by": mark}


def accounts_in(entries: list[Any]) -> dict[str, tuple[int, int]]:
    return {entry["key"]: (entry["revision"], entry["value"]["balance"]) for entry in entries}


# The check --------------------------------------------------------------------------------------------------------


class Books:
    """The state of all accounts after each revision, from the records that the store has at the end."""

    def __init__(self, ledger: Ledger, opened_at: int, records: Mapping[str, int]) -> None:
        """`records`: the revision of the record of each transfer that was done, by its mark."""
        self.faults: list[str] = list(ledger.faults)
        self._ledger = ledger
        self._opened_at = opened_at
        self._chains = {name: [(opened_at, START_BALANCE)] for name in NAMES}
        """The revisions and balances of each account."""
        self._began = {opened_at: 0}
        """When the transfer at each revision was sent."""
        self._repeat(records)

    def _repeat(self, records: Mapping[str, int]) -> None:
        by_mark = {transfer.mark: transfer for transfer in self._ledger.transfers}
        for mark, revision in sorted(records.items(), key=lambda record: record[1]):
            transfer = by_mark[mark]
            if transfer.is_refused:
                self.faults.append(f"{transfer} was refused and is stored")
            if transfer.revision not in (None, revision):
                self.faults.append(f"{transfer} was answered with {transfer.revision} and is stored at {revision}")
            transfer.revision = revision
            self._began[revision] = transfer.began
            change = -transfer.amount
            for name, (seen, balance) in transfer.seen.items():
                if self._chains[name][-1] != (seen, balance):
                    self.faults.append(f"{transfer} saw {name} at {seen}, which was at {self._chains[name][-1][0]}")
                self._chains[name].append((revision, self._chains[name][-1][1] + change))
                change = -change
        for transfer in self._ledger.transfers:
            if transfer.mark not in records and transfer.revision is not None:
                self.faults.append(f"{transfer} was answered and is not stored")

    def at(self, name: str, revision: int) -> tuple[int, int]:
        """The revision and the balance of an account after this revision of the store."""
        chain = self._chains[name]
        place = bisect_right(chain, revision, key=lambda state: state[0]) - 1
        return chain[place] if place >= 0 else (0, 0)

    def check_answers(self) -> None:
        """Go through all beginnings and ends in order, with the largest revision that was known at each."""
        operations: list[Transfer | Sight] = [*self._ledger.transfers, *self._ledger.sights]
        events = [(each.began, 0, number) for number, each in enumerate(operations)]
        events += [(each.ended, 1, number) for number, each in enumerate(operations) if each.ended is not None]
        events.sort()
        known, floors = self._opened_at, dict[int, int]()
        for _, is_end, number in events:
            operation = operations[number]
            if not is_end:
                floors[number] = known
            elif isinstance(operation, Sight):
                known = max(known, self._check_sight(operation, floors[number]))
            elif operation.revision is not None:
                if operation.revision <= floors[number]:
                    self.faults.append(f"{operation} is at {operation.revision}, and {floors[number]} was known")
                known = max(known, operation.revision)

    def _check_sight(self, sight: Sight, floor: int) -> int:
        """Check what was seen. Returns the largest revision that it shows."""
        if sight.head:
            if sight.head < floor:
                self.faults.append(f"accounts were read at {sight.head}, and {floor} was known")
            expected = {name: self.at(name, sight.head) for name in NAMES}
            if sight.accounts != expected:
                self.faults.append(f"{sight.accounts} was seen at {sight.head} instead of {expected}")
            return sight.head
        for name, (revision, balance) in sight.accounts.items():
            if self.at(name, revision) != (revision, balance):
                self.faults.append(f"{name} was seen with {balance} at {revision}, which no transfer left")
            elif self._began[revision] >= sight.ended:
                self.faults.append(f"{name} was seen at {revision} before this was sent")
            if revision < self.at(name, floor)[0]:
                self.faults.append(f"{name} was seen at {revision}, and {floor} was known")
        return max(revision for revision, _ in sight.accounts.values())

    def check_end(self, entries: Mapping[str, Entry], head: int) -> None:
        """Compare with what is stored at the end."""
        stored = {
            name: (entry.revision, msgspec.json.decode(json_text(entry.value))["balance"])
            for name, entry in entries.items()
            if name in NAMES
        }
        if stored != {name: self.at(name, head) for name in NAMES}:
            self.faults.append(f"at the end there is {stored}")
        if sum(balance for _, balance in stored.values()) != ACCOUNTS * START_BALANCE:
            self.faults.append("money was made or lost")
        if len(self._began) != head or max(self._began) != head:
            self.faults.append(f"{len(self._began)} transactions took the revisions up to {head}")


def check_pages(driver: Driver, entries: Mapping[str, Entry], rng: random.Random) -> list[str]:
    """Read all changes in short pages, as a watcher does. Each page must have all changes up to its revision."""
    expected = sorted((entry.revision, name) for name, entry in entries.items())
    found: list[tuple[int, str]] = []
    after = 0
    while after < driver.space.revision:
        page = driver.run(driver.space.changes(ENTRY, after, "", rng.randint(1, MOST_PAGE_CHANGES)))
        found += sorted((change.revision, change.name) for change in page.changes)
        if found != expected[: bisect_right(expected, (page.revision, "\U0010ffff"))]:
            return [f"a page of changes ends within revision {page.revision}, or lacks some"]
        after = page.revision
    return []


# The run ----------------------------------------------------------------------------------------------------------


class _Transfers(Round):
    def __init__(self, store: str, rng: random.Random, operations: int, bug: str | None) -> None:
        super().__init__(store, rng, operations, bug)
        self.ledger = Ledger()

    def make_client(self, name: str, place: Place) -> Client:
        return Client(name, place, self.load, self.ledger, random.Random(self.rng.random()))

    async def prepare(self, place: Place) -> None:
        await self.make_client("opener", place).open_accounts()

    def finding(self, driver: Driver) -> Finding:
        """Judge the answers by what is stored at the end, which `driver` reads."""
        head = driver.space.revision
        entries = all_entries(driver)
        records = {name[len(RECORDS) :]: each.revision for name, each in entries.items() if name.startswith(RECORDS)}
        books = Books(self.ledger, OPENED_AT, records)
        books.check_answers()
        books.check_end(entries, head)
        judgements = {"answers": books.faults, "pages": check_pages(driver, entries, self.rng)}
        self.load.figures["transfers done"] += len(records)
        return Finding(self.load.figures, [line for name, found in judgements.items() for line in shown(name, found)])


def all_entries(driver: Driver) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    after: str | None = None
    while True:
        page = driver.run(driver.space.scan(ENTRY, "", after, MAX_PAGE_ENTRIES))
        entries |= {entry.key: entry for entry in page.records}
        after = page.next_after
        if after is None:
            return entries


def keep_the_sum(
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
    """Do this many transfers and reads on `store`, which is empty and not used otherwise, and check all answers.

    `lost_answers`: how often the connection to the database is cut while it answers a COMMIT. `bug`: one of those in
    `planted`.
    """
    run = _Transfers(str(store), random.Random(seed), operations, bug)
    run.go(kills=kills, pauses=pauses, servers=servers, lost_answers=lost_answers)
    with Driver(open_engine(str(store)).space()) as driver:
        return run.finding(driver)
