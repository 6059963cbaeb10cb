"""Count with several processes at once, and lose nothing.

    python counter.py NAME [TIMES]

`increment` does it in one request. `update` does it for any change: it reads the value, and writes only if nobody wrote
in between; otherwise it begins again. Prints the counter.
"""

import os
import sys

from leasehold_client import Client, LeaseholdError

USAGE = "usage: python counter.py NAME [TIMES]"


def main() -> int:
    match sys.argv[1:]:
        case [name]:
            times = 1
        case [name, text] if text.isdecimal():
            times = int(text)
        case _:
            print(USAGE, file=sys.stderr)
            return 2
    with Client(os.environ.get("LEASEHOLD_URL", "http://127.0.0.1:8080")) as db:
        for _ in range(times):
            db.increment(f"counters/{name}")
            db.update(f"counters/{name}/log", lambda log: {"times": log["times"] + 1}, default={"times": 0})
        print(db.get(f"counters/{name}").value)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LeaseholdError as error:
        sys.exit(str(error))
