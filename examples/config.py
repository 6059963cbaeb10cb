"""Configuration that many programs read and change in parts.

python config.py set /log/level '"debug"'     # one member; missing levels are created
python config.py merge '{"log": {"level": null}, "workers": 4}'    # null removes a member (RFC 7396)
python config.py get [/log/level]
python config.py follow COUNT                 # prints COUNT versions; each request waits for the next one
"""

import json
import os
import sys
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

PATH = "/kv/example/config"
WAIT_SECONDS = 20

USAGE = "usage: python config.py set POINTER JSON | merge JSON | get [POINTER] | follow COUNT"
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


def follow(count: int) -> None:
    etag = ""
    while count > 0:
        request = Request(f"{URL}{PATH}?raw&wait={WAIT_SECONDS}", headers={"If-None-Match": etag} if etag else {})
        try:
            with urlopen(request, timeout=30) as response:
                etag = response.headers["ETag"]
                print(response.read().decode().strip(), flush=True)
                count -= 1
        except HTTPError as error:
            if error.code not in (304, 404):  # unchanged, or not written yet
                raise SystemExit(f"the configuration cannot be read: {json.load(error)['message']}") from error


def main() -> int:
    match sys.argv[1:]:
        case ["set", pointer, text]:
            status, answer = call("PUT", f"{PATH}?path={quote(pointer)}", json.loads(text))
        case ["merge", text]:
            kind = {"Content-Type": "application/merge-patch+json"}
            status, answer = call("PATCH", PATH, json.loads(text), kind)
        case ["get", *pointers] if len(pointers) <= 1:
            status, answer = call("GET", PATH + "".join(f"?path={quote(pointer)}" for pointer in pointers))
        case ["follow", count] if count.isdecimal():
            follow(int(count))
            return 0
        case _:
            print(USAGE, file=sys.stderr)
            return 2
    if status not in (200, 201):
        raise SystemExit(f"{answer['error']}: {answer['message']}")
    print(json.dumps(answer["value"]))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except URLError as error:
        sys.exit(f"{URL} cannot be reached: {error.reason}")
