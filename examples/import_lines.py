"""Import many entries at once: lines of JSON from standard input, `{"key": …, "value": …}`. Needs httpx.

    python import_lines.py < entries.jsonl

Several writes are on their way at a time, so that the service makes them durable together. What cannot be written is
told on standard error, and the exit code is 1 then; the rest is written.
"""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from urllib.parse import quote

import httpx

URL = os.environ.get("LEASEHOLD_URL", "http://127.0.0.1:8080")
CONCURRENT_WRITES = 50
ATTEMPTS = 5


async def write(client: httpx.AsyncClient, key: str, value: object) -> str:
    """Why the entry is not written; empty if it is. PUT may be sent again: it does the same twice."""
    reason = ""
    for attempt in range(ATTEMPTS):
        try:
            response = await client.put(f"/kv/{quote(key)}", json=value, headers={"Prefer": "return=minimal"})
        except httpx.TransportError as error:
            reason = f"no answer: {error}"
        else:
            if response.is_success:
                return ""
            reason = str(response.json()["message"])
            if response.status_code not in (429, 503):
                return reason
        await asyncio.sleep(0.1 * 2**attempt)
    return reason


async def work(client: httpx.AsyncClient, lines: Iterator[str], faults: list[str]) -> None:
    """Take lines until there is none left. All workers share one iterator."""
    for line in lines:
        entry = json.loads(line)
        reason = await write(client, entry["key"], entry["value"])
        if reason:
            faults.append(f"{entry['key']}: {reason}")


async def main() -> int:
    lines = iter(sys.stdin)
    faults: list[str] = []
    async with httpx.AsyncClient(base_url=URL, timeout=30) as client, asyncio.TaskGroup() as group:
        for _ in range(CONCURRENT_WRITES):
            group.create_task(work(client, lines, faults))
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
