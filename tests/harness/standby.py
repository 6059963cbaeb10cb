"""The real service on a primary with a synchronous standby, when commits lose their standby half-way.

While clients write, the standby is cut off, so that a COMMIT waits for it. Then that COMMIT is disturbed: the query is
cancelled, the session is ended, or the whole primary is killed and started again. By then PostgreSQL has the change and
shows it to readers, but the standby lacks it. After the service has reacted, the primary is lost and the standby is
promoted. Nothing that was acknowledged to a client may be missing.

Or the primary is lost at once, without a fault before; or it is frozen, and continues after the promotion.

What was only read may be missing, because PostgreSQL shows changes that the standby lacks once the wait has been
interrupted. So the clients do not compare what they read.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from databases import Database, PostgresServer
from replication import Pair
from running import running

from harness import Finding
from harness.clients import clients_at_work
from harness.ledger import Ledger
from harness.postgres_faults import PLANTED, bad_end, differences, what_has_not_recovered

PROMISE: Final = "with a synchronous standby, a failover loses nothing that was acknowledged"
FIRST_WRITES: Final = 50
MOST_WRITES: Final = 50
"""Writes between two faults."""

Way = Literal["query cancelled", "session ended", "primary killed"]
"""What disturbs a COMMIT that waits for the standby."""
Loss = Literal["primary lost", "primary frozen"]


def _cancel(primary: PostgresServer, process: int) -> None:
    _signal(primary, "pg_cancel_backend", process)


def _terminate(primary: PostgresServer, process: int) -> None:
    _signal(primary, "pg_terminate_backend", process)


def _signal(primary: PostgresServer, function: str, process: int) -> None:
    [row] = Database(primary.url, "public").fetch(f"SELECT {function}($1)", process)
    assert row[0] is True


def _restart(primary: PostgresServer, _process: int) -> None:
    primary.restart()


WAYS: Final[Mapping[Way, Callable[[PostgresServer, int], None]]] = {
    "query cancelled": _cancel,
    "session ended": _terminate,
    "primary killed": _restart,
}


LOSSES: Final[Sequence[Loss]] = ("primary lost", "primary frozen")


def survive_failovers(
    seed: int, ways: Sequence[Way | Loss], *, bug: str | None = None, is_synchronous: bool = True
) -> Finding:
    """A failover in each of the `ways`, one after another, under one service. Clients write until each is over.

    `bug`: one of those in `planted`. If the standby is not `is_synchronous`, it is cut off some writes before.
    """
    finding, ledger, rng = Finding(), Ledger(), random.Random(seed)
    program = ("-m", "leasehold") if bug is None else (PLANTED,)
    environment = {} if bug is None else {"LEASEHOLD_TEST_BUG": bug}
    with Pair(is_synchronous=is_synchronous) as pair:
        database = Database(pair.primary.url, "failovers").create()
        with running(database.at(pair.hosts), program=program, environment=environment) as service:
            for number, way in enumerate(ways, start=1):
                if number > 1:
                    pair.add_standby()
                # New ones for each failover: the copy of the primary takes long, and no fault comes meanwhile.
                with clients_at_work(service, ledger, seed * len(ways) + number, compares=False):
                    ledger.wait_for_writes(FIRST_WRITES + rng.randrange(MOST_WRITES))
                    if not is_synchronous:
                        pair.cut_off()
                        ledger.wait_for_writes(FIRST_WRITES)
                    _fail_over(pair, way, ledger, finding)
                    _wait_for_writes(way, ledger, finding)
                    if way == "primary frozen":
                        pair.thaw_former()  # it takes connections again, but no standby confirms its commits
                        ledger.wait_for_writes(FIRST_WRITES)
                        pair.remove_former()
                    finding.figures["failovers"] += 1
                    late = what_has_not_recovered(service, ledger)
                if late:
                    ledger.fault(f"after failover {number} ({way}): {late}")
                    break
            finding.violations += [*ledger.violations, *differences(service, ledger), *bad_end(service)]
    finding.figures.update(ledger.figures)
    return finding


def _fail_over(pair: Pair, way: Way | Loss, ledger: Ledger, finding: Finding) -> None:
    """Lose the primary in this way and promote the standby."""
    if way == "primary frozen" or way == "primary lost":
        finding.figures["writes under way at faults"] += ledger.under_way
    else:
        pair.cut_off()
        waiting = pair.waiting()
        finding.figures["writes under way at faults"] += ledger.under_way
        WAYS[way](pair.primary, waiting[0])
        pair.waiting(but_for=waiting)  # the service believes the commit, or asks
    if way == "primary frozen":
        pair.freeze_and_promote()
    else:
        pair.promote()


def _wait_for_writes(way: Way | Loss, ledger: Ledger, finding: Finding) -> None:
    """Wait for an acknowledged write after a promotion, and note how long that took."""
    promoted = time.monotonic()
    ledger.wait_for_writes(1)
    finding.took(f"from a promotion to a write ({way})", time.monotonic() - promoted)


def round_of_failovers(_folder: Path, seed: int) -> Finding:
    """Rounds for `make torture`."""
    rng = random.Random(seed)
    return survive_failovers(seed, [rng.choice([*WAYS, *LOSSES]) for _ in range(6)])
