"""`/kv`: entries by key. One file for each command.

get_entry.py      GET /kv/{key}
binary_entry.py   the response of GET if the value is bytes
put_entry.py      POST and PUT /kv/{key}
patch_entry.py    PATCH /kv/{key}
delete_entry.py   DELETE /kv/{key}
list_entries.py   GET /kv
several_entries.py  GET /kv?key=…
delete_entries.py   DELETE /kv?prefix=…
listed_entry.py   an item of a list
written_entry.py  the response of POST, PUT and PATCH
"""

from collections.abc import Sequence

from leasehold.http.endpoints.kv import delete_entries, delete_entry, get_entry, list_entries, patch_entry, put_entry
from leasehold.http.routing.route import Route


def routes(binary_types: Sequence[str]) -> tuple[Route, ...]:
    """`binary_types`: see `media_types.binary_type`."""
    return (
        get_entry.ROUTE,
        *put_entry.routes(binary_types),
        patch_entry.ROUTE,
        delete_entry.ROUTE,
        delete_entries.ROUTE,
        list_entries.ROUTE,
    )
