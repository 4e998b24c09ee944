"""Completion for a shell: `source <(python -m study.completion bash)`, or zsh.

In fish it is `python -m study.completion fish | source`. It completes the options of all commands
and what they take, the names of shipped spaces, studies and files after `python -m study.run` and
its like; what it does not know is left to the shell.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

COMMANDS = {
    name: name
    for name in (
        "status",
        "predict",
        "dynamics",
        "rerun",
        "data",
        "doctor",
        "check",
        "space.json_schema",
        "completion",
    )
} | {"run": "console.run_options"}
"""Modules of this package that are commands, and the modules that know their options."""
OF_STUDIES = ("status", "predict", "dynamics", "rerun")
"""Commands that take the folder of a study."""
PYTHONS = ("python", "python3")
SHIPPED = Path(__file__).parent.parent / "search_spaces"
STUDIES = "runs/studies/"


@dataclass(frozen=True)
class Word:
    """What may follow a command.

    Args:
        text: an option, or what a first argument may be.
        takes: whether a value follows.
        values: that it may have; if there are none, a file or anything.
        meaning: in a few words.
    """

    text: str
    takes: bool = False
    values: tuple[str, ...] = ()
    meaning: str = ""


def words_of(command: str) -> Iterator[Word]:
    """All long options of a command, and the words that its first argument may be."""
    known = {
        "--space": tuple(sorted(path.stem for path in SHIPPED.glob("*.yaml"))),
        "--profile": ("quick", "paper"),
        "--device": ("cpu", "cuda"),
    }
    for action in importlib.import_module(f"{__package__}.{COMMANDS[command]}").parser()._actions:
        choices = tuple(map(str, action.choices or ()))
        meaning = (action.help or "").partition("(")[0].strip()
        if not action.option_strings:
            yield from (Word(choice) for choice in choices)
        for option in action.option_strings:
            if option.startswith("--"):
                values = known.get(option, choices)
                yield Word(option, action.nargs != 0, values, meaning)


BASH = """\
# Completion of `python -m {package}.*`; made by `python -m {package}.completion`.
_{package}_words() {{
  case "$1" in
{words}
  esac
}}
_{package}_values() {{
  case "$1" in
{values}
  esac
}}
_{package}_complete() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
  local command="${{COMP_WORDS[2]}}" values
  COMPREPLY=()
  [ "${{COMP_WORDS[1]}}" = -m ] || return 0
  if [ "$COMP_CWORD" = 2 ]; then
    COMPREPLY=($(compgen -W "{commands}" -- "$word"))
    return 0
  fi
  # `--option=value` comes as three words.
  if [ "$before" = = ]; then before="${{COMP_WORDS[COMP_CWORD-2]}}"; fi
  if [ "$word" = = ]; then word=""; fi
  values="$(_{package}_values "$before")"
  if [ -n "$values" ]; then
    COMPREPLY=($(compgen -W "$values" -- "$word"))
    [ "$before" != --space ] || COMPREPLY+=($(compgen -f -X '!*.yaml' -- "$word"))
    return 0
  fi
  case "$word:$command" in
    -*) COMPREPLY=($(compgen -W "$(_{package}_words "$command")" -- "$word")) ;;
    {studies}) COMPREPLY=($(compgen -d -- "${{word:-{folder}}}")) ;;
    *) if [ "$COMP_CWORD" = 3 ]; then
         COMPREPLY=($(compgen -W "$(_{package}_words "$command")" -- "$word"))
       fi ;;
  esac
}}
complete -o default -o bashdefault -F _{package}_complete {pythons}
"""
ZSH = """\
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
autoload -Uz bashcompinit && bashcompinit
"""
FISH = """\
# Completion of `python -m {package}.*`; made by `python -m {package}.completion`.
function __{package}_is
    set -l words (commandline -opc)
    test "$words[2]" = -m; and test "$words[3]" = $argv[1]
end
function __{package}_folders
    set -l found {folder}*
    printf '%s\\n' $found
end
for python in {pythons}
    complete -c $python -s m -x -a '{commands}'
{rules}
end
"""


def bash() -> str:
    """A script for bash; zsh can run it, too."""
    package = str(__package__)
    found = {command: list(words_of(command)) for command in COMMANDS}
    values = {word.text: word.values for words in found.values() for word in words if word.values}
    return BASH.format(
        package=package,
        words="\n".join(
            f'    {package}.{command}) echo "{" ".join(word.text for word in words)}" ;;'
            for command, words in found.items()
        ),
        values="\n".join(f'    {name}) echo "{" ".join(of)}" ;;' for name, of in values.items()),
        commands=" ".join(f"{package}.{command}" for command in COMMANDS),
        studies="|".join(f"*:{package}.{command}" for command in OF_STUDIES),
        folder=STUDIES,
        pythons=" ".join(PYTHONS),
    )


def fish() -> str:
    """A script for fish."""
    package = str(__package__)
    rules = [
        f"complete -c $python -n '__{package}_is {package}.{command}' {rule}"
        for command in COMMANDS
        for rule in _fish_rules(command)
    ]
    return FISH.format(
        package=package,
        commands=" ".join(f"{package}.{command}" for command in COMMANDS),
        rules="\n".join(f"    {rule}" for rule in rules),
        folder=STUDIES,
        pythons=" ".join(PYTHONS),
    )


def _fish_rules(command: str) -> Iterator[str]:
    for word in words_of(command):
        if not word.text.startswith("--"):
            yield f"-a {word.text}"
            continue
        meaning = word.meaning.replace("\\", "\\\\").replace("'", "\\'")
        rule = f"-l {word.text[2:]} -d '{meaning}'"
        if word.values:
            files = "-rF" if word.text == "--space" else "-x"
            rule += f" {files} -a '{' '.join(word.values)}'"
        elif word.takes:
            rule += " -r"
        yield rule
    if command in OF_STUDIES:
        yield f"-a '(__{__package__}_folders)'"


SCRIPTS = {"bash": bash, "zsh": lambda: ZSH + bash(), "fish": fish}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m study.completion", description=__doc__)
    made.add_argument("shell", choices=[*SCRIPTS])
    return made


def main(arguments: list[str] | None = None) -> int:
    """Print the script."""
    sys.stdout.write(SCRIPTS[parser().parse_args(arguments).shell]())
    return 0


if __name__ == "__main__":
    sys.exit(main())
