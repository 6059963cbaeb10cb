"""What a checkout must not take along into a commit or an image."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MADE_BY_THE_DOCUMENTED_COMMANDS = ["secret", "secret.new", "secrets/leasehold_secret", ".env", "data.json"]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
@pytest.mark.parametrize("name", MADE_BY_THE_DOCUMENTED_COMMANDS)
def test_git_ignores_what_the_documented_commands_make(name: str) -> None:
    ignored = subprocess.run(["git", "check-ignore", "--quiet", name], cwd=ROOT, check=False)
    assert ignored.returncode == 0


def test_an_image_takes_only_what_is_named() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    named = {rule for rule in rules if rule.startswith("!")}
    assert (rules[0], named) == ("*", {"!pyproject.toml", "!README.md", "!requirements", "!src"})
