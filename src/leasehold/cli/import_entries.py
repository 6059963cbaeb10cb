"""`leasehold import`: writes the entries of a file to a service. `transfer/formats.py` reads the formats."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, BinaryIO, Final

from leasehold.cli.arguments import Command, Parser, count_from
from leasehold.cli.connecting import WriteArguments, add_connection_options, add_lease_option, connected, lease_of
from leasehold.cli.exit_codes import FAILED, SUCCESS, CommandFailed, wrong_usage
from leasehold.cli.input import STANDARD_INPUT
from leasehold.cli.transfer.arguments import TransferArguments, add_prefix_option, add_write_options
from leasehold.cli.transfer.choices import FORMATS, VALUE_KINDS, FormatName, ValueKind
from leasehold.process.streams import print_error

if TYPE_CHECKING:
    from leasehold.cli.transfer.formats import Reading
    from leasehold.cli.transfer.importing import Importer

MB: Final = 1_000_000


class Arguments(WriteArguments, TransferArguments):
    file: str | None
    format_name: FormatName | None
    values: ValueKind
    flags: bool
    without_leased: bool
    skip: int
    rejected: str | None


def parse(program: str, words: Sequence[str]) -> Arguments:
    parser = Parser(
        program,
        IMPORT.summary,
        usage="[OPTIONS] [FILE]",
        details="It reads what `leasehold export`, `leasehold backup`, `consul kv export` and `etcdctl get --prefix "
        '"" -w json` write. If it was interrupted, run it again.',
    )
    add = parser.add_argument
    add("file", metavar="FILE", nargs="?", help="The file to read.  [default: standard input]")
    add_prefix_option(parser)
    add_write_options(parser)
    add("--skip", metavar="N", type=count_from(0), default=0, help="Leave out the first N lines.")
    add("--rejected", metavar="FILE", help="A new file for the lines that cannot be imported.")
    add(
        "--from",
        dest="format_name",
        metavar="FORMAT",
        choices=FORMATS,
        help=f"{', '.join(FORMATS)}.  [default: by the first line]",
    )
    add(
        "--values",
        metavar="KIND",
        choices=VALUE_KINDS,
        default="auto",
        help="Of consul and etcd: store each value as json, text or bytes, or as what fits best (auto).  "
        "[default: auto]",
    )
    add("--flags", action="store_true", help='Of consul: store {"flags": …, "value": …}.')
    add("--without-leased", action="store_true", help="Of etcd: leave out entries that have a lease.")
    add_lease_option(parser)
    add_connection_options(parser)
    parser.check_options(words)
    return parser.parse_args(words, Arguments())


def run(program: str, words: Sequence[str]) -> int:
    arguments = parse(program, words)

    from leasehold.cli.progress_line import shown_by_thread
    from leasehold.cli.transfer.formats import Options, read
    from leasehold.cli.transfer.importing import Importer, WriteOptions
    from leasehold.cli.transfer.rejects import Rejects
    from leasehold.cli.transfer.summaries import summary

    lease = lease_of(arguments)
    headers = () if lease is None else (("If-Lease", lease),)
    options = WriteOptions(arguments.prefix, arguments.if_absent, arguments.dry_run, headers)
    reading_options = Options(arguments.values, keeps_flags=arguments.flags, takes_leased=not arguments.without_leased)
    with _opened(arguments.file) as (file, name):
        reading = read(file, name, arguments.format_name, reading_options)
        rejects = Rejects(program, reading.unit)
        with rejects.kept_in(arguments.rejected, reading.format_name), connected(arguments) as db:
            importer = Importer(db.send, rejects.add, options)
            with shown_by_thread(_figures(importer, file)), _place_in_errors(importer, reading):
                importer.run(item for item in reading.items if item.place > arguments.skip)
    print_error(f"{program}: {summary(importer.counts, options, verb='imported', unit=reading.unit)}")
    return FAILED if importer.counts.rejected else SUCCESS


@contextmanager
def _opened(path: str | None) -> Iterator[tuple[BinaryIO, str]]:
    """A file, or standard input, and its name. Raises CommandFailed also if it cannot be read in the block."""
    name = "standard input" if path is None or path == STANDARD_INPUT else path
    if name != path and (sys.stdin is None or (path is None and sys.stdin.isatty())):
        raise wrong_usage("give a file, or - for standard input")
    try:
        with nullcontext(sys.stdin.buffer) if name != path else open(name, "rb") as file:  # noqa: PTH123 - pathlib takes long to import
            yield file, name
    except OSError as error:
        raise CommandFailed(f"{name} cannot be read: {error.strerror}") from error


def _figures(importer: "Importer", file: BinaryIO) -> Callable[[], Mapping[str, object]]:
    """What the line on the terminal shows. How much is left is known of a file only, not of a pipe."""
    size = os.fstat(file.fileno()).st_size

    def figures() -> Mapping[str, object]:
        done = {"step": "importing", "done": f"{importer.read:,} entries"}
        return done if size == 0 else done | {"left": f"{max(size - importer.read_bytes, 0) // MB:,} MB"}

    return figures


@contextmanager
def _place_in_errors(importer: "Importer", reading: "Reading") -> Iterator[None]:
    """If the import ends early, say from where on it can be continued."""
    from leasehold_client import LeaseholdError

    from leasehold.cli.connecting import failed

    try:
        yield
    except LeaseholdError as error:
        end = failed(error)
        done = importer.first_open - 1
        hint = f"; {reading.unit} {done} and all before are done, --skip {done} continues there" if done else ""
        raise CommandFailed(f"{end.message}{hint}", end.exit_code) from error


IMPORT = Command("Write the entries of a file, also of one from Consul or etcd.", run)
