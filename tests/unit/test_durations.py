"""Durations in the settings: a number with a unit is accepted, any other form is refused."""

import pytest

from leasehold.errors import ServiceError
from leasehold.server.config import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("15m", 900), ("1h", 3_600), ("7d", 604_800), ("90", 90), ("007s", 7)]
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h",
        "0",
        "0s",
        "-1h",
        "+1h",
        "1.5h",
        "1 h",
        " 1h",
        "1h ",
        "1w",
        "1H",
        "1h30m",
        "1_0s",
        "inf",
        "nan",
        "1e3",
        "²s",
        "१s",
        "9" * 10 + "d",
        "9" * 5_000,
        "s1",
    ],
)
def test_a_duration_in_another_form_is_refused(text: str) -> None:
    with pytest.raises(ServiceError) as refusal:
        parse_duration(text)
    assert refusal.value.code == "invalid_argument"
