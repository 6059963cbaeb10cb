"""State that two languages share: `temperatures.sh` measures, and this program reads.

    python temperatures.py

Prints the number of measurements, the mean and the largest one.
"""

import json
import os
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


def main() -> None:
    status, answer = call("GET", "/kv/example/temperatures?path=/measured")
    if status == 404:
        raise SystemExit("nothing was measured yet")
    if status != 200:
        raise SystemExit(f"the measurements cannot be read: {answer['message']}")
    measured = answer["value"]
    print(f"{len(measured)} measured, mean {sum(measured) / len(measured):.1f}, largest {max(measured)}")


if __name__ == "__main__":
    try:
        main()
    except URLError as error:
        sys.exit(f"{URL} cannot be reached: {error.reason}")
