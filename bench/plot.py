"""Draws the rates as bars in an SVG file that is readable on a light and on a dark background."""

from html import escape
from typing import Final

from bench.results import Instance, Results, spread
from bench.rows import (
    ETCD,
    HTTPX2,
    LEASEHOLD,
    LEASEHOLD_LARGE,
    LEASEHOLD_PG,
    LEASEHOLD_PG_2,
    LEASEHOLD_PG_PAIR,
    LEASEHOLD_PG_SLOW,
    LEASEHOLD_PG_SLOW_PAIR,
    NGINX,
    PGBENCH_1,
    PGBENCH_16,
    PGBENCH_64,
    PGBENCH_64_J2,
    PYTHON_CLIENT,
    WEBDIS,
    Row,
)

_COLORS: Final = {
    LEASEHOLD: "#2f81f7",
    LEASEHOLD_LARGE: "#8250df",
    WEBDIS: "#d1722b",
    ETCD: "#2da44e",
    NGINX: "#8b949e",
    LEASEHOLD_PG: "#2f81f7",
    LEASEHOLD_PG_2: "#8250df",
    LEASEHOLD_PG_PAIR: "#8250df",
    LEASEHOLD_PG_SLOW: "#2f81f7",
    LEASEHOLD_PG_SLOW_PAIR: "#8250df",
    PYTHON_CLIENT: "#2f81f7",
    HTTPX2: "#8b949e",
    **dict.fromkeys((PGBENCH_1, PGBENCH_16, PGBENCH_64, PGBENCH_64_J2), "#bf4b8a"),
}
_WIDTH, _LEFT, _RIGHT, _BAR, _GAP, _HEAD = 760, 180, 90, 16, 5, 30
_STYLE: Final = """\
text { font: 12px system-ui, sans-serif; fill: #1f2328 } .head { font-weight: 600 } line { stroke: #1f2328 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } line { stroke: #e6edf3 } }"""


def svg(results: Results) -> str:
    """A bar for each median rate, grouped by row and scaled per group. A line shows the range from least to most.

    A bar of the service is labelled with its side and the version of its Python.
    """
    parts: list[str] = []
    top = 0
    for row in results.rows:
        lines, height = _group(results, row, top)
        parts += lines
        top += height
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top + _GAP}" role="img">'
    return (
        "\n".join([opening, "<title>Operations per second</title>", f"<style>{_STYLE}</style>", *parts, "</svg>"])
        + "\n"
    )


def _group(results: Results, row: Row, top: int) -> tuple[list[str], int]:
    rates = {
        instance: spread([load.operations_per_second for load in results.loads[row.name, instance]])
        for side in row.sides
        for instance in results.instances(side)
        if results.loads.get((row.name, instance)) and (row.name, instance) not in results.failures
    }
    scale = (_WIDTH - _LEFT - _RIGHT) / max((rate.high for rate in rates.values()), default=1)
    lines = [f'<text class="head" x="0" y="{top + 20}">{escape(results.title(row))}, operations/s</text>']
    for number, (instance, rate) in enumerate(rates.items()):
        color = _COLORS[instance.side]
        y = top + _HEAD + number * (_BAR + _GAP)
        low, end, high = (_LEFT + scale * figure for figure in (rate.low, rate.median, rate.high))
        middle, base = y + _BAR / 2, y + _BAR - 4
        lines += [
            f'<text x="{_LEFT - 8}" y="{base}" text-anchor="end">{escape(_label(instance))}</text>',
            f'<rect x="{_LEFT}" y="{y}" width="{end - _LEFT:.1f}" height="{_BAR}" rx="2" fill="{color}"/>',
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>',
            f'<text x="{high + 8:.1f}" y="{base}">{rate.median:,.0f}</text>',
        ]
    return lines, _HEAD + len(rates) * (_BAR + _GAP)


def _label(instance: Instance) -> str:
    return f"{instance.side} {instance.python}".strip()
