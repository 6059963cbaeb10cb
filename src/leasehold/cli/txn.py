"""`leasehold txn`: does several checks and operations, all or nothing."""

from collections.abc import Sequence

from leasehold.cli.arguments import Command, Parser
from leasehold.cli.changes import JSON_TYPE, KeyedArguments, add_keyed_options, fences_of
from leasehold.cli.connecting import add_connection_options, connected
from leasehold.cli.exit_codes import SUCCESS
from leasehold.cli.input import InputArguments, add_value_argument, read_input
from leasehold.cli.output import write_json


class Arguments(KeyedArguments, InputArguments):
    pass


def parse(program: str, words: Sequence[str]) -> Arguments:
    parser = Parser(
        program,
        TXN.summary,
        usage="[OPTIONS] TRANSACTION",
        details='The transaction is JSON: {"if": [CHECK, …], "do": [OPERATION, …]}.',
    )
    add_value_argument(parser, "The transaction", "TRANSACTION")
    add_keyed_options(parser)
    add_connection_options(parser)
    parser.check_options(words)
    return parser.parse_args(words, Arguments())


def run(program: str, words: Sequence[str]) -> int:
    arguments = parse(program, words)
    content = read_input(arguments)

    from leasehold_client import Request
    from leasehold_client.protocol.messages import target

    headers = [("Accept", JSON_TYPE), ("Content-Type", JSON_TYPE), *fences_of(arguments)]
    with connected(arguments) as db:
        response = db.send(Request("POST", target("/txn", [("base64", "")]), headers, content, is_change=True))
    write_json(response.content)
    return SUCCESS


TXN = Command("Do several checks and operations, all or nothing.", run)
