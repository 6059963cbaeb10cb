"""`/ns`: namespaces are created, shown, listed and deleted.

put_namespace.py     PUT /ns/{namespace}
get_namespace.py     GET /ns/{namespace}
delete_namespace.py  DELETE /ns/{namespace}
list_namespaces.py   GET /ns
management.py        which callers may do this, and the JSON of a namespace

The paths below `/ns/{namespace}/` are those of all other routes (`routing/namespaced_paths.py`).
"""

from typing import Final

from leasehold.http.endpoints.namespaces import delete_namespace, get_namespace, list_namespaces, put_namespace
from leasehold.http.routing.route import Route

ROUTES: Final[tuple[Route, ...]] = (
    put_namespace.ROUTE,
    get_namespace.ROUTE,
    delete_namespace.ROUTE,
    list_namespaces.ROUTE,
)
