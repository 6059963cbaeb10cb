"""One round in its own process: `python -m torture.round ROW SEED`. Prints its finding as a line of JSON."""

import json
import sys
import traceback

from harness import Finding

from torture.rows import run_round


def main() -> None:
    name, seed = sys.argv[1], int(sys.argv[2])
    try:
        finding = run_round(name, seed)
    except Exception:  # noqa: BLE001  a failing harness is a finding, too
        finding = Finding(violations=[f"the harness broke: {traceback.format_exc()}"])
    print(json.dumps(vars(finding)))  # noqa: T201  read by the parent


if __name__ == "__main__":
    main()
