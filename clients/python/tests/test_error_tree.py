"""The tree of exceptions, and what users import."""

import pickle
import re

import pytest
from leasehold.errors import STATUS_BY_CODE

import leasehold_client
from leasehold_client import LeaseLost, LockHeld, PreconditionFailed, ServiceError, errors
from leasehold_client.protocol.messages import Response
from leasehold_client.protocol.refusals import refusal_of

TREE = (errors.__doc__ or "").partition("\n\n")[2].partition("\n\n")[0]


@pytest.mark.parametrize(("code", "status"), STATUS_BY_CODE.items())
def test_each_error_of_the_service_has_a_class_of_its_own(code: str, status: int) -> None:
    error = refusal_of(Response(status, {}, b'{"error": "%s", "message": "m", "x": 1}' % code.encode()))
    assert isinstance(error, ServiceError)
    assert type(error).__dict__["code"] == error.code == code
    assert (error.status, error.message, dict(error.details)) == (status, "m", {"x": 1})


def test_the_tree_at_the_top_of_the_file_is_the_tree_of_the_classes() -> None:
    drawn: dict[str, str | None] = {}
    ancestors: list[str] = []
    for line in TREE.splitlines():
        found = re.match(r"    ([ │├└─]*)(\w+) *(.*)", line)
        assert found is not None
        depth, name, remark = len(found[1]) // 4, found[2], found[3]
        del ancestors[depth:]
        drawn[name] = ancestors[-1] if ancestors else None
        ancestors.append(name)
        kind = getattr(errors, name)
        if issubclass(kind, ServiceError) and kind.__dict__.get("code"):
            assert remark == kind.code
    classes = {
        name: kind.__base__.__name__
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.LeaseholdError) and kind.__base__ is not None
    }
    assert drawn == classes | {"LeaseholdError": None}
    assert set(drawn) <= set(leasehold_client.__all__)


def test_an_error_tells_its_details() -> None:
    error = LockHeld("held", status=423, details={"owner": [1], "expires_at": "2026-01-31T12:00:00.000001Z"})
    assert (error.owner, str(error.expires_at)) == ([1], "2026-01-31 12:00:00.000001+00:00")
    assert str(error) == "lock_held: held"
    assert PreconditionFailed("no").revision is None
    assert LeaseLost("over").status is None
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), copied.message, copied.status, copied.details) == (LockHeld, "held", 423, error.details)


def test_every_exported_name_exists() -> None:
    assert sorted(leasehold_client.__all__) == sorted(set(leasehold_client.__all__))
    for name in leasehold_client.__all__:
        assert hasattr(leasehold_client, name)
