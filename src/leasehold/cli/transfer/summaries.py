"""What became of the entries that were read, as one line for people. Pure functions."""

from leasehold.cli.transfer.importing import Counts, WriteOptions


def summary(counts: Counts, options: WriteOptions, *, verb: str, unit: str) -> str:
    """`verb`: in the past, such as `imported`. `unit`: what was rejected, such as `line`."""
    would = "would be " if options.is_dry_run else ""
    begin = f"{counted(counts.written, 'entry')} {would}{verb}"
    existing = "exist already" if options.if_absent else "replaced by these"
    rest = {
        existing: counts.existing,
        "expired": counts.expired,
        "without the prefix": counts.outside,
        "folders left out": counts.folders,
        "leased, left out": counts.leased,
        "without their flags": counts.lost_flags,
        "without their lease, so they do not expire": counts.lost_leases,
        f"{plural_of(unit)} not {verb}": counts.rejected,
    }
    return "; ".join((begin, *(f"{what}: {count:,}" for what, count in rest.items() if count)))


def counted(number: int, noun: str) -> str:
    """`1 entry`, `1,000 entries`."""
    return f"{number:,} {noun if number == 1 else plural_of(noun)}"


def plural_of(noun: str) -> str:
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
