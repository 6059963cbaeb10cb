"""Count with several processes at once, without a lock: a write names the revision that it replaces (`If-Match`).

    python counter.py NAME [TIMES]

Each process reads the counter, and writes the next number only if nobody wrote in between; else it tries again.
Prints the number that the last write stored.
"""

import json
import os
import sys
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

USAGE = "usage: python counter.py NAME [TIMES]"
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


def increment(name: str) -> int:
    path = f"/kv/counters/{name}"
    while True:
        status, entry = call("GET", path)
        if status == 404:
            number, condition = 1, {"If-None-Match": "*"}  # write only if there is still no entry
        elif status == 200:
            number, condition = entry["value"] + 1, {"If-Match": f'"{entry["revision"]}"'}
        else:
            raise SystemExit(f"the counter cannot be read: {entry['message']}")
        status, answer = call("PUT", path, number, condition)
        if status in (200, 201):
            return number
        if status != 412:  # 412: another process was faster
            raise SystemExit(f"the counter cannot be written: {answer['message']}")


def main() -> int:
    match sys.argv[1:]:
        case [name]:
            times = 1
        case [name, text] if text.isdecimal():
            times = int(text)
        case _:
            print(USAGE, file=sys.stderr)
            return 2
    number = 0
    for _ in range(times):
        number = increment(name)
    print(number)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except URLError as error:
        sys.exit(f"{URL} cannot be reached: {error.reason}")
