"""The metrics and labels that a PromQL expression uses.

It knows the part of the grammar that the alerts and the dashboard use, and refuses what it does not know:
https://prometheus.io/docs/prometheus/latest/querying/basics
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
    | (?P<number>\d+(?:\.\d+)?)
    | (?P<text>"(?:[^"\\]|\\.)*")
    | (?P<range>\[[^\]]+\])
    | (?P<sign>[<>=!]=|=~|!~|[-+*/<>=(){},])
    )""",
    re.VERBOSE,
)
_GROUPINGS = ("by", "without", "on", "ignoring")
_OPERATORS = ("and", "or", "unless")


@dataclass
class Used:
    """The metrics of an expression, and for each the labels that are selected or grouped by."""

    labels: Mapping[str, set[str]] = field(default_factory=dict)
    matchers: list[tuple[str, str, str]] = field(default_factory=list)
    """Label, operator and value."""


def used_by(expression: str) -> Used:
    """Raises ValueError for what is not PromQL, as far as this module knows it."""
    tokens = list(_tokens(expression))
    kinds = [kind for kind, _ in tokens] + ["", ""]
    texts = [text for _, text in tokens] + ["", ""]
    labels: dict[str, set[str]] = defaultdict(set)
    grouped: set[str] = set()
    matchers: list[tuple[str, str, str]] = []
    metric, place = "", 0
    while place < len(tokens):
        if texts[place] in _GROUPINGS:
            end = texts.index(")", place)
            grouped |= {text for kind, text in tokens[place:end] if kind == "name"} - {texts[place]}
            place = end
        elif texts[place] == "{":
            end = texts.index("}", place)
            while place < end:
                if kinds[place + 1] != "name" or kinds[place + 3] != "text":
                    raise ValueError(f"not a matcher: {texts[place + 1 : place + 4]}")
                label, operator, value = texts[place + 1 : place + 4]
                labels[metric].add(label)
                matchers.append((label, operator, value[1:-1]))
                place += 4
        elif kinds[place] == "name" and texts[place + 1] not in ("(", *_GROUPINGS) and texts[place] not in _OPERATORS:
            metric = texts[place]
            labels[metric] |= set()
        place += 1
    return Used({name: own | grouped for name, own in labels.items()}, matchers)


def _tokens(expression: str) -> Iterator[tuple[str, str]]:
    place, expression = 0, expression.rstrip()
    while place < len(expression):
        found = _TOKEN.match(expression, place)
        if found is None or found.lastgroup is None:
            raise ValueError(f"not PromQL: {expression[place:]!r}")
        yield found.lastgroup, found[found.lastgroup]
        place = found.end()
