"""`leasehold` that knows the changes of the last HISTORY revisions only: a `program` for `Server`."""

from typing import Final

from leasehold.__main__ import main
from leasehold.engines import base

HISTORY: Final = 20

if __name__ == "__main__":
    base.HISTORY_CHANGES = HISTORY  # type: ignore[misc]
    main()
