"""`leasehold backup`, `restore` and `advance`: from any store, or from a running service, into any store.

The format is that of `engines.backups`. A file gets its final name once it is complete, checked and durable.
"""

import os
import sys
import time
from argparse import Namespace
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Final, NamedTuple

from leasehold.cli.arguments import Command, Parser, count_from
from leasehold.cli.connecting import (
    DEFAULT_NAMESPACE,
    NAMESPACE_VARIABLE,
    TOKEN_FILE_VARIABLE,
    ConnectionArguments,
    connected,
)
from leasehold.cli.output_files import Write, written
from leasehold.errors import unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from leasehold_client import Client

    from leasehold.engines.backups import Backup, StoreMoment
    from leasehold.engines.state import StoredState

ADVANCE_REVISIONS: Final = 1_000_000_000
"""A restore adds this to the revision: more than the store can have issued after the backup was made."""
ANSWER_SECONDS: Final = 60.0
"""The download fails if the service sends nothing for this time."""
MB: Final = 1_000_000
STORE_HELP: Final = "A file or postgresql://….  [default: data.json]"


def _named_store(store: str | None) -> str:
    from leasehold.server.config import load_settings

    return load_settings(os.environ, {"store": store}).store


def _now() -> int:
    return time.time_ns() // 1000


# backup -------------------------------------------------------------------------------------------------------


class BackupArguments(Namespace):
    output: str
    store: str | None
    url: str | None
    namespace: str | None
    token_file: str | None


def parse_backup(program: str, words: Sequence[str]) -> BackupArguments:
    parser = Parser(
        program,
        BACKUP.summary,
        usage="[OPTIONS] OUTPUT",
        details="It reads a store, whether a service uses it or not, or asks a running service.",
    )
    parser.add_argument("output", metavar="OUTPUT", help="The file to write, or - for standard output.")
    parser.add_argument("--store", help=STORE_HELP)
    parser.add_argument("--url", help="A running service, in place of a store: http://localhost:8080.")
    parser.add_argument(
        "--namespace",
        metavar="NAME",
        help="Only this namespace.  [default: all of a store; of a service, "
        f"{NAMESPACE_VARIABLE} or {DEFAULT_NAMESPACE}]",
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help=f"For --url: file with a token that may read all.  [default: {TOKEN_FILE_VARIABLE}]",
    )
    parser.check_options(words)
    return parser.parse_args(words, BackupArguments())


def run_backup(program: str, words: Sequence[str]) -> int:
    arguments = parse_backup(program, words)

    from pathlib import Path

    output = None if arguments.output == "-" else Path(arguments.output)
    if arguments.url is None:
        back_up_store(_named_store(arguments.store), arguments.namespace, output)
    else:
        connection = ConnectionArguments(
            url=arguments.url, namespace=arguments.namespace, token_file=arguments.token_file, retry=0.0
        )
        back_up_service(connection, output)
    return 0


def back_up_store(url: str, namespace: str | None, output: "Path | None") -> None:
    """Write a backup of a namespace, or of all, to a file or to standard output. Raises ServiceError."""
    import asyncio

    from leasehold.engines import moment_of
    from leasehold.engines.backups import backup_text, store_backup_text
    from leasehold.errors import no_such_namespace

    async def write() -> None:
        async with moment_of(url, now=_now()) as store:
            if namespace is None:
                await _write(store_backup_text(store), output)
                return
            description = store.namespaces.get(namespace)
            if description is None or description.is_deleted:
                raise no_such_namespace()
            await _write(backup_text(await store.moment_of(namespace)), output)

    asyncio.run(write())


async def _write(text: AsyncGenerator[bytes], output: "Path | None") -> None:
    with _backup_output(output) as take:
        async with aclosing(text):
            async for chunk in text:
                take(chunk)


def back_up_service(connection: ConnectionArguments, output: "Path | None") -> None:
    """Write a backup of a namespace of a running service; see `back_up_store`. Raises CommandFailed.

    If no namespace was chosen and there are others, standard error says that the backup does not have them.
    """
    from leasehold_client import Request

    with connected(connection) as db:
        with _backup_output(output) as take:
            for chunk in db.stream(Request("GET", "/backup"), silence_seconds=ANSWER_SECONDS):
                take(chunk)
        is_chosen = connection.namespace is not None or NAMESPACE_VARIABLE in os.environ
        has_others = not is_chosen and _has_others(db)
    if has_others:
        sys.stderr.write(
            f"leasehold: the backup has the namespace {DEFAULT_NAMESPACE} only; --namespace backs up another one, and "
            "--store all of them\n"
        )


def _has_others(db: "Client") -> bool:
    """Whether the service has other namespaces than `default`, as far as the token may know. Raises CommandFailed."""
    from leasehold_client import AccessDenied, BadRequest
    from leasehold_client.protocol import namespaces

    from leasehold.cli.shown_namespaces import page_of

    try:
        return len(page_of(db.send(namespaces.page(None, limit=2)).content).namespaces) > 1
    except (AccessDenied, BadRequest):
        return False  # the token does not manage namespaces, or the service is too old to have any


@contextmanager
def _backup_output(output: "Path | None") -> Iterator[Write]:
    """Takes the chunks of a backup. Raises `unavailable` at the end unless the backup is complete and stored."""
    from leasehold.cli.progress_line import shown_by_thread
    from leasehold.engines.seals import Seal

    seal = Seal()
    taken_bytes = 0

    def figures() -> Mapping[str, object]:
        return {"step": "backing up", "done": f"{taken_bytes // MB:,} MB"}

    # The backup and the figures would be mixed on one terminal.
    is_mixed = output is None and sys.stdout.isatty()
    with written(output) as write, nullcontext() if is_mixed else shown_by_thread(figures):

        def take(chunk: bytes) -> None:
            nonlocal taken_bytes
            seal.take(chunk)
            write(chunk)
            taken_bytes += len(chunk)

        yield take
        seal.check("the backup")


BACKUP = Command("Write all entries of one moment to a file.", run_backup)


# restore ------------------------------------------------------------------------------------------------------


class RestoreArguments(Namespace):
    backup: str
    store: str | None
    namespace: str | None
    replace: bool
    advance: int


def parse_restore(program: str, words: Sequence[str]) -> RestoreArguments:
    parser = Parser(
        program,
        RESTORE.summary,
        usage="[OPTIONS] BACKUP",
        details="Nothing is changed unless all of it can be restored. No service may use the store's file meanwhile.",
    )
    parser.add_argument("backup", metavar="BACKUP", help="What `leasehold backup` wrote, or a copy of a data.json.")
    parser.add_argument("--store", help=STORE_HELP)
    parser.add_argument(
        "--namespace",
        metavar="NAME",
        help="Only this namespace. A backup of one namespace is restored into it, and it is created if it does not "
        f"exist.  [default: all of a backup of several; otherwise {DEFAULT_NAMESPACE}]",
    )
    parser.add_argument("--replace", action="store_true", help="Replace what it holds; that is kept in a file.")
    parser.add_argument(
        "--advance",
        metavar="REVISIONS",
        type=count_from(0),
        default=ADVANCE_REVISIONS,
        help="How much to add to the revision; 0 for a move.  [default: %(default)s]",
    )
    parser.check_options(words)
    return parser.parse_args(words, RestoreArguments())


def run_restore(program: str, words: Sequence[str]) -> int:
    arguments = parse_restore(program, words)

    from pathlib import Path

    from leasehold.engines import shown_url
    from leasehold.namespaces import check_namespace

    target, path, namespace = _named_store(arguments.store), Path(arguments.backup), arguments.namespace
    if namespace is not None:
        check_namespace(namespace)
    done = restore(path, target, namespace, advance=arguments.advance, replace=arguments.replace)
    leases = f", without its {done.leases_left_out} leases" if done.leases_left_out else ""
    into = "" if namespace in (None, DEFAULT_NAMESPACE) else f", namespace {namespace},"
    what = f"{done.entries} entries of {path}"
    if done.namespaces > 1:
        what += f" in {done.namespaces} namespaces"
    of_default = f", {DEFAULT_NAMESPACE}" if done.namespaces > 1 else ","
    line = f"{shown_url(target)}{into} holds {what}{leases}{of_default} at revision {done.revision}\n"
    kept = "" if done.kept is None else f"what it held before is in {done.kept}\n"
    sys.stdout.write(line + kept)
    return 0


class Done(NamedTuple):
    """What `restore` did. `revision`: the new head of the namespace; of several, that of `default`.

    `kept`: the file with the previous content.
    """

    entries: int
    namespaces: int
    revision: int
    kept: "Path | None"
    leases_left_out: int


def restore(path: "Path", url: str, namespace: str | None, *, advance: int, replace: bool) -> Done:
    """Restore a backup into a namespace of a store, all of it or nothing. Raises ServiceError.

    None: all namespaces of a backup that has several, otherwise `default`. The new head is the larger of both heads,
    plus `advance`. With `replace`, the previous content is first kept in a file.
    """
    import asyncio

    from leasehold.cli.progress_line import shown_by_thread
    from leasehold.engines import restore_all, restore_store
    from leasehold.engines.backups import read_backup, store_backup_text
    from leasehold.engines.file.disk import OsDisk
    from leasehold.model import ENTRY, LEASE

    with shown_by_thread(lambda: {"step": "reading and checking the backup"}):
        backup = read_backup(OsDisk(), path, _now())
    is_whole = backup.has_several and namespace is None
    states = list(backup.states.values()) if is_whole else [_chosen(backup, path, namespace)]
    entries = sum(len(state.of(ENTRY).by_name) for state in states)

    async def keep(store: "StoreMoment") -> "Path":
        numbered = (path.with_name(f"{path.name}.replaced-{number}") for number in range(1, sys.maxsize))
        kept = next(each for each in numbered if not each.exists())
        await _write(store_backup_text(store), kept)
        return kept

    keeping = keep if replace else None
    with shown_by_thread(lambda: {"step": f"restoring {entries:,} entries"}):
        if is_whole:
            restored = asyncio.run(restore_all(url, backup, advance=advance, keep=keeping, now=_now()))
        else:
            into = namespace or DEFAULT_NAMESPACE
            restoring = restore_store(url, states[0], advance=advance, keep=keeping, namespace=into, now=_now())
            restored = asyncio.run(restoring)
    leases = sum(len(state.of(LEASE).by_name) for state in states)
    return Done(entries, len(states), restored.revision, restored.kept, leases)


def _chosen(backup: "Backup", path: "Path", namespace: str | None) -> "StoredState":
    """The one namespace that is restored."""
    name = namespace if backup.has_several and namespace is not None else DEFAULT_NAMESPACE
    if name not in backup.states:
        raise unavailable(f"nothing was restored: {path.name} has no namespace {name}")
    return backup.states[name]


RESTORE = Command("Restore a backup into an empty store, all of it or nothing.", run_restore)


# advance ------------------------------------------------------------------------------------------------------


class AdvanceArguments(Namespace):
    store: str | None
    by: int


def parse_advance(program: str, words: Sequence[str]) -> AdvanceArguments:
    parser = Parser(
        program, ADVANCE.summary, details="For a store that was set back to an older state without `leasehold restore`."
    )
    parser.add_argument("--store", help=STORE_HELP)
    parser.add_argument(
        "--by",
        metavar="REVISIONS",
        type=count_from(1),
        default=ADVANCE_REVISIONS,
        help="How much to add to the revision.  [default: %(default)s]",
    )
    parser.check_options(words)
    return parser.parse_args(words, AdvanceArguments())


def run_advance(program: str, words: Sequence[str]) -> int:
    arguments = parse_advance(program, words)

    import asyncio

    from leasehold.engines import advance_store, shown_url

    target = _named_store(arguments.store)
    revision = asyncio.run(advance_store(target, by=arguments.by, now=_now()))
    sys.stdout.write(f"{shown_url(target)} is at revision {revision}, in a new incarnation\n")
    return 0


ADVANCE = Command("Raise the revision, so that none is issued twice.", run_advance)
