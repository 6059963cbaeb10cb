"""Configuration that reloads itself: the program has the current values at any time, without asking for them.

    python configuration.py set NAME JSON       # changes one setting
    python configuration.py run NAME JSON       # runs until this setting has this value, and prints each change

A thread keeps a copy of all settings with a watch. The watch goes on after a lost connection and a restart.
"""

import json
import os
import sys
import threading
from typing import Any

from leasehold_client import Client, EntryDeleted, EntryPut, LeaseholdError, Ready, Reset

PREFIX = "example/configuration/"
USAGE = "usage: python configuration.py set NAME JSON | run NAME JSON"


class Configuration:
    """The settings, as they are now. `changed` is notified at each change."""

    def __init__(self, db: Client) -> None:
        self._db = db
        self._values: dict[str, Any] = {}
        self._is_complete = False
        self.changed = threading.Condition()
        threading.Thread(target=self._follow, daemon=True).start()
        with self.changed:
            self.changed.wait_for(lambda: self._is_complete)

    def get(self, name: str) -> Any:
        return self._values.get(name)

    def _follow(self) -> None:
        for event in self._db.watch(PREFIX, snapshot=True):
            with self.changed:
                match event:
                    case Reset():
                        self._values.clear()
                    case EntryPut(entry):
                        self._values[entry.key.removeprefix(PREFIX)] = entry.value
                    case EntryDeleted(key):
                        self._values.pop(key.removeprefix(PREFIX), None)
                    case Ready():
                        self._is_complete = True
                self.changed.notify_all()


def run(db: Client, name: str, last: Any) -> None:
    configuration = Configuration(db)
    shown = None
    with configuration.changed:
        while shown != last:
            value = configuration.get(name)
            if value == shown:
                configuration.changed.wait()
            else:
                shown = value
                print(json.dumps(shown), flush=True)


def main() -> int:
    with Client(os.environ.get("LEASEHOLD_URL", "http://127.0.0.1:8080")) as db:
        match sys.argv[1:]:
            case ["set", name, text]:
                db.put(PREFIX + name, json.loads(text))
            case ["run", name, text]:
                run(db, name, json.loads(text))
            case _:
                print(USAGE, file=sys.stderr)
                return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LeaseholdError as error:
        sys.exit(str(error))
