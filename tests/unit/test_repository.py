"""What a checkout must not add to a commit or to an image."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MADE_BY_THE_DOCUMENTED_COMMANDS = ["secret", "secret.new", "secrets/leasehold_secret", ".env", "data.json"]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
@pytest.mark.parametrize("name", MADE_BY_THE_DOCUMENTED_COMMANDS)
def test_git_ignores_the_files_that_documented_commands_create(name: str) -> None:
    ignored = subprocess.run(["git", "check-ignore", "--quiet", name], cwd=ROOT, check=False)
    assert ignored.returncode == 0


def test_an_image_contains_only_listed_files() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    named = {rule for rule in rules if rule.startswith("!")}
    assert rules[0] == "*"
    assert named == {"!pyproject.toml", "!README.md", "!requirements", "!src", "!clients/python/src"}
