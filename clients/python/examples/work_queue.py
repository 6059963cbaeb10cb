"""A queue of tasks for several workers. Each task is done by one worker; if that dies, another one does it.

    python work_queue.py add TEXT...
    python work_queue.py work NAME [COUNT]      # does COUNT tasks (1 by default), and waits for them

A worker holds a lease on the task that it does. The result is stored and the task is deleted in one transaction, which
is refused if the lease is lost: then another worker has the task.
"""

import os
import sys
import time

from leasehold_client import Client, Entry, EntryPut, LeaseholdError, LockChanged, LockHeld

TASKS = "example/tasks/"
RESULTS = "example/results/"
USAGE = "usage: python work_queue.py add TEXT... | work NAME [COUNT]"


def add(db: Client, texts: list[str]) -> None:
    for number, text in enumerate(texts):
        # In the order of the keys. The time makes it the order of arrival; the number tells tasks of one call apart.
        db.put(f"{TASKS}{time.time_ns():020}-{number:04}", {"text": text}, if_absent=True)


def do(db: Client, worker: str, task: Entry) -> bool:
    """Whether this worker has done the task, and no other one."""
    try:
        with db.lock(task.key, ttl=30, wait=0, owner=worker) as lease:
            if db.get(task.key, default=None) is None:
                return False
            with db.transaction(lease=lease) as transaction:
                transaction.put(
                    RESULTS + task.key.removeprefix(TASKS), {"text": task.value["text"].upper(), "worker": worker}
                )
                transaction.delete(task.key)
            return True
    except LockHeld:
        return False


def work(db: Client, worker: str, count: int) -> None:
    with db.watch(TASKS, snapshot=True, locks=True) as events:
        for event in events:
            task = None
            if isinstance(event, EntryPut):
                task = event.entry
            elif isinstance(event, LockChanged) and not event.is_held:
                # The worker that had it has done it or has died.
                task = db.get(event.lock, default=None)
            if task is not None and do(db, worker, task):
                print(f"{worker} did {task.value['text']}", flush=True)
                count -= 1
                if count == 0:
                    return


def main() -> int:
    with Client(os.environ.get("LEASEHOLD_URL", "http://127.0.0.1:8080")) as db:
        match sys.argv[1:]:
            case ["add", *texts] if texts:
                add(db, texts)
            case ["work", worker]:
                work(db, worker, 1)
            case ["work", worker, count] if count.isdecimal():
                work(db, worker, int(count))
            case _:
                print(USAGE, file=sys.stderr)
                return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LeaseholdError as error:
        sys.exit(str(error))
