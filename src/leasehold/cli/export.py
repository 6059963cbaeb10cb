"""`leasehold export`: writes the entries of a service as lines of JSON. See `transfer/entry_lines.py`."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext

from leasehold.cli.arguments import Command, Parser
from leasehold.cli.connecting import ConnectionArguments, add_connection_options, connected
from leasehold.cli.exit_codes import SUCCESS
from leasehold.cli.transfer.arguments import TransferArguments, add_prefix_option, add_read_options
from leasehold.process.streams import print_error


class Arguments(ConnectionArguments, TransferArguments):
    file: str | None


def parse(program: str, words: Sequence[str]) -> Arguments:
    parser = Parser(
        program,
        EXPORT.summary,
        usage="[OPTIONS] [FILE]",
        details="The entries are of one moment; this needs a token that covers all keys, or --pages.",
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help="The file to write.  [default: standard output]")
    add_prefix_option(parser)
    add_read_options(parser)
    add_connection_options(parser)
    parser.check_options(words)
    return parser.parse_args(words, Arguments())


def run(program: str, words: Sequence[str]) -> int:
    arguments = parse(program, words)

    from pathlib import Path

    from leasehold.cli.output_files import written
    from leasehold.cli.progress_line import shown_by_thread
    from leasehold.cli.transfer.exporting import Export
    from leasehold.cli.transfer.summaries import counted

    output = None if arguments.file in (None, "-") else Path(str(arguments.file))
    count = 0

    def figures() -> Mapping[str, object]:
        return {"step": "exporting", "done": f"{count:,} entries"}

    # Lines and figures would be mixed on one terminal.
    is_mixed = output is None and sys.stdout.isatty()
    with connected(arguments) as db, nullcontext() if is_mixed else shown_by_thread(figures), written(output) as write:
        export = Export(db, arguments.prefix)
        lines: Iterator[bytes] = export.in_pages() if arguments.pages else export.of_one_moment()
        for line in lines:
            write(b"%b\n" % line)
            count += 1
    print_error(f"{program}: {counted(count, 'entry')} exported; {export.moment()}")
    return SUCCESS


EXPORT = Command("Write entries to a file, as lines of JSON.", run)
