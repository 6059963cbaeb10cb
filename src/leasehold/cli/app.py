"""The command line: `leasehold serve`, `status`, `check`, `backup`, `restore`, `advance` and `token`.

Exit codes: 0 in good order, 1 for a fault, told in one line on standard error, 2 for wrong usage. Each command imports
what it needs when it runs: all that `serve` needs takes 0.2 s, and a health check runs every few seconds.
"""

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from leasehold import VERSION
from leasehold.errors import ServiceError, unavailable
from leasehold.process.signals import take_ends
from leasehold.process.streams import complain, hold_standard_streams, print_now, told_failures
from leasehold.server.config import Flag, Settings, ignored_variables, load_settings, parse_duration

ADVANCE_REVISIONS: Final = 1_000_000_000
"""What a restore adds to the revision: more than the store can have issued after the backup was made."""

app = typer.Typer(
    name="leasehold",
    help="JSON values under keys over HTTP, durable.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"leasehold {VERSION}")
        raise typer.Exit


@app.callback()
def leasehold(
    context: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001 - its callback acts
        bool, typer.Option("--version", callback=lambda wanted: _show_version(wanted=wanted), is_eager=True)
    ] = False,
) -> None:
    """JSON values under keys over HTTP, durable."""
    if context.invoked_subcommand != serve.__name__:  # which takes them itself
        take_ends()


@app.command()
def serve(
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one.  [default: 8080]")] = None,
    store: Annotated[
        str | None, typer.Option(help="A file, memory:, postgresql://… or host=….  [default: data.json]")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that share the port; for a store that may be shared.  [default: 1]")
    ] = None,
    auth_secret_file: Annotated[
        list[str] | None, typer.Option(help="File with the secret of HS256 tokens; may be repeated during a rotation.")
    ] = None,
    auth_public_key_file: Annotated[
        list[str] | None, typer.Option(help="PEM file with the public key of tokens; may be repeated.")
    ] = None,
    insecure_open: Annotated[
        bool | None, typer.Option("--insecure-open", help="Serve without tokens although not on loopback.")
    ] = None,
    allowed_origin: Annotated[
        list[str] | None,
        typer.Option(help="Origin whose pages may use the service, like https://app.example.com; may be repeated."),
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json.  [default: text]")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.  [default: info]")] = None,
) -> None:
    """Run the service. Every option may also stand in the environment: LEASEHOLD_PORT=8081."""
    flags: dict[str, Flag] = {
        "host": host,
        "port": port,
        "store": store,
        "workers": workers,
        "insecure_open": insecure_open,
    }
    flags |= {"auth_secret_file": auth_secret_file, "auth_public_key_file": auth_public_key_file}
    flags |= {"allowed_origins": ",".join(allowed_origin) if allowed_origin else None}
    flags |= {"log_format": log_format, "log_level": log_level}
    try:
        settings = load_settings(os.environ, flags)
    except ServiceError as error:
        _fail(error, code=2)

    from leasehold.engines import shown_url
    from leasehold.server import run as server
    from leasehold.server import workers as supervisor

    server.configure_log(settings)
    server.warn_of_ignored(ignored_variables(os.environ))

    def ready(bound_host: str, bound_port: int) -> None:
        shown = f"[{bound_host}]" if ":" in bound_host else bound_host
        try:
            print_now(f"leasehold ready on http://{shown}:{bound_port} store {shown_url(settings.store)}")
        except OSError as error:
            server.warn_of_silence(error)

    try:
        if settings.workers > 1:
            supervisor.run(settings, ready)
        else:
            server.run(settings, ready)
    except ServiceError as error:
        _fail(error, code=2 if error.code == "invalid_argument" else 1)


@app.command()
def status(
    *,
    host: Annotated[str | None, typer.Option(help="Address that the service listens on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port that it listens on.")] = None,
    url: Annotated[str | None, typer.Option(help="Another service, like https://db.example.com.")] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Whether the process answers, even if writes cannot be made durable.")
    ] = False,
    timeout: Annotated[str, typer.Option(help="How long to wait for the answer.")] = "5s",
) -> None:
    """Ask a running service how it is: one line, and exit 0 if it is ready.

    Without options it is the service with these settings on this machine; proxies in the environment do not count.
    """
    from leasehold.cli.asking import ask, own_url

    try:
        timeout_seconds = parse_duration(timeout)
        if url is None:
            # By a name that it always answers to.
            settings = load_settings(os.environ, {"host": host, "port": port})
            is_well, line = ask(own_url(settings), live=live, timeout_seconds=timeout_seconds, host="localhost")
        else:
            is_well, line = ask(url, live=live, timeout_seconds=timeout_seconds)
    except ServiceError as error:
        _fail(error, code=2 if error.code == "invalid_argument" else 1)
    typer.echo(line)
    raise typer.Exit(0 if is_well else 1)


@app.command()
def check(path: Annotated[Path, typer.Argument(help="The store's file, data.json.")]) -> None:
    """Verify a store's files without changing them. Not while a service uses them."""
    from leasehold.engines import inspect_file

    try:
        report = inspect_file(path)
    except ServiceError as error:
        _fail(error, code=1)
    if not report.revision and not path.exists():
        _fail(unavailable(f"there is no store at {path}"), code=1)
    torn = f", a torn tail of {report.torn_bytes} bytes" if report.torn_bytes else ""
    journal = f", {report.journal_records} records in the journal{torn}"
    foreign = ", written by another tool" if report.foreign else ""
    first, *others = report.counts.items()
    counts = ", ".join(f"{count} {plural}" for plural, count in [first, *(each for each in others if each[1])])
    typer.echo(f"{path} is good: {counts}, revision {report.revision}{journal}{foreign}")


_STORE_HELP = "A file or postgresql://….  [default: data.json]"


@app.command()
def backup(
    output: Annotated[str, typer.Argument(help="The file to write, or - for standard output.")],
    *,
    store: Annotated[str | None, typer.Option(help=_STORE_HELP)] = None,
    url: Annotated[str | None, typer.Option(help="In place of a store, a service: http://localhost:8080.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="For --url: file with a token that may read all.")] = None,
) -> None:
    """Write all entries of one moment to a file: of a store, whether a service uses it or not, or of a service."""
    from leasehold.cli.copying import back_up_service, back_up_store

    path = None if output == "-" else Path(output)
    try:
        if url is None:
            back_up_store(_named_store(store), path)
        else:
            back_up_service(url, None if token_file is None else _token_in(token_file), path)
    except ServiceError as error:
        _fail(error, code=2 if error.code == "invalid_argument" else 1)


@app.command()
def restore(
    backup: Annotated[Path, typer.Argument(help="What `leasehold backup` wrote, or a copy of a data.json.")],
    *,
    store: Annotated[str | None, typer.Option(help=_STORE_HELP)] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of what the store holds, which is kept in a file.")
    ] = False,
    advance: Annotated[
        int, typer.Option(min=0, help="By how much the revision is to be greater than the backup's; 0 for a move.")
    ] = ADVANCE_REVISIONS,
) -> None:
    """Put a backup into a store that is empty, all of it or nothing. No service may use a file meanwhile."""
    from leasehold.cli.copying import restore as put_back
    from leasehold.engines import shown_url

    try:
        target = _named_store(store)
        done = put_back(backup, target, advance=advance, replace=replace)
    except ServiceError as error:
        _fail(error, code=2 if error.code == "invalid_argument" else 1)
    leases = f", without its {done.leases_left_out} leases" if done.leases_left_out else ""
    typer.echo(f"{shown_url(target)} holds {done.entries} entries of {backup}{leases}, at revision {done.revision}")
    if done.kept is not None:
        typer.echo(f"what it held before is in {done.kept}")


@app.command()
def advance(
    *,
    store: Annotated[str | None, typer.Option(help=_STORE_HELP)] = None,
    by: Annotated[int, typer.Option(min=1, help="How much greater the revision is to be.")] = ADVANCE_REVISIONS,
) -> None:
    """After a store was put back to an older state by other means: let no revision or token be issued twice."""
    from leasehold.cli.copying import advance as advance_head
    from leasehold.engines import shown_url

    try:
        target = _named_store(store)
        revision = advance_head(target, by=by)
    except ServiceError as error:
        _fail(error, code=2 if error.code == "invalid_argument" else 1)
    typer.echo(f"{shown_url(target)} is at revision {revision}, in a new incarnation")


def _named_store(store: str | None) -> str:
    return load_settings(os.environ, {"store": store}).store


def _token_in(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as error:
        raise unavailable(f"the token in {path} cannot be read") from error


@app.command()
def token(
    *,
    auth_secret_file: Annotated[
        list[str] | None, typer.Option(help="File with the secret, 32 bytes or more. Of several, the first signs.")
    ] = None,
    subject: Annotated[str, typer.Option(help="Who the token is for.")],
    permission: Annotated[list[str], typer.Option(help="read, write or admin; may be repeated.")],
    prefix: Annotated[
        list[str] | None, typer.Option(help="Only keys and locks that begin with it; may be repeated.")
    ] = None,
    expires: Annotated[str, typer.Option(help="How long it is good: 30s, 15m, 1h, 7d.")] = "1h",
    issuer: Annotated[str | None, typer.Option(help="The claim iss.")] = None,
    audience: Annotated[str | None, typer.Option(help="The claim aud.")] = None,
) -> None:
    """Make a bearer token and print it.

    The secret, the issuer and the audience may stand in the environment, as for the service.
    """
    from leasehold.access.token_minting import mint_token

    try:
        settings = load_settings(os.environ, {"auth_secret_file": auth_secret_file})
        made = mint_token(
            _signing_secret(settings),
            subject,
            permission,
            prefixes=prefix or None,
            now=time.time(),
            lifetime_seconds=parse_duration(expires),
            issuer=issuer or settings.auth_issuer,
            audience=audience or settings.auth_audience,
        )
    except ServiceError as error:
        _fail(error, code=2 if error.code == "invalid_argument" else 1)
    typer.echo(made)


def _signing_secret(settings: Settings) -> bytes:
    """Of several secrets the first, while the others are still taken."""
    from leasehold.access.token_keys import load_secret

    if not settings.auth_secret_file:
        raise ServiceError("invalid_argument", "give --auth-secret-file, or LEASEHOLD_AUTH_SECRET_FILE")
    return load_secret(Path(settings.auth_secret_file[0]))


def _fail(error: ServiceError, *, code: int) -> NoReturn:
    complain(f"leasehold: {error.message}")
    raise typer.Exit(code)


def main() -> None:
    _run(app, "leasehold")


def token_main() -> None:
    """The command `jwt-generator`: `leasehold token` by the name under which some look for it."""
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    alone.command()(token)
    _run(alone, "jwt-generator")


def _run(commands: typer.Typer, name: str) -> None:
    hold_standard_streams()
    try:
        with told_failures():
            commands(prog_name=name)
    except ServiceError as error:
        complain(f"{name}: {error.message}")
        sys.exit(1)
