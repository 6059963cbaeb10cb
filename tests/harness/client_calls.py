"""Both Python clients do one script of calls while their connections are cut at any byte of a request or of a response.

The same script runs once without cuts. All results must be equal, revisions and fencing tokens included: each change
takes one revision, so a change that is done twice, or not at all, shifts the revisions of all that follow. At the end,
all entries must be equal.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

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


@dataclass(frozen=True)
class Call:
    """A method of both clients; `transaction` and `lock` stand for a block of one."""

    method: str
    arguments: Sequence[Any] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


def script(rng: random.Random, calls: int) -> Iterator[Call]:
    yield Call("put", ("list", []))
    for number in range(calls):
        key = f"entries/{rng.randrange(12)}"
        choices = (
            Call("put", (key, {"n": number})),
            Call("put", (key, number), {"if_absent": True}),
            Call("put", (key, number), {"if_match": rng.randrange(1, number + 2)}),
            Call("put", ("list", number), {"path": "/-"}),
            Call("put", (f"{key}/bytes", bytes([number % 256])), {"media": "image/png"}),
            Call("increment", ("count",), {"by": rng.randint(-5, 5)}),
            Call("merge", (key, {"m": number})),
            Call("patch", (key, [{"op": "add", "path": "/p", "value": number}])),
            Call("delete", (key,)),
            Call("transaction", (key, number)),
            Call("lock", (f"lock/{key}", number)),
            Call("get", (key,), {"default": None}),
            Call("get_many", ([key, "count", f"{key}/bytes"],)),
            Call("list", ("entries/",), {"page_entries": 5}),
            Call("count", ("entries/",)),
        )
        yield rng.choice(choices)
    yield Call("delete_prefix", ("entries/1",))
    # A page with all entries would be so long that nearly every connection is cut before its end.
    yield Call("list", (), {"page_entries": 5})


def shown(result: object) -> object:
    """A result as it must be in every run. Times and ETags differ between runs."""
    match result:
        case Entry():
            return result.key, repr(result.value), result.revision, result.path, result.media
        case Deletion():
            return result.key, result.revision
        case list() | tuple():
            return [shown(each) for each in result]
        case ServiceError():
            return result.code
        case LeaseholdError():
            return type(result).__name__
    return result


def run_calls(url: str, calls: Sequence[Call], retry_seconds: float) -> list[object]:
    with Client(url, retry_seconds=retry_seconds) as db:
        return [_result(db, call) for call in calls]


def _result(db: Client, call: Call) -> object:
    try:
        match call.method, call.arguments:
            case "transaction", [key, number]:
                with db.transaction() as transaction:
                    transaction.increment("sum", number)
                    transaction.put(key, number)
                return shown((transaction.revision, transaction.results))
            case "lock", [name, number]:
                with db.lock(name, ttl=600, wait=0) as lease:
                    return shown((lease.token, lease.put("fenced", number)))
            case "list", arguments:
                return shown(list(db.list(*arguments, **call.options)))
        return shown(getattr(db, call.method)(*call.arguments, **call.options))
    except LeaseholdError as error:
        return shown(error)


async def run_calls_as_tasks(url: str, calls: Sequence[Call], retry_seconds: float) -> list[object]:
    async with AsyncClient(url, retry_seconds=retry_seconds) as db:
        return [await _async_result(db, call) for call in calls]


async def _async_result(db: AsyncClient, call: Call) -> object:
    try:
        match call.method, call.arguments:
            case "transaction", [key, number]:
                async with db.transaction() as transaction:
                    transaction.increment("sum", number)
                    transaction.put(key, number)
                return shown((transaction.revision, transaction.results))
            case "lock", [name, number]:
                async with db.lock(name, ttl=600, wait=0) as lease:
                    return shown((lease.token, await lease.put("fenced", number)))
            case "list", arguments:
                return shown([entry async for entry in db.list(*arguments, **call.options)])
        return shown(await getattr(db, call.method)(*call.arguments, **call.options))
    except LeaseholdError as error:
        return shown(error)


def agree_in_spite_of_cuts(folder: Path, seed: int, *, calls: int, bug: str | None = None) -> Finding:
    """`calls`: of each client. Figures: `calls`, and the `cuts` of connections."""
    finding = Finding()
    made = list(script(random.Random(seed), calls))
    with running() as server:
        expected = run_calls(server.url, made, RETRY_SECONDS)
    runs: dict[str, Callable[[str, Sequence[Call], float], list[object]]] = {
        "Client": run_calls,
        "AsyncClient": lambda url, script, seconds: asyncio.run(run_calls_as_tasks(url, script, seconds)),
    }
    for name, run in runs.items():
        rng = random.Random(f"{seed} {name}")
        with running(folder / f"{name}.json") as server, proxy_on_a_thread(server.address[1]) as proxy, _planted(bug):
            proxy.new_connection = cutting(rng, REQUEST_BYTES, RESPONSE_BYTES)
            seconds = 0.0 if bug == "no retries" else RETRY_SECONDS
            with patch.object(retrying, "FIRST_PAUSE_SECONDS", FIRST_PAUSE_SECONDS):
                results = run(f"http://127.0.0.1:{proxy.port}", made, seconds)
            finding.figures["cuts"] += proxy.cuts
        finding.figures["calls"] += len(made)
        for call, result, wanted in zip(made, results, expected, strict=True):
            if result != wanted:
                finding.violations.append(f"seed {seed}, {name}: {call} gave {result}, and {wanted} without cuts")
                break
    return finding


def _planted(bug: str | None) -> contextlib.AbstractContextManager[object]:
    if bug != "changes without keys":
        return contextlib.nullcontext()
    return patch.object(Request, "with_idempotency_key", lambda request, _: request)
