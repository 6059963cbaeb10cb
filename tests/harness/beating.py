"""A command for `leasehold lock` that shows that it runs: two processes write to the service, without the lease.

    python beating.py URL [stubborn]

`URL`: of the service itself, for the case that LEASEHOLD_URL leads through a proxy. It prints its process group and
the token of the lease, and exits with 5 when standard input ends. `stubborn`: it ignores SIGTERM. Each process writes
to `beats/FENCE/NAME`.
"""

import contextlib
import http.client
import os
import select
import signal
import sys
from urllib.parse import urlsplit

PAUSE_SECONDS = 0.05


def beat(address: str, name: str, *, until_input_ends: bool) -> None:
    connection = http.client.HTTPConnection(address, timeout=1.0)
    while not (until_input_ends and select.select([0], [], [], 0)[0]):
        try:
            connection.request("PUT", f"/kv/beats/{os.environ['LEASEHOLD_FENCE']}/{name}", b"1")
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            connection.close()
        select.select([], [], [], PAUSE_SECONDS)


def main() -> None:
    url, *options = sys.argv[1:]
    address = urlsplit(url).netloc
    if "stubborn" in options:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        with contextlib.suppress(KeyboardInterrupt):
            beat(address, "second", until_input_ends=False)
        os._exit(0)
    sys.stdout.write(f"{os.getpgrp()}\n{os.environ['LEASEHOLD_FENCE']}\n")
    sys.stdout.flush()
    beat(address, "first", until_input_ends=True)
    sys.exit(5)


if __name__ == "__main__":
    main()
