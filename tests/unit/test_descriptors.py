"""How many connections fit beside the service's own files."""

import pytest

from leasehold.process.descriptors import RESERVED_DESCRIPTORS, connections_within


@pytest.mark.parametrize(
    ("descriptors", "wanted", "served", "refused"),
    [
        (12_000, 10_000, 10_000, 1_000),
        (11_048, 10_000, 10_000, 1_000),
        (11_047, 10_000, 9_999, 1_000),
        (1_024, 10_000, 732, 244),
        (1_024, 100, 100, 244),
        (128, 10_000, 60, 20),
    ],
)
def test_connections_leave_room_for_the_files_of_the_service(
    descriptors: int, wanted: int, served: int, refused: int
) -> None:
    assert connections_within(descriptors, wanted) == (served, refused)
    assert served + refused + RESERVED_DESCRIPTORS <= descriptors


def test_some_connections_are_served_with_any_number_of_descriptors() -> None:
    assert connections_within(10, 10_000)[0] >= 1
