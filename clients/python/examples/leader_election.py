"""Of several processes, one leads. If it stops or cannot renew its lease, another one takes over.

    python leader_election.py NAME [SECONDS]

Leads for so many seconds (1 by default) once it is elected, and then steps down. `asyncio` cancels its work as soon as
the lease is lost, and the service refuses its writes after that.
"""

import asyncio
import os
import sys

from leasehold_client import AsyncClient, AsyncLease, LeaseholdError, LeaseLost

USAGE = "usage: python leader_election.py NAME [SECONDS]"


async def lead(lease: AsyncLease, name: str, seconds: float) -> None:
    print(f"{name} leads with token {lease.token}", flush=True)
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        await lease.put("example/leader/status", {"name": name})
        await asyncio.sleep(0.05)


async def run(name: str, seconds: float) -> None:
    async with AsyncClient(os.environ.get("LEASEHOLD_URL", "http://127.0.0.1:8080")) as db:
        while True:
            try:
                async with db.elect("example/leader", ttl=10, owner=name) as lease:
                    await lead(lease, name, seconds)
            except LeaseLost:
                print(f"{name} leads no more, and is a candidate again", flush=True)
            else:
                print(f"{name} steps down")
                return


def main() -> int:
    match sys.argv[1:]:
        case [name]:
            seconds = 1.0
        case [name, text] if text.isdecimal():
            seconds = float(text)
        case _:
            print(USAGE, file=sys.stderr)
            return 2
    asyncio.run(run(name, seconds))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LeaseholdError as error:
        sys.exit(str(error))
