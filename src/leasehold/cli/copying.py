"""Backups as the command line makes them and puts them back: from any store, or from a running service, into any store.

The format is that of `engines.backups`. A file appears under its name once it is whole, checked and durable.
"""

import asyncio
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Final

import msgspec

from leasehold.engines import advance_store, moment_of, restore_store
from leasehold.engines.backups import Seal, backup_text, read_backup
from leasehold.engines.base import Moment
from leasehold.engines.file.disk import FILE_MODE, OsDisk
from leasehold.errors import ServiceError, unavailable
from leasehold.limits import MIB
from leasehold.model import ENTRY, LEASE

ANSWER_SECONDS: Final = 60.0
"""Without a byte from the service for so long, it is given up."""
Write = Callable[[bytes], object]


class Done(msgspec.Struct, frozen=True):
    """What `restore` did: the number of entries, the new head, and where what was there before is kept."""

    entries: int
    revision: int
    kept: Path | None
    leases_left_out: int


def back_up_store(url: str, output: Path | None) -> None:
    """Write a backup of a store to a file, or to standard output. Raises ServiceError."""

    async def chunks() -> AsyncGenerator[bytes]:
        async with aclosing(backup_text(await moment_of(url, now=_now()))) as text:
            async for chunk in text:
                yield chunk

    asyncio.run(_write(chunks(), output))


def back_up_service(url: str, token: str | None, output: Path | None) -> None:
    """Write a backup of what a running service has, as `back_up_store`."""
    asyncio.run(_write(_downloaded(url, token), output))


def restore(backup: Path, url: str, *, advance: int, replace: bool) -> Done:
    """Put a backup into a store, all of it or nothing. Raises ServiceError.

    The head becomes the larger of both plus `advance`. With `replace`, what the store holds is kept in a file first.
    """
    state = read_backup(OsDisk(), backup, _now())

    async def keep(moment: Moment) -> Path:
        numbered = (backup.with_name(f"{backup.name}.replaced-{number}") for number in range(1, sys.maxsize))
        kept = next(path for path in numbered if not path.exists())
        await _write(backup_text(moment), kept)
        return kept

    restored = asyncio.run(restore_store(url, state, advance=advance, keep=keep if replace else None, now=_now()))
    return Done(len(state.of(ENTRY).by_name), restored.revision, restored.kept, len(state.of(LEASE).by_name))


def advance(url: str, *, by: int) -> int:
    """Let the head of a store be greater by so much, in a new incarnation; the new head. Raises ServiceError."""
    return asyncio.run(advance_store(url, by=by, now=_now()))


def _now() -> int:
    return time.time_ns() // 1000


async def _write(chunks: AsyncGenerator[bytes], output: Path | None) -> None:
    seal = Seal()
    try:
        with _standard_output() if output is None else _new_file(output) as write:
            async with aclosing(chunks):
                async for chunk in chunks:
                    seal.take(chunk)
                    write(chunk)
            seal.check("the backup")
    except OSError as error:
        place = "standard output" if output is None else output
        raise unavailable(f"{place} cannot be written: {error.strerror or 'the disk failed'}") from error


@contextmanager
def _standard_output() -> Iterator[Write]:
    yield sys.stdout.buffer.write
    sys.stdout.buffer.flush()


@contextmanager
def _new_file(path: Path) -> Iterator[Write]:
    """A file that takes the name `path` at the end, durably, if nothing was raised."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file.write
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        OsDisk().sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


# From a running service ---------------------------------------------------------------------------------------


async def _downloaded(url: str, token: str | None) -> AsyncGenerator[bytes]:
    """The answer of `GET /backup`. Not by a proxy that the environment names: the service is often on loopback."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        request = urllib.request.Request(f"{url.rstrip('/')}/backup", headers=headers)  # noqa: S310 - checked below
        if request.type not in ("http", "https"):
            raise ServiceError("invalid_argument", "the URL of the service begins with http:// or https://")
        with opener.open(request, timeout=ANSWER_SECONDS) as answer:
            while data := answer.read(MIB):
                yield data
    except urllib.error.HTTPError as refusal:
        raise unavailable(f"the service answered {refusal.code}: {_message(refusal.read(64 * 1024))}") from refusal
    except ValueError as error:
        raise ServiceError("invalid_argument", f"{url} is no URL of a service") from error
    except (OSError, HTTPException) as error:
        raise unavailable(f"the service at {url} cannot be reached, or broke off: {error}") from error


def _message(body: bytes) -> str:
    try:
        answer = json.loads(body)
    except ValueError:
        return "no answer of Leasehold"
    return str(answer.get("message", "")) if isinstance(answer, dict) else "no answer of Leasehold"
