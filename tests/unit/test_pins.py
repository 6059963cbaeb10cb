"""`tools/pins.py` reports what is not pinned, pinned wrongly, pinned without need, or installed in addition."""

import pytest
from packaging.requirements import Requirement
from pins import Installed, faults_of_client, find_faults

PROJECT = {
    "project": {"dependencies": ["web[fast]>=2"], "optional-dependencies": {"postgres": ["driver>=1"]}},
    "build-system": {"requires": ["builder"]},
    "dependency-groups": {"dev": ["Checker_Tool"]},
}
SERVE = ["web==2.1", "quick==1.0", "builder==3", "editables==1"]
TEXTS = {
    "serve.txt": "# needed\n" + "\n".join(SERVE),
    "postgres.txt": "driver==1.0  # the driver",
    "dev.txt": "-r serve.txt\n-r postgres.txt\nchecker-tool==5",
}
INSTALLED = {
    "web": Installed(
        "2.1", [Requirement("quick<2; extra == 'fast'"), Requirement("slow; extra == 'slow'"), Requirement("pip")]
    ),
    "quick": Installed("1.0", [Requirement("old; python_version < '3'")]),
    "builder": Installed("3"),
    "editables": Installed("1"),
    "driver": Installed("1.0"),
    "checker-tool": Installed("5", [Requirement("web")]),
    "pip": Installed("23"),
}


def faults(
    *, serve: list[str] = SERVE, texts: dict[str, str] | None = None, installed: dict[str, Installed] | None = None
) -> list[str]:
    return find_faults(PROJECT, TEXTS | {"serve.txt": "\n".join(serve)} | (texts or {}), INSTALLED | (installed or {}))


def test_exact_pins_of_all_requirements_are_accepted() -> None:
    assert faults() == []


@pytest.mark.parametrize(
    ("serve", "found"),
    [
        (["web==2.1", "builder==3", "editables==1"], "serve.txt: web needs quick<2"),
        ([*SERVE, "click==8"], "serve.txt: click is pinned and not required there"),
        ([*SERVE, "quick==1.0"], "serve.txt: quick is already pinned in serve.txt"),
        ([*SERVE, "quick>=1"], "serve.txt: 'quick>=1' is not a pin"),
        ([*SERVE, "other==1.*"], "serve.txt: 'other==1.*' is not a pin"),
        ([*SERVE, "git+https://example.org/other"], "serve.txt: 'git+https://example.org/other' is not a pin"),
        (["web==1.9", *SERVE[1:]], "serve.txt: pyproject.toml needs web[fast]>=2, and 1.9 is pinned"),
        (["web==2.1", "quick==2.0", *SERVE[2:]], 'serve.txt: web needs quick<2; extra == "fast", and 2.0 is pinned'),
        (["web==2.2", *SERVE[1:]], "serve.txt: web is pinned to 2.2, and 2.1 is installed"),
        (SERVE[:-1], "serve.txt: pyproject.toml needs editables, which is not pinned"),
    ],
)
def test_a_wrong_pin_is_reported(serve: list[str], found: str) -> None:
    assert [fault for fault in faults(serve=serve) if fault.startswith(found)] != []


def test_a_requirement_of_the_service_is_not_satisfied_by_a_pin_for_tests() -> None:
    found = faults(serve=["web==2.1", "builder==3", "editables==1"], texts={"dev.txt": "checker-tool==5\nquick==1.0"})
    assert [fault for fault in found if fault.startswith("serve.txt: web needs quick<2")] != []


def test_an_installed_package_without_a_pin_is_reported() -> None:
    assert faults(installed={"extra-tool": Installed("7")}) == ["extra-tool 7 is installed and not pinned"]


def test_a_pinned_package_that_is_not_installed_is_reported() -> None:
    assert find_faults(PROJECT, TEXTS, {name: own for name, own in INSTALLED.items() if name != "driver"}) == [
        "postgres.txt: driver is pinned and not installed"
    ]


def test_a_requirement_of_the_client_that_the_service_lacks_is_reported() -> None:
    client = {"project": {"dependencies": ["web[fast]>=2", "http>=2"]}}
    assert faults_of_client(PROJECT, client) == ["pyproject.toml: the client needs http>=2, which is not a dependency"]
