"""Which names a namespace may have."""

import pytest

from leasehold.errors import ServiceError
from leasehold.namespaces import DEFAULT_NAMESPACE, check_namespace, is_valid_namespace

VALID = [DEFAULT_NAMESPACE, "a", "0", "-", "team-1", "--", "x" * 63]
INVALID = ["", "x" * 64, "A", "a_b", "a.b", "..", "a/b", "a b", "a\n", "\n", "é", "\uff41", "٣", "*", "a\0", "%61"]


@pytest.mark.parametrize("name", VALID)
def test_a_name_of_lower_case_letters_digits_and_hyphens_is_valid(name: str) -> None:
    assert is_valid_namespace(name)
    check_namespace(name)


@pytest.mark.parametrize("name", INVALID)
def test_any_other_name_is_refused(name: str) -> None:
    assert not is_valid_namespace(name)
    with pytest.raises(ServiceError) as refused:
        check_namespace(name)
    assert refused.value.code == "invalid_argument"
