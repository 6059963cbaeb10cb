"""`leasehold completion`: what the real shells complete with its scripts."""

import os
import pty
import subprocess
from pathlib import Path

import pytest
from commands import run
from programs import needs
from running import ANSWER_SECONDS, clean_environment

from leasehold.cli.app import MODULES
from leasehold.cli.completion import described_commands


def script(shell: str, folder: Path) -> Path:
    ended = run("completion", shell)
    assert (ended.code, ended.errors) == (0, "")
    path = folder / f"completion.{shell}"
    path.write_bytes(ended.output)
    return path


def output_of(*command: str) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ANSWER_SECONDS)
    assert done.stderr == ""
    return done.stdout.splitlines()


def in_bash(path: Path, *words: str) -> list[str]:
    """What bash offers for the last word."""
    array = " ".join(f"'{word}'" for word in words)
    setting = f"COMP_WORDS=({array}) COMP_CWORD={len(words) - 1}; _leasehold; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    return output_of("bash", "--norc", "-c", f". {path}; {setting}")


def in_fish(path: Path, line: str) -> dict[str, str]:
    """What fish offers at the end of the line, with its explanations."""
    offered = output_of("fish", "--no-config", "-c", f"source {path}; complete -C '{line}'")
    return {word: rest for word, _, rest in (each.partition("\t") for each in offered)}


def test_every_command_and_option_is_described() -> None:
    described = described_commands()
    assert [each.name for each in described] == list(MODULES)
    assert all("--help" in {name for option in each.options for name in option.names} for each in described)
    [get] = [each for each in described if each.name == "get"]
    output, wait = (next(each for each in get.options if name in each.names) for name in ("-o", "--wait"))
    assert (output.names, output.choices, wait.value) == (["-o", "--output"], ["json", "table", "raw"], "SECONDS")
    with_words = {each.name: each.words for each in described if each.words}
    assert with_words == {
        "namespaces": ["list", "show", "create", "delete"],
        "completion": ["bash", "zsh", "fish"],
    }


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["leasehold", "pa"], ["patch"]),
        (["leasehold", "get", "--if"], ["--if-none-match"]),
        (["leasehold", "put", "key", "--if"], ["--if-none-match", "--if-absent", "--if-match"]),
        (["leasehold", "get", "key", "-o", "j"], ["json"]),
        (["leasehold", "get", "--output", "=", "t"], ["table"]),
        (["leasehold", "get", "--output", "="], ["json", "table", "raw"]),
        (["leasehold", "namespaces", ""], ["list", "show", "create", "delete"]),
        (["leasehold", "namespaces", "cr"], ["create"]),
        (["leasehold", "namespaces", "delete", "d"], [""]),
        (["leasehold", "namespaces", "delete", "--y"], ["--yes"]),
        (["leasehold", "get", "k"], [""]),
        (["leasehold", "get", "--", "--if"], [""]),
    ],
    ids=" ".join,
)
def test_bash_completes_commands_options_and_choices(tmp_path: Path, words: list[str], offered: list[str]) -> None:
    assert in_bash(script("bash", tmp_path), *words) == offered


@needs("fish")
def test_fish_completes_commands_options_and_choices(tmp_path: Path) -> None:
    path = script("fish", tmp_path)
    assert in_fish(path, "leasehold pat") == {"patch": "Change members of a value, by a merge patch or a JSON patch."}
    assert in_fish(path, "leasehold get --if") == {
        "--if-none-match": "Only if it has another ETag or revision; with --wait, wait for that."
    }
    assert list(in_fish(path, "leasehold get -o ")) == ["json", "raw", "table"]
    assert list(in_fish(path, "leasehold namespaces ")) == ["create", "delete", "list", "show"]
    assert list(in_fish(path, "leasehold namespaces delete --y")) == ["--yes"]
    assert list(in_fish(path, "leasehold namespaces delete --i")) == []


@needs("zsh")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("leasehold patc\t", "leasehold patch "),
        ("leasehold get --if\t", "leasehold get --if-none-match="),
        ("leasehold get key -o ta\t", "leasehold get key -o table "),
        ("leasehold namespaces cr\t", "leasehold namespaces create "),
    ],
)
def test_zsh_completes_commands_options_and_choices(tmp_path: Path, typed: str, completed: str) -> None:
    """In a terminal, because zsh completes only there. Its line editor reports what the line is after the tab."""
    path = script("zsh", tmp_path)
    setup = f"""
        autoload -Uz compinit; compinit -D -u; source {path}
        report() {{ print -r -- "$BUFFER|" > {tmp_path}/line; exit }}
        zle -N report; bindkey '^G' report
    """
    (tmp_path / ".zshrc").write_text(setup)
    controller, terminal = pty.openpty()
    environment = clean_environment() | {"ZDOTDIR": str(tmp_path), "TERM": "dumb"}
    with subprocess.Popen(["zsh", "-i"], stdin=terminal, stdout=terminal, stderr=terminal, env=environment) as shell:
        os.close(terminal)
        os.write(controller, f"{typed}\x07".encode())
        shell.wait(ANSWER_SECONDS)
    os.close(controller)
    assert (tmp_path / "line").read_text() == f"{completed}|\n"
