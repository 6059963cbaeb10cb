"""States of Terraform and OpenTofu, for their backend `http`.

get_state.py      GET /terraform/{state}
save_state.py     POST and PUT /terraform/{state}
delete_state.py   DELETE /terraform/{state}
lock_state.py     LOCK /terraform/{state} and POST /terraform/{state}/lock
unlock_state.py   UNLOCK /terraform/{state} and DELETE /terraform/{state}/lock
list_versions.py  GET /terraform/{state}/versions
state_requests.py reads the name of a state, the ID of a lock, and a lock info

The rules are in `rules/terraform.py`.
"""

from typing import Final

from leasehold.http.endpoints.terraform import (
    delete_state,
    get_state,
    list_versions,
    lock_state,
    save_state,
    unlock_state,
)

ROUTES: Final = (
    *lock_state.ROUTES,
    *unlock_state.ROUTES,
    list_versions.ROUTE,
    get_state.ROUTE,
    *save_state.ROUTES,
    delete_state.ROUTE,
)
"""Those with an end behind the name come first: the description lists them in this order."""
