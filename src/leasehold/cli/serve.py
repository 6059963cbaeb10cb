"""`leasehold serve`: runs the service in one or several processes."""

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from leasehold.cli.arguments import Command, Parser
from leasehold.process.streams import print_now

if TYPE_CHECKING:
    from leasehold.server.config import Flag


class Arguments(Namespace):
    """Options that are not given are None."""

    host: str | None
    port: str | None
    store: str | None
    workers: str | None
    auth_secret_file: list[str] | None
    auth_public_key_file: list[str] | None
    insecure_open: bool | None
    allowed_origin: list[str] | None
    log_format: str | None
    log_level: str | None


def parse(program: str, words: Sequence[str]) -> Arguments:
    parser = Parser(
        program, SERVE.summary, details="Each option can also be set in the environment: LEASEHOLD_PORT=8081."
    )
    add = parser.add_argument
    add("--host", help="Address to listen on.  [default: 127.0.0.1]")
    add("--port", help="Port to listen on; 0 picks a free one.  [default: 8080]")
    add("--store", help="A file, memory:, postgresql://… or host=….  [default: data.json]")
    add("--workers", help="Processes that share the port; for a store that may be shared.  [default: 1]")
    add(
        "--auth-secret-file",
        metavar="FILE",
        action="append",
        help="File with the secret of HS256 tokens; may be repeated during a rotation.",
    )
    add(
        "--auth-public-key-file",
        metavar="FILE",
        action="append",
        help="PEM file with the public key of tokens; may be repeated.",
    )
    add("--insecure-open", action="store_true", default=None, help="Serve without tokens although not on loopback.")
    add(
        "--allowed-origin",
        metavar="ORIGIN",
        action="append",
        help="Origin whose pages may use the service, like https://app.example.com; may be repeated.",
    )
    add("--log-format", metavar="FORMAT", help="text or json.  [default: text]")
    add("--log-level", metavar="LEVEL", help="debug, info, warning or error.  [default: info]")
    parser.check_options(words)
    return parser.parse_args(words, Arguments())


def _flags(arguments: Arguments) -> Mapping[str, "Flag"]:
    """By the names of the settings."""
    flags: dict[str, Flag] = vars(arguments)
    origins = arguments.allowed_origin
    return {name: flag for name, flag in flags.items() if name != "allowed_origin"} | {
        "allowed_origins": None if origins is None else ",".join(origins)
    }


def run(program: str, words: Sequence[str]) -> int:
    arguments = parse(program, words)

    from leasehold.server.config import ignored_variables, load_settings

    settings = load_settings(os.environ, _flags(arguments))

    from leasehold.engines import shown_url
    from leasehold.server import run as server
    from leasehold.server import workers as supervisor
    from leasehold.server.log import configure_log, warn_of_ignored, warn_of_lost_ready_line

    configure_log(settings)
    warn_of_ignored(ignored_variables(os.environ))

    def ready(bound_host: str, bound_port: int) -> None:
        shown = f"[{bound_host}]" if ":" in bound_host else bound_host
        try:
            print_now(f"leasehold ready on http://{shown}:{bound_port} store {shown_url(settings.store)}")
        except OSError as error:
            warn_of_lost_ready_line(error)

    if settings.workers > 1:
        supervisor.run(settings, ready)
    else:
        server.run(settings, ready)
    return 0


SERVE = Command("Run the service.", run)
