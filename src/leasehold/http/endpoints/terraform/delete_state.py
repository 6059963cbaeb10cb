"""`DELETE /terraform/{state}`: delete a state and its versions. Terraform itself never sends it."""

from leasehold.http.endpoints.terraform.save_state import refuse_other_conditions
from leasehold.http.endpoints.terraform.state_requests import ID, TTL, lock_id_of, state_key_of
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.route import DocumentedResponse, PureEndpoint, Route
from leasehold.model import Deleted, DeleteState, Outcome


def delete_state(request: Request) -> DeleteState:
    key = state_key_of(request)
    refuse_other_conditions(request)
    return DeleteState(key, lock_id_of(request))


def show_deleted(_request: Request, outcome: Outcome) -> Response:
    assert isinstance(outcome, Deleted)
    return Response(200, b'{"deleted":true,"revision":%d}' % outcome.revision)


ROUTE = Route(
    "DELETE",
    "/terraform/{state}",
    PureEndpoint(delete_state, show_deleted),
    "Delete a Terraform state and its versions",
    "write",
    (DocumentedResponse(200, "Deleted.", "StateDeleted"),),
    ("not_found", "lease_lost", "lock_held"),
    (ID, TTL),
    body_limit="max_state_bytes",
    takes_basic=True,
)
