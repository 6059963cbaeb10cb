"""`/locks`: locks and their leases. `/lock`, `/renew` and `/unlock` are the same commands for locks named by UUID.

acquire_lock.py   POST /locks/{name}, POST /lock
renew_lease.py    PUT /locks/{name}, POST /renew
release_lock.py   DELETE /locks/{name}, DELETE /unlock
get_lock.py       GET /locks/{name}
list_locks.py     GET /locks
lock_requests.py  the members of these requests, in the body or in the query
lease_json.py     a lease and a lock as JSON

The rules of leases are in `rules`; waiting for a lock is in `store/lock_queues.py`.
"""

from leasehold.http.endpoints.locks import acquire_lock, get_lock, list_locks, release_lock, renew_lease

ROUTES = (
    acquire_lock.ROUTE,
    renew_lease.ROUTE,
    release_lock.ROUTE,
    get_lock.ROUTE,
    list_locks.ROUTE,
    acquire_lock.ROUTE_BY_UUID,
    renew_lease.ROUTE_BY_UUID,
    release_lock.ROUTE_BY_UUID,
)
