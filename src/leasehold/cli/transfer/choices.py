"""The names that options of `import` take. Separate, because `--help` needs nothing else."""

from typing import Final, Literal, TypeAlias

FormatName: TypeAlias = Literal["entries", "backup", "consul", "etcd"]
FORMATS: Final[tuple[FormatName, ...]] = ("entries", "backup", "consul", "etcd")

ValueKind: TypeAlias = Literal["auto", "json", "text", "bytes"]
"""What the bytes of a value become. `auto`: see `foreign_values`."""
VALUE_KINDS: Final[tuple[ValueKind, ...]] = ("auto", "json", "text", "bytes")
