"""Times as text, and the text of entries."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold.model import Entry
from leasehold.times import format_time, parse_time, time_bytes
from leasehold.values.entry_text import entry_json

YEAR_9999 = 253_402_300_799_999_999


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_769_860_800_000_001, "2026-01-31T12:00:00.000001Z"),
        (1_709_251_199_999_999, "2024-02-29T23:59:59.999999Z"),
        (YEAR_9999, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_a_time_is_written_in_utc_with_microseconds(time: int, text: str) -> None:
    assert format_time(time) == text
    assert parse_time(text) == time


@given(st.integers(min_value=0, max_value=YEAR_9999))
def test_a_formatted_time_is_parsed_to_itself(time: int) -> None:
    assert parse_time(format_time(time)) == time


@given(st.integers(min_value=0, max_value=YEAR_9999))
def test_a_time_in_bytes_is_the_same_text(time: int) -> None:
    assert time_bytes(time) == format_time(time).encode()


def test_times_in_bytes_are_right_after_the_cache_was_full() -> None:
    times = range(0, 20_000_000_000, 2_000_001)
    assert len(times) > 2 * 4096
    assert [time_bytes(time) for time in times] == [format_time(time).encode() for time in times]
    assert time_bytes(0) == b"1970-01-01T00:00:00.000000Z"


def test_equal_times_are_parsed_to_one_object() -> None:
    text = format_time(YEAR_9999)
    assert parse_time(text) is parse_time(str(text.encode(), "ascii"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00.001Z",
        "2026-01-31T12:00:00.000001",
        "2026-01-31T12:00:00.000001+00:00",
        "2026-01-31T12:00:00,000001Z",
        "2026-01-31 12:00:00.000001Z",
        "2026-02-30T12:00:00.000001Z",
        "2026-01-31T12:00:00.-00001Z",
        "2026-01-31T12:00:00.00_001Z",
    ],
)
def test_a_time_in_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a time|out of range|does not match"):
        parse_time(text)


def test_the_text_of_an_entry_is_compact_json_in_a_fixed_order() -> None:
    assert entry_json(Entry("a", b'{"b":1}', 7, 0, 1)) == (
        b'{"key":"a","value":{"b":1},"revision":7,'
        b'"created_at":"1970-01-01T00:00:00.000000Z","updated_at":"1970-01-01T00:00:00.000001Z"}'
    )


def test_the_text_of_an_entry_with_an_expiry_has_expires_at() -> None:
    assert json.loads(entry_json(Entry("a", b"null", 1, 0, 0, 5)))["expires_at"] == "1970-01-01T00:00:00.000005Z"


@given(st.text(st.characters(codec="utf-8")))
def test_special_characters_in_a_key_are_escaped_in_the_text(key: str) -> None:
    assert json.loads(entry_json(Entry(key, b"1", 1, 0, 0)))["key"] == key
