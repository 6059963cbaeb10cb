"""What a query raises whose connection was terminated meanwhile."""

import asyncio
from unittest.mock import Mock

import asyncpg
import pytest

from leasehold.engines.postgres.links import Connection, time_limit


@pytest.mark.parametrize(("is_closed", "raised"), [(True, asyncpg.InterfaceError), (False, AttributeError)])
def test_only_a_terminated_connection_excuses_an_attribute_error(is_closed: bool, raised: type[Exception]) -> None:  # noqa: FBT001
    connection = Mock(spec=Connection)
    connection.is_closed.return_value = is_closed

    async def query() -> None:
        with time_limit(connection, 60.0):
            raise AttributeError

    with pytest.raises(raised):
        asyncio.run(query())
