"""JSON values under keys over HTTP, durable, with leases that the service enforces on writes."""

from typing import Final

VERSION: Final = "0.2.0"
