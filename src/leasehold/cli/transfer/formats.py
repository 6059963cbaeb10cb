"""Finds the format of a file, and reads it.

`entries` and `backup` are read line by line. `consul` and `etcd` are one JSON document and are read as a whole, so they
need memory for it.
"""

import re
from itertools import chain
from typing import BinaryIO, Final, Literal, NamedTuple

import msgspec

from leasehold.cli.transfer.backup_lines import BackupLines
from leasehold.cli.transfer.choices import FormatName, ValueKind
from leasehold.cli.transfer.entry_lines import read_lines
from leasehold.cli.transfer.foreign_files import read_consul, read_etcd
from leasehold.cli.transfer.items import FoundItems
from leasehold.errors import unavailable
from leasehold.limits import MIB

READ_BYTES: Final = 1 * MIB
PLACE_OF_FIRST_ENTRY: Final = 2
"""The line of a backup after its head."""

_BEGIN_OF_BACKUP: Final = re.compile(rb'\s*\{\s*"leasehold"\s*:')
_BEGIN_OF_SEVERAL: Final = re.compile(rb'\s*\{\s*"leasehold_backup"\s*:')
_BEGIN_OF_CONSUL: Final = re.compile(rb"\s*\[")
_BEGIN_OF_ETCD: Final = re.compile(rb'\s*\{\s*(?:"header"\s*:|$)')
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_COMMANDS: Final[dict[FormatName, str]] = {"consul": "consul kv export", "etcd": "etcdctl get -w json"}


class Options(NamedTuple):
    """How the values of `consul` and `etcd` are read."""

    values: ValueKind = "auto"
    keeps_flags: bool = False
    takes_leased: bool = True


class Reading(NamedTuple):
    """`unit`: what the places of the items count."""

    format_name: FormatName
    unit: Literal["line", "item"]
    items: FoundItems


def read(file: BinaryIO, name: str, format_name: FormatName | None, options: Options) -> Reading:
    """The items of a file. `name`: of the file, for messages. `format_name` None: found by the first line.

    Raises ServiceError, also while the items are read.
    """
    first = file.readline().removeprefix(_BYTE_ORDER_MARK)
    if _BEGIN_OF_SEVERAL.match(first):
        raise unavailable(f"{name} is a backup of several namespaces: make one of a single namespace, with --namespace")
    chosen = _found_format(first) if format_name is None else format_name
    if chosen == "entries":
        return Reading(chosen, "line", read_lines(chain([first], file)))
    if chosen == "backup":
        lines = BackupLines(chain([first], iter(lambda: file.read(READ_BYTES), b"")), name)
        return Reading(chosen, "line", read_lines(lines, first_place=PLACE_OF_FIRST_ENTRY))
    document = first + file.read()
    try:
        if chosen == "consul":
            return Reading(chosen, "item", read_consul(document, options.values, keeps_flags=options.keeps_flags))
        return Reading(chosen, "item", read_etcd(document, options.values, takes_leased=options.takes_leased))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise unavailable(f"{name} is not what `{_COMMANDS[chosen]}` writes, or is cut off: {error}") from error


def _found_format(first_line: bytes) -> FormatName:
    if _BEGIN_OF_CONSUL.match(first_line):
        return "consul"
    if _BEGIN_OF_ETCD.match(first_line):
        return "etcd"
    return "backup" if _BEGIN_OF_BACKUP.match(first_line) else "entries"
