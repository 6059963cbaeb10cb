"""Runs commands that talk to a service, as a user would."""

from collections.abc import Mapping
from dataclasses import dataclass

from running import run_to_end


@dataclass(frozen=True)
class Ended:
    """How a command has ended."""

    code: int
    output: bytes
    errors: str

    @property
    def text(self) -> str:
        return self.output.decode()


def run(
    *arguments: str, url: str | None = None, stdin: bytes = b"", environment: Mapping[str, str] | None = None
) -> Ended:
    """Run `leasehold` to its end, with the URL in the environment."""
    variables = {} if url is None else {"LEASEHOLD_URL": url}
    done = run_to_end(*arguments, stdin=stdin, environment=variables | dict(environment or {}))
    return Ended(done.returncode, done.stdout, done.stderr.decode())


def printed(*arguments: str, url: str, stdin: bytes = b"", environment: Mapping[str, str] | None = None) -> str:
    """What a command prints that succeeds without a word on standard error."""
    ended = run(*arguments, url=url, stdin=stdin, environment=environment)
    assert (ended.code, ended.errors) == (0, ""), (arguments, ended)
    return ended.text
