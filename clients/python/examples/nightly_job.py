"""A job that several machines start at the same time, and that runs once a day: for cron on each of them.

    python nightly_job.py NAME COMMAND [ARGUMENT...]

The machine that gets the lock runs the command. That it is done is stored under the day, fenced by the lease, so no
other machine runs it again. If the machine dies, its lease ends, and the next start runs the command again. Exits with
the code of the command, and with 1 if the lease was lost while it ran.
"""

import os
import socket
import subprocess
import sys
from datetime import datetime, timezone

from leasehold_client import Client, LeaseholdError, LockHeld

USAGE = "usage: python nightly_job.py NAME COMMAND [ARGUMENT...]"


def run_once(db: Client, name: str, command: list[str]) -> int:
    day = datetime.now(timezone.utc).date().isoformat()
    with db.lock(f"example/jobs/{name}", ttl=30, wait=0, owner={"host": socket.gethostname()}) as lease:
        if db.get(f"example/jobs/{name}/{day}", default=None) is not None:
            print("done already")
            return 0
        code = subprocess.run(command, check=False).returncode
        if code == 0:
            lease.put(f"example/jobs/{name}/{day}", "done", ttl=7 * 86_400)
        return code


def main() -> int:
    match sys.argv[1:]:
        case [name, *command] if command:
            pass
        case _:
            print(USAGE, file=sys.stderr)
            return 2
    with Client(os.environ.get("LEASEHOLD_URL", "http://127.0.0.1:8080")) as db:
        try:
            return run_once(db, name, command)
        except LockHeld as held:
            print(f"another machine runs it: {held.owner}")
            return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LeaseholdError as error:
        sys.exit(str(error))
