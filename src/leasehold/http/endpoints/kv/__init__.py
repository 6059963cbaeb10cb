"""`/kv`: entries by key. One file for each command.

get_entry.py      GET /kv/{key}
put_entry.py      POST and PUT /kv/{key}
patch_entry.py    PATCH /kv/{key}
delete_entry.py   DELETE /kv/{key}
list_entries.py   GET /kv
several_entries.py  GET /kv?key=…
delete_entries.py   DELETE /kv?prefix=…
listed_entry.py   an item of a list
written_entry.py  the response of POST, PUT and PATCH
"""

from leasehold.http.endpoints.kv import delete_entries, delete_entry, get_entry, list_entries, patch_entry, put_entry

ROUTES = (
    get_entry.ROUTE,
    *put_entry.ROUTES,
    patch_entry.ROUTE,
    delete_entry.ROUTE,
    delete_entries.ROUTE,
    list_entries.ROUTE,
)
