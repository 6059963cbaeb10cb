"""Which keys are valid."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold.errors import ServiceError
from leasehold.keys import check_key, check_keys

VALID = [
    "a",
    "username",
    "a/b/c",
    "with space",
    ".hidden",
    "a/.b",
    "...",
    "a/..b",
    "b./a",
    "\u00e9t\u00e9/\u65e5\u672c",
    "\U0001f600",
    "\u2028",
    "a\u00a0b",
    "x" * 512,
    "\u00e9" * 256,
    "%2F?#[]@!$&'()*+,;=\\\"",
]
INVALID = [
    "",
    "x" * 513,
    "\u00e9" * 257,
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "./a",
    "a/.",
    "a/../b",
    "\u00e9/..",
    "a\x00",
    "a\n",
    "\x1f",
    "\x7f",
    "a\x80",
    "\x9f",
    "\ud800",
    "a\udfffb",
]


@pytest.mark.parametrize("key", VALID)
def test_a_valid_key_is_accepted(key: str) -> None:
    check_key(key)


@pytest.mark.parametrize("key", INVALID)
def test_an_invalid_key_is_refused(key: str) -> None:
    with pytest.raises(ServiceError) as caught:
        check_key(key)
    assert caught.value.code == "invalid_key"


def test_many_valid_keys_are_accepted_together() -> None:
    check_keys(VALID)
    check_keys([])


@pytest.mark.parametrize("key", INVALID)
@pytest.mark.parametrize("others", [(), ("a", "b/c"), ("\u00e9",)], ids=["alone", "plain", "not ASCII"])
def test_an_invalid_key_among_valid_ones_is_refused(key: str, others: tuple[str, ...]) -> None:
    for keys in ((*others, key), (key, *others)):
        with pytest.raises(ServiceError) as caught:
            check_keys(keys)
        assert caught.value.code == "invalid_key"


@given(st.lists(st.text(st.sampled_from("a/.\u00e9\n")), max_size=4))
def test_keys_are_accepted_together_if_each_of_them_is(keys: list[str]) -> None:
    assert is_accepted(keys) == all(map(is_valid, keys))


def is_accepted(keys: list[str]) -> bool:
    try:
        check_keys(keys)
    except ServiceError:
        return False
    return True


def is_valid(key: str) -> bool:
    try:
        check_key(key)
    except ServiceError:
        return False
    return True
