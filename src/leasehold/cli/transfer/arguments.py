"""The options that `export`, `import` and `copy` share."""

from argparse import Namespace

from leasehold.cli.arguments import Parser
from leasehold.cli.transfer.prefixes import Prefix, parse_prefix


class TransferArguments(Namespace):
    """Not each command has all of these options."""

    prefix: list[Prefix]
    pages: bool
    if_absent: bool
    dry_run: bool


def add_prefix_option(parser: Parser) -> None:
    parser.add_argument(
        "--prefix",
        metavar="OLD[=NEW]",
        type=parse_prefix,
        action="append",
        default=[],
        help="Only keys that begin with OLD, which becomes NEW; may be repeated.",
    )


def add_read_options(parser: Parser) -> None:
    parser.add_argument(
        "--pages",
        action="store_true",
        help="Read lists in pages, which need not be of one moment, in place of a backup.",
    )


def add_write_options(parser: Parser) -> None:
    parser.add_argument("--if-absent", action="store_true", help="Leave entries that exist as they are.")
    parser.add_argument("--dry-run", action="store_true", help="Check everything, and write nothing.")
