"""`/set`, `/get` and `/stream`: entries by UUID. They are the entries of `/kv/{uuid}`. One file for each command.

A UUID is stored in lower case, whatever case the request has.

set_entry.py     POST /set
get_entry.py     GET /get/{uuid}
list_entries.py  GET /get
stream.py        GET /stream/{uuid} and GET /stream
"""

from leasehold.http.endpoints.by_uuid import get_entry, list_entries, set_entry, stream

ROUTES = (set_entry.ROUTE, get_entry.ROUTE, list_entries.ROUTE, *stream.ROUTES)
