"""`leasehold list`: prints entries, keys, or how many there are."""

import sys
from collections.abc import Iterator, Sequence

from leasehold.cli.arguments import Command, Parser, count_from
from leasehold.cli.connecting import ConnectionArguments, add_connection_options, connected
from leasehold.cli.exit_codes import SUCCESS, wrong_usage
from leasehold.cli.options import RAW, TABLE, OutputArguments, Pair, add_output_option, add_path_option


class Arguments(ConnectionArguments, OutputArguments):
    prefix: str
    keys: bool
    count: bool
    values: bool
    path: str | None
    after: str | None
    reverse: bool
    limit: int | None


def parse(program: str, words: Sequence[str]) -> Arguments:
    parser = Parser(
        program,
        LIST.summary,
        usage="[OPTIONS] [PREFIX]",
        details="json prints each entry on a line, and raw only its value.",
    )
    add = parser.add_argument
    add("prefix", metavar="PREFIX", nargs="?", default="", help="Only keys that begin with it.")
    add_output_option(parser, TABLE)
    add("--keys", action="store_true", help="Print only the keys, each on a line.")
    add("--count", action="store_true", help="Print only how many entries there are.")
    add("--no-values", dest="values", action="store_false", help="Leave the values out.")
    add_path_option(parser, "Only this part of each value, a JSON Pointer, and only entries that have it.")
    add("--after", metavar="KEY", help="Only keys greater than this one, or less with --reverse.")
    add("--reverse", action="store_true", help="In descending order.")
    add("--limit", metavar="COUNT", type=count_from(1), help="At most so many.")
    add_connection_options(parser)
    parser.check_options(words)
    return parser.parse_intermixed_args(words, Arguments())


def run(program: str, words: Sequence[str]) -> int:
    arguments = parse(program, words)
    if arguments.keys and arguments.count:
        raise wrong_usage("--keys and --count cannot be combined")
    if arguments.output == RAW and not (arguments.values or arguments.keys):
        raise wrong_usage("-o raw prints values: --no-values cannot be combined with it")

    from leasehold.cli.pages import count, pages
    from leasehold.cli.shown_entries import EntryPrinter, print_keys

    parameters = [*_parameters(arguments)]
    with connected(arguments) as db:
        if arguments.count:
            sys.stdout.write(f"{count(db, parameters, after=arguments.after, limit=arguments.limit)}\n")
            return SUCCESS
        add = print_keys if arguments.keys else EntryPrinter(arguments.output).add
        for page in pages(db, "/kv", parameters, after=arguments.after, limit=arguments.limit):
            add(page)
    return SUCCESS


def _parameters(arguments: Arguments) -> Iterator[Pair]:
    if arguments.prefix:
        yield "prefix", arguments.prefix
    if arguments.reverse:
        yield "reverse", ""
    if arguments.path is not None:
        yield "path", arguments.path
    if arguments.count:
        return
    if arguments.keys or not arguments.values:
        yield "values", "false"
    elif arguments.path is None:
        yield "base64", ""


LIST = Command("Print entries, keys, or how many there are.", run)
