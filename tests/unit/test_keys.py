"""Which keys are valid."""

import pytest

from leasehold.errors import ServiceError
from leasehold.keys import check_key


@pytest.mark.parametrize(
    "key",
    [
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
    ],
)
def test_a_valid_key_is_accepted(key: str) -> None:
    check_key(key)


@pytest.mark.parametrize(
    "key",
    [
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
    ],
)
def test_an_invalid_key_is_refused(key: str) -> None:
    with pytest.raises(ServiceError) as caught:
        check_key(key)
    assert caught.value.code == "invalid_key"
