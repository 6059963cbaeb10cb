"""A queue of tasks for several workers. Each task is done by one worker; if that dies, another one does it.

    python work_queue.py add TEXT...     # one task for each text
    python work_queue.py work NAME       # does what is there, then exits

A worker takes the lock of a task, does it, and stores the result and deletes the task while its lease is alive. A
worker that lost its lease cannot store a result: another worker has the task.
"""

import json
import os
import sys
import time
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

TASKS = "example/tasks/"
RESULTS = "example/results/"
TTL_SECONDS = 30

USAGE = "usage: python work_queue.py add TEXT... | work NAME"
URL = os.environ.get("LEASEHOLD_URL", "http://127.0.0.1:8080")


def call(
    method: str, path: str, body: object = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """Send a request; the status and the body of the response. An error of HTTP has both, too."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(URL + path, data, headers or {}, method=method)
    try:
        with urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except HTTPError as error:
        return error.code, json.load(error)


def checked(status: int, answer: dict[str, Any]) -> dict[str, Any]:
    if status >= 400:
        raise SystemExit(f"{answer['error']}: {answer['message']}")
    return answer


def add(texts: list[str]) -> None:
    for number, text in enumerate(texts):
        # Keys in ascending order are done first. The time makes them so; the number tells tasks of one call apart.
        name = f"{time.time_ns():020}-{number:04}"
        checked(*call("PUT", f"/kv/{TASKS}{name}", {"text": text}, {"If-None-Match": "*"}))


def work(worker: str) -> None:
    for entry in checked(*call("GET", f"/kv?prefix={quote(TASKS)}"))["entries"]:
        name = entry["key"].removeprefix(TASKS)
        lock = f"/locks/{TASKS}{name}"
        status, lease = call("POST", lock, {"ttl": TTL_SECONDS, "wait": 0, "owner": worker})
        if status == 423:
            continue  # another worker does it
        checked(status, lease)
        fence = {"If-Lease": lease["lease_id"]}
        # Another worker may have done it between the list and the lock.
        status, _ = call("GET", f"/kv/{entry['key']}")
        if status == 200:
            result = {"text": entry["value"]["text"].upper(), "worker": worker}
            checked(*call("PUT", f"/kv/{RESULTS}{name}", result, fence))
            checked(*call("DELETE", f"/kv/{entry['key']}", None, fence))
            print(f"{worker} did {entry['value']['text']}", flush=True)
        call("DELETE", lock, {"lease_id": lease["lease_id"]})


def main() -> int:
    match sys.argv[1:]:
        case ["add", *texts] if texts:
            add(texts)
        case ["work", worker]:
            work(worker)
        case _:
            print(USAGE, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except URLError as error:
        sys.exit(f"{URL} cannot be reached: {error.reason}")
