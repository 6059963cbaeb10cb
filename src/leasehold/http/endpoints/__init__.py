"""The routes, in one package or file for each part of the paths.

kv/         /kv                             entries by key
by_uuid/    /set, /get, /stream             entries by UUID
locks/      /locks, /lock, /renew, /unlock  locks and their leases
transactions.py /txn
backup.py   /backup
watch.py    /watch                          changes of entries and locks
system.py   /health, /metrics, /openapi.json

A file has one command: how its request is parsed, how its response is encoded, and its route. The rules of entries and
leases are in `rules`, not here.
"""

from leasehold.http.endpoints import backup, by_uuid, kv, locks, system, transactions, watch

ROUTES = (
    kv.ROUTES + by_uuid.ROUTES + transactions.ROUTES + locks.ROUTES + (watch.ROUTE,) + backup.ROUTES + system.ROUTES
)
