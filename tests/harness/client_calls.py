"""The clients do one script of calls while their connections are cut at any byte of a request or of a response.

These are both Python clients and the TypeScript client. The script is lines of JSON, which all of them read, and so are
the results. `clients/typescript/tests/calls.ts` reads the script for the TypeScript client.

The same script runs once without cuts. All results must be equal, revisions and fencing tokens included: each change
takes one revision, so a change that is done twice, or not at all, shifts the revisions of all that follow. At the end,
all entries must be equal.
"""

import asyncio
import contextlib
import json
import logging
import random
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import typescript
from leasehold_client import AsyncClient, Client, Deletion, Entry, LeaseholdError, ServiceError
from leasehold_client.protocol import retrying
from leasehold_client.protocol.messages import Request
from proxy import cutting, proxy_on_a_thread
from running import running

from harness import Finding

REQUEST_BYTES: Final = 4_000
RESPONSE_BYTES: Final = 4_000
"""A connection is cut before so many bytes have passed."""
RETRY_SECONDS: Final = 120.0
FIRST_PAUSE_SECONDS: Final = 0.001
"""Of the clients here, instead of 0.05: otherwise they pause nearly all the time."""
BUGS: Final = ("changes without keys", "no retries")

# Each retry is a warning, and there are thousands of them.
logging.getLogger("leasehold_client").addHandler(logging.NullHandler())


VALUES: Final[Sequence[Any]] = (
    None,
    True,
    -0.0,
    1.5,
    1e300,
    2**53 - 1,
    2**53,
    2**64 - 1,
    -(2**63),
    "",
    "ä\U0001f600\u2028",
    [],
    {"": [1]},
)


def call(method: str, *arguments: Any, **options: Any) -> str:
    """A line of the script: a method of the clients; `put_bytes`, `transaction` and `lock` stand for more than one."""
    return json.dumps({"method": method, "arguments": arguments, "options": options})


def script(rng: random.Random, calls: int) -> Iterator[str]:
    yield call("put", "list", [])
    for number in range(calls):
        key = f"entries/{rng.randrange(12)}"
        choices = (
            call("put", key, {"n": number}),
            call("put", key, rng.choice(VALUES)),
            call("put", key, number, if_absent=True),
            call("put", key, number, if_match=rng.randrange(1, number + 2)),
            call("put", "list", number, path="/-"),
            call("put_bytes", f"{key}/bytes", b64encode(bytes([number % 256])).decode(), "image/png"),
            call("increment", "count", rng.randint(-5, 5)),
            call("merge", key, {"m": number}),
            call("patch", key, [{"op": "add", "path": "/p", "value": number}]),
            call("delete", key),
            call("transaction", key, number),
            call("lock", f"lock/{key}", number),
            call("get", key),
            call("get_many", [key, "count", f"{key}/bytes"]),
            call("list", "entries/", page_entries=5),
            call("count", "entries/"),
        )
        yield rng.choice(choices)
    yield call("delete_prefix", "entries/1")
    # A page with all entries would be so long that nearly every connection is cut before its end.
    yield call("list", page_entries=5)


def shown(result: object) -> str:
    """A result as it must be in every run, as a line of JSON. Times and ETags differ between runs."""
    return json.dumps(result, default=_shown_record)


def _shown_record(record: object) -> object:
    match record:
        case Entry():
            return record.key, record.value, record.revision, record.path, record.media
        case Deletion():
            return record.key, record.revision
        case ServiceError():
            return record.code
        case LeaseholdError():
            return type(record).__name__
        case bytes():
            return {"base64": b64encode(record).decode()}
    raise TypeError(f"a result cannot be shown: {record!r}")


def run_calls(url: str, calls: Sequence[str], retry_seconds: float) -> list[str]:
    with Client(url, retry_seconds=retry_seconds) as db:
        return [_result(db, **json.loads(line)) for line in calls]


def _result(db: Client, method: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> str:
    try:
        match method, arguments:
            case "transaction", [key, number]:
                with db.transaction() as transaction:
                    transaction.increment("sum", number)
                    transaction.put(key, number)
                return shown((transaction.revision, transaction.results))
            case "lock", [name, number]:
                with db.lock(name, ttl=600, wait=0) as lease:
                    return shown((lease.token, lease.put("fenced", number)))
            case "put_bytes", [key, base64, media]:
                return shown(db.put(key, b64decode(base64), media=media))
            case "get", [key]:
                return shown(db.get(key, default=None))
            case "list", _:
                return shown(list(db.list(*arguments, **options)))
        return shown(getattr(db, method)(*arguments, **options))
    except LeaseholdError as error:
        return shown(error)


async def run_calls_as_tasks(url: str, calls: Sequence[str], retry_seconds: float) -> list[str]:
    async with AsyncClient(url, retry_seconds=retry_seconds) as db:
        return [await _async_result(db, **json.loads(line)) for line in calls]


async def _async_result(db: AsyncClient, method: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> str:
    try:
        match method, arguments:
            case "transaction", [key, number]:
                async with db.transaction() as transaction:
                    transaction.increment("sum", number)
                    transaction.put(key, number)
                return shown((transaction.revision, transaction.results))
            case "lock", [name, number]:
                async with db.lock(name, ttl=600, wait=0) as lease:
                    return shown((lease.token, await lease.put("fenced", number)))
            case "put_bytes", [key, base64, media]:
                return shown(await db.put(key, b64decode(base64), media=media))
            case "get", [key]:
                return shown(await db.get(key, default=None))
            case "list", _:
                return shown([entry async for entry in db.list(*arguments, **options)])
        return shown(await getattr(db, method)(*arguments, **options))
    except LeaseholdError as error:
        return shown(error)


def run_calls_in_node(url: str, calls: Sequence[str], retry_seconds: float, bug: str | None = None) -> list[str]:
    command = typescript.command("calls.js", url, str(retry_seconds), *([] if bug is None else [bug]))
    done = subprocess.run(command, input="\n".join(calls), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.dumps(json.loads(line)) for line in done.stdout.removesuffix("\n").split("\n")]


PYTHON_CLIENTS: Final = ("Client", "AsyncClient")
TYPESCRIPT_CLIENT: Final = "TypeScript"


def agree_in_spite_of_cuts(
    folder: Path, seed: int, *, calls: int, clients: Sequence[str] = PYTHON_CLIENTS, bug: str | None = None
) -> Finding:
    """`calls`: of each client. Figures: `calls`, and the `cuts` of connections."""
    finding = Finding()
    made = list(script(random.Random(seed), calls))
    with running() as server:
        expected = run_calls(server.url, made, RETRY_SECONDS)
    runs: dict[str, Callable[[str, Sequence[str], float], list[str]]] = {
        "Client": run_calls,
        "AsyncClient": lambda url, script, seconds: asyncio.run(run_calls_as_tasks(url, script, seconds)),
        TYPESCRIPT_CLIENT: lambda url, script, seconds: run_calls_in_node(url, script, seconds, bug),
    }
    for name in clients:
        rng = random.Random(f"{seed} {name}")
        with running(folder / f"{name}.json") as server, proxy_on_a_thread(server.address[1]) as proxy, _planted(bug):
            proxy.new_connection = cutting(rng, REQUEST_BYTES, RESPONSE_BYTES)
            seconds = 0.0 if bug == "no retries" else RETRY_SECONDS
            with patch.object(retrying, "FIRST_PAUSE_SECONDS", FIRST_PAUSE_SECONDS):
                results = runs[name](f"http://127.0.0.1:{proxy.port}", made, seconds)
            finding.figures["cuts"] += proxy.cuts
        finding.figures["calls"] += len(made)
        for line, result, wanted in zip(made, results, expected, strict=True):
            if result != wanted:
                finding.violations.append(f"seed {seed}, {name}: {line} gave {result}, and {wanted} without cuts")
                break
    return finding


def _planted(bug: str | None) -> contextlib.AbstractContextManager[object]:
    if bug != "changes without keys":
        return contextlib.nullcontext()
    return patch.object(Request, "with_idempotency_key", lambda request, _: request)
