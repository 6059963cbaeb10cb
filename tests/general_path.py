"""`leasehold` without its fast paths, so that every request takes the general path: a `program` for `Server`."""

from functools import partialmethod

from leasehold.__main__ import main
from leasehold.http.wire.connections import Connections

Connections.__init__ = partialmethod(Connections.__init__, fast_paths=False)  # type: ignore[assignment, method-assign]

if __name__ == "__main__":
    main()
