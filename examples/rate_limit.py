"""A limit of requests per user and window, shared by all servers of an application. Old windows expire by themselves.

    python rate_limit.py USER LIMIT [WINDOW_SECONDS]

Exits with 0 if the request may be served, with 1 if the user has used up the limit.
"""

import json
import os
import sys
import time
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

USAGE = "usage: python rate_limit.py USER LIMIT [WINDOW_SECONDS]"
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


def may_serve(user: str, limit: int, window_seconds: int) -> bool:
    window = int(time.time()) // window_seconds
    path = f"/kv/example/rates/{user}/{window}"
    while True:
        status, entry = call("GET", path)
        if status not in (200, 404):
            raise SystemExit(f"the rate cannot be read: {entry['message']}")
        used = entry["value"] if status == 200 else 0
        if used >= limit:
            return False
        condition = {"If-Match": f'"{entry["revision"]}"'} if status == 200 else {"If-None-Match": "*"}
        status, answer = call("PUT", f"{path}?ttl={2 * window_seconds}", used + 1, condition)
        if status in (200, 201):
            return True
        if status not in (404, 412):  # it has expired, or another server has counted meanwhile
            raise SystemExit(f"the rate cannot be written: {answer['message']}")


def main() -> int:
    match sys.argv[1:]:
        case [user, limit] if limit.isdecimal():
            window_seconds = 60
        case [user, limit, window] if limit.isdecimal() and window.isdecimal() and int(window):
            window_seconds = int(window)
        case _:
            print(USAGE, file=sys.stderr)
            return 2
    served = may_serve(user, int(limit), window_seconds)
    print("served" if served else "refused")
    return 0 if served else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except URLError as error:
        sys.exit(f"{URL} cannot be reached: {error.reason}")
