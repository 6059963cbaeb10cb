"""Check that `requirements/*.txt` pin exactly what `pyproject.toml` needs, and that nothing else is installed.

`pyproject.toml` lists the direct dependencies with their lowest supported versions, those of the client included.
`requirements/*.txt` pin these, and all their dependencies in turn, to one version each. `make lint` runs this check in
the environment of `make test`. To add a dependency, add it to `pyproject.toml`, install it, and add the lines that this
check asks for. To remove one, remove its lines: the Makefile then uninstalls what is installed and not pinned
(`--unpinned`).
"""

import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EDITABLE_INSTALL: Final = ("editables",)
"""The package that hatchling currently requires for an editable install."""
COMES_WITH_PYTHON: Final = frozenset({"pip", "setuptools"})
"""A new environment contains these."""


@dataclass(frozen=True)
class Installed:
    version: str
    requires: Sequence[Requirement] = ()


@dataclass(frozen=True)
class Pin:
    file: str
    version: str


def roots(project: Mapping[str, Any]) -> dict[str, list[Requirement]]:
    """The requirements that each file of `requirements/` must pin, from `pyproject.toml`."""
    extras = project["project"]["optional-dependencies"]
    texts = {
        "serve.txt": [*project["project"]["dependencies"], *project["build-system"]["requires"], *EDITABLE_INSTALL],
        **{f"{extra}.txt": requirements for extra, requirements in extras.items()},
        "dev.txt": project["dependency-groups"]["dev"],
    }
    return {file: [Requirement(text) for text in requirements] for file, requirements in texts.items()}


def faults_of_client(project: Mapping[str, Any], client: Mapping[str, Any]) -> list[str]:
    """The package of the service contains that of the client, so it needs the same packages."""
    missing = sorted({*client["project"]["dependencies"]} - {*project["project"]["dependencies"]})
    return [f"pyproject.toml: the client needs {each}, which is not a dependency" for each in missing]


def read_pins(texts: Mapping[str, str], faults: list[str]) -> dict[str, Pin]:
    """The pins of all files by name. A line that is not a pin is added to `faults`."""
    pins: dict[str, Pin] = {}
    for file, text in texts.items():
        for line in text.splitlines():
            content = line.partition("#")[0].strip()
            if not content or content.startswith("-r "):
                continue
            name, _, version = content.partition("==")
            if not version or any(character in version for character in "*,;[ "):
                faults.append(f"{file}: {content!r} is not a pin of the form name==version")
                continue
            own = canonicalize_name(name)
            if own in pins:
                faults.append(f"{file}: {own} is already pinned in {pins[own].file}")
            pins[own] = Pin(file, version)
    return pins


def needed_by(
    requirements: Iterable[Requirement], installed: Mapping[str, Installed]
) -> Iterator[tuple[str, Requirement]]:
    """The requirements, their own requirements, and so on, each with what requires it. No pair comes twice."""
    waiting = [("pyproject.toml", each) for each in requirements]
    seen: set[tuple[str, str]] = set()
    while waiting:
        asker, requirement = waiting.pop()
        yield asker, requirement
        name: str = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras}:
            if (name, extra) in seen or name not in installed:
                continue
            seen.add((name, extra))
            waiting += [
                (name, each)
                for each in installed[name].requires
                if each.marker is None or each.marker.evaluate({"extra": extra})
            ]


def find_faults(project: Mapping[str, Any], texts: Mapping[str, str], installed: Mapping[str, Installed]) -> list[str]:
    """Everything that is wrong with the pins. `texts`: the files of `requirements/` by name. `installed`: by canonical
    name, without the project itself."""
    faults: list[str] = []
    pins = read_pins(texts, faults)
    files: list[str] = []
    """The current file and those before it, because an environment has them all."""
    for file, requirements in roots(project).items():
        files.append(file)
        wanted: set[str] = set()
        for asker, requirement in needed_by(requirements, installed):
            name: str = canonicalize_name(requirement.name)
            pin = pins.get(name)
            wanted.add(name)
            if name in COMES_WITH_PYTHON:
                continue
            if pin is None or pin.file not in files:
                faults.append(f"{file}: {asker} needs {requirement}, which is not pinned")
            elif not requirement.specifier.contains(pin.version, prereleases=True):
                faults.append(f"{pin.file}: {asker} needs {requirement}, and {pin.version} is pinned")
        faults += [
            f"{file}: {name} is pinned and not required there"
            for name, pin in pins.items()
            if pin.file == file and name not in wanted
        ]
    for name, pin in pins.items():
        present = installed.get(name)
        if present is None:
            faults.append(f"{pin.file}: {name} is pinned and not installed")
        elif present.version != pin.version:
            faults.append(f"{pin.file}: {name} is pinned to {pin.version}, and {present.version} is installed")
    faults += [
        f"{name} {installed[name].version} is installed and not pinned" for name in find_unpinned(pins, installed)
    ]
    return sorted(set(faults))


def find_unpinned(pins: Iterable[str], installed: Iterable[str]) -> list[str]:
    return sorted(set(installed) - set(pins) - COMES_WITH_PYTHON)


def main() -> int:
    folder = Path(__file__).parent.parent
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    client = tomllib.loads((folder / "clients/python/pyproject.toml").read_text())
    own = {canonicalize_name(each["project"]["name"]) for each in (project, client)}
    texts = {path.name: path.read_text() for path in sorted((folder / "requirements").glob("*.txt"))}
    installed: dict[str, Installed] = {
        canonicalize_name(each.name): Installed(each.version, [Requirement(text) for text in each.requires or ()])
        for each in distributions()
        if canonicalize_name(each.name) not in own
    }
    if sys.argv[1:] == ["--unpinned"]:
        print("\n".join(find_unpinned(read_pins(texts, []), installed)))
        return 0
    faults = faults_of_client(project, client) + find_faults(project, texts, installed)
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
