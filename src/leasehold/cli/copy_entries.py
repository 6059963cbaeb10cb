"""`leasehold copy`: writes the entries of one service to another one, without a file in between."""

from collections.abc import Iterator, Mapping, Sequence

from leasehold.cli.arguments import Command, Parser
from leasehold.cli.connecting import (
    ConnectionArguments,
    WriteArguments,
    add_connection_options,
    add_lease_option,
    connected,
    failed,
    lease_of,
    namespace_of,
)
from leasehold.cli.exit_codes import FAILED, SUCCESS, CommandFailed, wrong_usage
from leasehold.cli.transfer.arguments import TransferArguments, add_prefix_option, add_read_options, add_write_options
from leasehold.process.streams import print_error


class Arguments(WriteArguments, TransferArguments):
    source: str
    target: str
    source_namespace: str | None
    target_namespace: str | None
    source_token_file: str | None
    target_token_file: str | None


def parse(program: str, words: Sequence[str]) -> Arguments:
    parser = Parser(
        program,
        COPY.summary,
        usage="[OPTIONS] SOURCE TARGET",
        details="The entries are of one moment; this needs a token that covers all keys, or --pages. If it was "
        "interrupted, run it again.",
    )
    add = parser.add_argument
    add("source", metavar="SOURCE", help="The URL of the service to read.")
    add("target", metavar="TARGET", help="The URL of the service to write.")
    add_prefix_option(parser)
    add_write_options(parser)
    add_read_options(parser)
    add("--source-namespace", metavar="NAME", help="The namespace to read.  [default: as --namespace]")
    add("--target-namespace", metavar="NAME", help="The namespace to write.  [default: as --namespace]")
    add("--source-token-file", metavar="FILE", help="File with the token for SOURCE.  [default: as --token-file]")
    add("--target-token-file", metavar="FILE", help="File with the token for TARGET.  [default: as --token-file]")
    add_lease_option(parser)
    add_connection_options(parser, has_url=False)
    parser.check_options(words)
    return parser.parse_args(words, Arguments())


def run(program: str, words: Sequence[str]) -> int:
    arguments = parse(program, words)
    source = _side(arguments, arguments.source, arguments.source_namespace, arguments.source_token_file)
    target = _side(arguments, arguments.target, arguments.target_namespace, arguments.target_token_file)
    is_same = (source.url, namespace_of(source)) == (target.url, namespace_of(target))
    if is_same and not any(old != new for old, new in arguments.prefix):
        raise wrong_usage("the source and the target are the same service and namespace")

    from leasehold.cli.progress_line import shown_by_thread
    from leasehold.cli.transfer.entry_lines import read_lines
    from leasehold.cli.transfer.exporting import Export
    from leasehold.cli.transfer.importing import Importer, WriteOptions
    from leasehold.cli.transfer.rejects import Rejects
    from leasehold.cli.transfer.summaries import summary

    lease = lease_of(arguments)
    headers = () if lease is None else (("If-Lease", lease),)
    options = WriteOptions((), arguments.if_absent, arguments.dry_run, headers)
    with connected(source) as from_db, connected(target) as to_db:
        export = Export(from_db, arguments.prefix)
        lines = export.in_pages() if arguments.pages else export.of_one_moment()
        importer = Importer(to_db.send, Rejects(program, "entry").add, options)

        def figures() -> Mapping[str, object]:
            return {"step": "copying", "done": f"{importer.read:,} entries"}

        with shown_by_thread(figures):
            importer.run(read_lines(_of_source(lines)))
    print_error(f"{program}: {summary(importer.counts, options, verb='copied', unit='entry')}; {export.moment()}")
    return FAILED if importer.counts.rejected else SUCCESS


def _side(arguments: Arguments, url: str, namespace: str | None, token_file: str | None) -> ConnectionArguments:
    return ConnectionArguments(
        url=url,
        namespace=arguments.namespace if namespace is None else namespace,
        token_file=token_file or arguments.token_file,
        retry=arguments.retry,
    )


def _of_source(lines: Iterator[bytes]) -> Iterator[bytes]:
    """The lines; an error while they are read says that it is one of the source."""
    from leasehold_client import LeaseholdError

    try:
        yield from lines
    except LeaseholdError as error:
        end = failed(error)
        raise CommandFailed(f"the source: {end.message}", end.exit_code) from error


COPY = Command("Write the entries of one service to another.", run)
