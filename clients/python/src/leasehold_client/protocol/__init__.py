"""The protocol of the service as pure functions: build a request, read a response, decide about a retry.

    messages.py       requests and responses
    refusals.py       which exception a response is
    entries.py        reads and writes of entries
    locks.py          acquire, renew, release; holders
    transactions.py   the checks and operations of a transaction
    watching.py       the events of a watch, and its cursor
    retrying.py       whether a request is sent again, and when
    lease_term.py     until when a lease certainly lasts
    tokens.py         when a bearer token must be replaced

Nothing here does I/O or reads a clock; the shells in `_async` and `_sync` do.
"""
