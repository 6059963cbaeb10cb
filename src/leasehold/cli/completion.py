"""`leasehold completion`: prints a script that completes commands and options in a shell.

The scripts are made from the declarations of the options, so a new command or option is in them without a change here.
"""

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from leasehold.cli.arguments import DESCRIBE, Command, Described, Parser
from leasehold.cli.exit_codes import SUCCESS

SHELLS: Final = ("bash", "zsh", "fish")


class Arguments(Namespace):
    shell: str


def parse(program: str, words: Sequence[str]) -> Arguments:
    parser = Parser(
        program,
        COMPLETION.summary,
        usage="[OPTIONS] SHELL",
        details="For example: source <(leasehold completion bash)",
    )
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish.")
    parser.check_options(words)
    return parser.parse_args(words, Arguments())


def run(program: str, words: Sequence[str]) -> int:
    arguments = parse(program, words)
    make = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}[arguments.shell]
    sys.stdout.write(make(described_commands()))
    return SUCCESS


class Option(NamedTuple):
    """`names`: all spellings. `value`: the name of its value; None for a flag."""

    names: Sequence[str]
    value: str | None
    choices: Sequence[str]
    summary: str


class DescribedCommand(NamedTuple):
    """`words`: what its first argument may be, if there is a choice."""

    name: str
    summary: str
    options: Sequence[Option]
    words: Sequence[str]


def described_commands() -> Sequence[DescribedCommand]:
    from leasehold.cli.app import MODULES, command

    return [_described(name, command(name)) for name in MODULES]


def _described(name: str, command: Command) -> DescribedCommand:
    try:
        command.run("leasehold", DESCRIBE)
    except Described as described:
        options = [
            Option(
                each.option_strings,
                None if each.nargs == 0 else str(each.metavar or each.dest.upper()),
                [str(choice) for choice in each.choices or ()],
                (each.help or "").partition("  [")[0],
            )
            for each in described.actions
            if each.option_strings
        ]
        arguments = [each for each in described.actions if not each.option_strings]
        words = [str(choice) for choice in arguments[0].choices or ()] if arguments else []
        return DescribedCommand(name, command.summary, options, words)
    raise AssertionError("a command must call check_options first")


# bash ---------------------------------------------------------------------------------------------------------

_BASH: Final = r"""# bash completion of leasehold
_leasehold() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]}
    local options= words= index
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "@COMMANDS@ --help --version" -- "$word"))
        return
    fi
    for ((index = 2; index < COMP_CWORD; index++)); do
        # `leasehold lock NAME -- COMMAND`
        if [ "${COMP_WORDS[index]}" = -- ]; then
            [ "$((index + 1))" -eq "$COMP_CWORD" ] && COMPREPLY=($(compgen -c -- "$word"))
            return
        fi
    done
    # bash splits --option=value at the sign.
    if [ "$before" = = ]; then
        before=${COMP_WORDS[COMP_CWORD-2]}
    elif [ "$word" = = ]; then
        word=
    fi
    case "$command $before" in
@CHOICES@    esac
    case $command in
@OPTIONS@    esac
    case $word in
        -*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;;
        *) [ "$COMP_CWORD" -eq 2 ] && COMPREPLY=($(compgen -W "$words" -- "$word")) ;;
    esac
}
complete -o bashdefault -o default -F _leasehold leasehold
"""


def bash_script(commands: Sequence[DescribedCommand]) -> str:
    choices = "".join(
        f'        {_bash_cases(command.name, option)}) COMPREPLY=($(compgen -W "{" ".join(option.choices)}"'
        ' -- "$word")); return ;;\n'
        for command in commands
        for option in command.options
        if option.choices
    )
    names = {each.name: " ".join(name for option in each.options for name in option.names) for each in commands}
    words = {each.name: f' words="{" ".join(each.words)}"' if each.words else "" for each in commands}
    options = "".join(f'        {name}) options="{of_name}"{words[name]} ;;\n' for name, of_name in names.items())
    return (
        _BASH.replace("@COMMANDS@", " ".join(command.name for command in commands))
        .replace("@CHOICES@", choices)
        .replace("@OPTIONS@", options)
    )


def _bash_cases(command: str, option: Option) -> str:
    return "|".join(f'"{command} {name}"' for name in option.names)


# zsh ----------------------------------------------------------------------------------------------------------

_ZSH: Final = r"""#compdef leasehold
_leasehold() {
    local state
    local -a commands
    commands=(
@COMMANDS@    )
    _arguments -C '(- *)'{-h,--help}'[Print this help and exit.]' '(- *)--version[Print the version and exit.]' \
        '1: :->command' '*:: :->argument'
    case $state in
        command) _describe command commands ;;
        argument)
            case $words[1] in
@OPTIONS@            esac ;;
    esac
}
if [ "$funcstack[1]" = _leasehold ]; then
    _leasehold "$@"
else
    compdef _leasehold leasehold
fi
"""


def zsh_script(commands: Sequence[DescribedCommand]) -> str:
    listed = "".join(f"        {_quoted(f'{command.name}:{command.summary}')}\n" for command in commands)
    options = "".join(
        f"                {command.name}) _arguments {' '.join(_zsh_options(command))}{_zsh_words(command)}"
        " '*: :_default' ;;\n"
        for command in commands
    )
    return _ZSH.replace("@COMMANDS@", listed).replace("@OPTIONS@", options)


def _zsh_options(command: DescribedCommand) -> Iterator[str]:
    for option in command.options:
        summary = "".join(f"\\{each}" if each in "[]:\\" else each for each in option.summary)
        value = "" if option.value is None else f":{option.value}:{_zsh_values(option)}"
        for name in option.names:
            form = f"{name}=" if value and name.startswith("--") else name
            yield _quoted(f"{form}[{summary}]{value}")


def _zsh_words(command: DescribedCommand) -> str:
    return f" '1: :({' '.join(command.words)})'" if command.words else ""


def _zsh_values(option: Option) -> str:
    return f"({' '.join(option.choices)})" if option.choices else "_default"


# fish ---------------------------------------------------------------------------------------------------------


def fish_script(commands: Sequence[DescribedCommand]) -> str:
    lines = [
        "# fish completion of leasehold",
        # Not `__fish_seen_subcommand_from`: the words of one command may be the names of others.
        "function __leasehold_runs",
        "    set -l words (commandline -opc)",
        '    test "$words[2]" = $argv[1]',
        "end",
        "function __leasehold_words",
        "    test (count (commandline -opc)) -eq 2",
        "end",
        "complete -c leasehold -n __fish_use_subcommand -f",
        *(
            f"complete -c leasehold -n __fish_use_subcommand -a {command.name} -d {_fish_quoted(command.summary)}"
            for command in commands
        ),
        *(_fish_option(command.name, option) for command in commands for option in command.options),
        *(_fish_words(command) for command in commands if command.words),
    ]
    return "\n".join(lines) + "\n"


def _fish_option(command: str, option: Option) -> str:
    names = (f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
    value = "" if option.value is None else f" -x -a '{' '.join(option.choices)}'" if option.choices else " -r"
    condition = f"'__leasehold_runs {command}'"
    return f"complete -c leasehold -n {condition} {' '.join(names)}{value} -d {_fish_quoted(option.summary)}"


def _fish_words(command: DescribedCommand) -> str:
    condition = f"'__leasehold_runs {command.name}; and __leasehold_words'"
    return f"complete -c leasehold -n {condition} -f -a '{' '.join(command.words)}'"


def _quoted(text: str) -> str:
    """A word for bash and zsh."""
    return "'" + text.replace("'", "'\\''") + "'"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


COMPLETION = Command("Print a script that completes commands and options in a shell.", run)
