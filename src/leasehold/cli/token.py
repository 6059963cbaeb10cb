"""`leasehold token`, also installed as `jwt-generator`: makes a bearer token and prints it."""

import os
import sys
import time
from argparse import Namespace
from collections.abc import Sequence

from leasehold.cli.arguments import Command, Parser
from leasehold.errors import ServiceError


class Arguments(Namespace):
    auth_secret_file: list[str] | None
    subject: str
    permission: list[str]
    prefix: list[str] | None
    namespace: list[str] | None
    expires: str
    issuer: str | None
    audience: str | None


def parse(program: str, words: Sequence[str]) -> Arguments:
    parser = Parser(
        program,
        TOKEN.summary,
        usage="[OPTIONS] --subject TEXT --permission NAME",
        details="The secret, the issuer and the audience can be set in the environment, as for the service.",
    )
    add = parser.add_argument
    add(
        "--auth-secret-file",
        metavar="FILE",
        action="append",
        help="File with the secret, 32 bytes or more. Of several, the first signs.",
    )
    add("--subject", metavar="TEXT", required=True, help="Who the token is for.  [required]")
    add(
        "--permission",
        metavar="NAME",
        action="append",
        required=True,
        help="read, write or admin; may be repeated.  [required]",
    )
    add("--prefix", action="append", help="Only keys and locks that begin with it; may be repeated.")
    add(
        "--namespace",
        metavar="NAME",
        action="append",
        help="Only this namespace, or '*' for all; may be repeated.  [default: default]",
    )
    add(
        "--expires",
        metavar="DURATION",
        default="1h",
        help="How long the token is valid: 30s, 15m, 1h, 7d.  [default: %(default)s]",
    )
    add("--issuer", metavar="TEXT", help="The claim iss.")
    add("--audience", metavar="TEXT", help="The claim aud.")
    parser.check_options(words)
    return parser.parse_args(words, Arguments())


def make(arguments: Arguments) -> str:
    """The token. Raises ServiceError."""
    from pathlib import Path

    from leasehold.access.token_minting import mint_token
    from leasehold.access.token_secret import load_secret
    from leasehold.server.config import load_settings, parse_duration

    settings = load_settings(os.environ, {"auth_secret_file": arguments.auth_secret_file})
    if not settings.auth_secret_file:
        raise ServiceError("invalid_argument", "give --auth-secret-file, or LEASEHOLD_AUTH_SECRET_FILE")
    return mint_token(
        load_secret(Path(settings.auth_secret_file[0])),
        arguments.subject,
        arguments.permission,
        prefixes=arguments.prefix,
        now=time.time(),
        lifetime_seconds=parse_duration(arguments.expires),
        issuer=arguments.issuer or settings.auth_issuer,
        audience=arguments.audience or settings.auth_audience,
        namespaces=arguments.namespace,
    )


def run(program: str, words: Sequence[str]) -> int:
    sys.stdout.write(f"{make(parse(program, words))}\n")
    return 0


TOKEN = Command("Make a bearer token and print it.", run)
