"""Of several processes, one leads. It holds a lease, and all its writes are fenced: after the lease has ended, none is
done, whatever the process believes.

    python leader_election.py NAME [TERMS]

Waits until it leads, then writes TERMS times, renews its lease each time, and steps down. Exits with 1 if it loses
the lease, for example because it was stopped for longer than the ttl.
"""

import json
import os
import sys
import time
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

LOCK = "/locks/example/leader"
TTL_SECONDS = 5
PAUSE_SECONDS = 0.1

USAGE = "usage: python leader_election.py NAME [TERMS]"
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


def lead(name: str) -> dict[str, Any]:
    """Wait for the lease, as long as it takes."""
    while True:
        status, answer = call("POST", LOCK, {"ttl": TTL_SECONDS, "wait": 20, "owner": name})
        if status == 201:
            return answer
        if status != 423:  # 423: another process leads
            raise SystemExit(f"the lock cannot be acquired: {answer['message']}")


def main() -> int:
    match sys.argv[1:]:
        case [name]:
            terms = 3
        case [name, text] if text.isdecimal():
            terms = int(text)
        case _:
            print(USAGE, file=sys.stderr)
            return 2
    lease = lead(name)
    print(f"{name} leads with token {lease['token']}", flush=True)
    fence = {"If-Lease": lease["lease_id"]}
    for term in range(1, terms + 1):
        status, answer = call("PUT", "/kv/example/leader", {"name": name, "term": term}, fence)
        if status in (200, 201):
            status, answer = call("PUT", LOCK, {"lease_id": lease["lease_id"]})
        if status not in (200, 201):
            print(f"{name} leads no more: {answer['message']}", file=sys.stderr)
            return 1
        time.sleep(PAUSE_SECONDS)
    call("DELETE", LOCK, {"lease_id": lease["lease_id"]})
    print(f"{name} steps down")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except URLError as error:
        sys.exit(f"{URL} cannot be reached: {error.reason}")
