"""`leasehold distribute`: distributes the tables of a store by namespace, with Citus. See docs/scaling.md."""

import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from leasehold.cli.arguments import Command, Parser

if TYPE_CHECKING:
    from leasehold.engines.postgres.distribution import Distributed


class Arguments(Namespace):
    store: str


def parse(program: str, words: Sequence[str]) -> Arguments:
    parser = Parser(
        program,
        DISTRIBUTE.summary,
        usage="[OPTIONS] STORE",
        details="The database needs the extension citus. No service may use the store meanwhile. After each update of "
        "Leasehold, run it again before the services start.",
    )
    parser.add_argument("store", metavar="STORE", help="postgresql://…, with the address of the coordinator.")
    parser.check_options(words)
    return parser.parse_args(words, Arguments())


def run(program: str, words: Sequence[str]) -> int:
    arguments = parse(program, words)

    import asyncio

    from leasehold.engines import distribute_store, shown_url

    done = asyncio.run(distribute_store(arguments.store, now=time.time_ns() // 1000))
    sys.stdout.write("".join(f"{line}\n" for line in _lines(shown_url(arguments.store), done)))
    return 0


def _lines(store: str, done: "Distributed") -> Sequence[str]:
    from leasehold.engines.postgres.distribution import MAX_RECOVERY_MILLISECONDS

    tables, interval = ", ".join(done.tables), done.recovery_milliseconds
    lines = [f"{store}: distributed by namespace: {tables}" if tables else f"{store} was distributed already"]
    if interval is not None and interval > MAX_RECOVERY_MILLISECONDS:
        lines.append(
            f"set citus.recover_2pc_interval to {MAX_RECOVERY_MILLISECONDS} ms on every node: now it is {interval} ms, "
            "and acknowledged writes may be invisible for so long after a node has failed"
        )
    return lines


DISTRIBUTE = Command("Distribute a store by namespace over the nodes of a Citus cluster.", run)
