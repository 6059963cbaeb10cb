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


def start(user: str, ttl_seconds: float) -> str:
    session = secrets.token_urlsafe(24)
    status, answer = call("PUT", f"/kv/example/sessions/{session}?ttl={ttl_seconds}", {"user": user})
    if status != 201:
        raise SystemExit(f"the session cannot be stored: {answer['message']}")
    return session


def use(session: str, ttl_seconds: float) -> str | None:
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
    action, argument = sys.argv[1:3]
    ttl_seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 1_800
    match action:
        case "start":
            print(start(argument, ttl_seconds))
        case "use":
            user = use(argument, ttl_seconds)
            print("no such session" if user is None else user)
            return 1 if user is None else 0
        case "end":
            status, _ = call("DELETE", f"/kv/example/sessions/{argument}")
            return 0 if status == 200 else 1
        case _:
            raise SystemExit(__doc__)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except URLError as error:
        sys.exit(f"{URL} cannot be reached: {error.reason}")
