"""Sessions of a web application that end when they are not used for some time.

    python sessions.py start USER [TTL_SECONDS]      # prints the id of the session
    python sessions.py use ID [TTL_SECONDS]          # prints the user, and lets the session live on
    python sessions.py end ID

Exits with 1 if there is no such session, or no more.
"""

import json
import os
import secrets
import sys
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

USAGE = "usage: python sessions.py start USER [TTL_SECONDS] | use ID [TTL_SECONDS] | end ID"
DEFAULT_TTL_SECONDS = "1800"
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


def start(user: str, ttl_seconds: str = DEFAULT_TTL_SECONDS) -> str:
    session = secrets.token_urlsafe(24)
    status, answer = call("PUT", f"/kv/example/sessions/{session}?ttl={ttl_seconds}", {"user": user})
    if status != 201:
        raise SystemExit(f"the session cannot be stored: {answer['message']}")
    return session


def use(session: str, ttl_seconds: str = DEFAULT_TTL_SECONDS) -> str | None:
    """The user of a session; None if it has ended."""
    path = f"/kv/example/sessions/{session}"
    status, entry = call("GET", path)
    if status == 200:
        # If-Match: a session that ends in this moment must not come back.
        condition = {"If-Match": f'"{entry["revision"]}"'}
        status, answer = call("PUT", f"{path}?ttl={ttl_seconds}", entry["value"], condition)
        if status == 412 and answer["revision"] is not None:
            status = 200  # another request has just prolonged it
    if status in (404, 412):
        return None
    if status != 200:
        raise SystemExit(f"the session cannot be used: HTTP {status}")
    return str(entry["value"]["user"])


def main() -> int:
    match sys.argv[1:]:
        case ["start", user, *rest] if len(rest) <= 1:
            print(start(user, *rest))
        case ["use", session, *rest] if len(rest) <= 1:
            found = use(session, *rest)
            print("no such session" if found is None else found)
            return 1 if found is None else 0
        case ["end", session]:
            status, _ = call("DELETE", f"/kv/example/sessions/{session}")
            return 0 if status == 200 else 1
        case _:
            print(USAGE, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except URLError as error:
        sys.exit(f"{URL} cannot be reached: {error.reason}")
