"""`leasehold move`: moves a whole store into an empty one, of the same or another engine. See `engines.moves`."""

import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from leasehold.cli.arguments import Command, Parser
from leasehold.errors import ServiceError, unavailable

if TYPE_CHECKING:
    from leasehold.engines.moves import Moved


class Arguments(Namespace):
    source: str
    target: str


def parse(program: str, words: Sequence[str]) -> Arguments:
    parser = Parser(
        program,
        MOVE.summary,
        usage="[OPTIONS] SOURCE TARGET",
        details="Leases, history and revisions go along, so clients notice nothing. No service may use either store "
        "meanwhile. The source is not changed. If it is interrupted, run it again.",
    )
    parser.add_argument("source", metavar="SOURCE", help="A file, or postgresql://….")
    parser.add_argument("target", metavar="TARGET", help="The same. It must be empty or not exist.")
    parser.check_options(words)
    return parser.parse_args(words, Arguments())


def run(program: str, words: Sequence[str]) -> int:
    arguments = parse(program, words)

    import asyncio

    from leasehold.cli.progress_line import shown
    from leasehold.engines import move_store
    from leasehold.progress import Progress

    if arguments.source == arguments.target:
        raise ServiceError("invalid_argument", "the source and the target are the same store")
    progress = Progress()

    async def move() -> "Moved":
        with shown(progress.figures):
            return await move_store(arguments.source, arguments.target, progress=progress, now=time.time_ns() // 1000)

    try:
        moved = asyncio.run(move())
    except KeyboardInterrupt as interruption:
        message = "the move was interrupted; the source is unchanged, and the same command begins again"
        raise unavailable(message) from interruption
    sys.stdout.write(_lines(arguments, moved))
    return 0


def _lines(arguments: Arguments, moved: "Moved") -> str:
    from leasehold.engines import shown_url
    from leasehold.model import KINDS
    from leasehold.namespaces import DEFAULT_NAMESPACE

    source, target, summary = shown_url(arguments.source), shown_url(arguments.target), moved.summary
    first, *others = KINDS
    plurals = (first.plural, *(kind.plural for kind in others if summary.records(kind.plural)))
    counts = ", ".join(f"{summary.records(plural)} {plural}" for plural in plurals)
    where = f" in {len(summary.spaces)} namespaces, {DEFAULT_NAMESPACE}" if len(summary.spaces) > 1 else ","
    revision = summary.spaces[DEFAULT_NAMESPACE].head.revision
    already = "already " if moved.was_complete else ""
    return (
        f"{target} {already}holds everything of {source}: {counts}{where} at revision {revision}\n"
        f"{source} was not changed; do not serve it again, because both stores issue the same revisions\n"
    )


MOVE = Command("Move a store, with all that it holds, to another engine.", run)
