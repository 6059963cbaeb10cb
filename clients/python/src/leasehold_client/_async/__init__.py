"""The asynchronous client. `_sync` is made from it: see `tools/make_sync.py`.

runtime.py        the differences between tasks and threads; the only file that `_sync` has of its own
sending.py        sends a request until there is a final response
tokens.py         the bearer token
writes.py         the writes of entries, and transactions
leases.py         a lease: its time, its renewal, its fenced writes
locking.py        the block in which a lock is held
watching.py       a watch
client.py         what users create
"""
