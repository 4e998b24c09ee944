"""Completion for a shell: `source <(python -m study.completion bash)`.

It completes the options of all commands, the names of shipped spaces, profiles, studies and files
after `python -m study.run` and its like; what it does not know is left to the shell.
"""

from __future__ import annotations

import argparse
import importlib
import sys
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
        "schema",
        "completion",
    )
} | {"run": "options"}
"""Modules of this package that are commands, and the modules that know their options."""
PYTHONS = ("python", "python3")
SHIPPED = Path(__file__).parent.parent / "search_spaces"

BASH = """\
# Completion of `python -m {package}.*`; made by `python -m {package}.completion`.
_{package}_words() {{
  case "$1" in
{cases}
  esac
}}
_{package}_complete() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
  local command="${{COMP_WORDS[2]}}"
  COMPREPLY=()
  [ "${{COMP_WORDS[1]}}" = -m ] || return 0
  if [ "$COMP_CWORD" = 2 ]; then
    COMPREPLY=($(compgen -W "{commands}" -- "$word"))
    return 0
  fi
  case "$before" in
    --space)
      COMPREPLY=($(compgen -W "{spaces}" -- "$word") $(compgen -f -X '!*.yaml' -- "$word")) ;;
    --profile) COMPREPLY=($(compgen -W "quick paper" -- "$word")) ;;
    --device) COMPREPLY=($(compgen -W "cpu cuda" -- "$word")) ;;
    *) case "$word" in
         -*) COMPREPLY=($(compgen -W "$(_{package}_words "$command")" -- "$word")) ;;
         *) case "$command" in
              {package}.status|{package}.rerun|{package}.predict|{package}.dynamics)
                COMPREPLY=($(compgen -d -- "${{word:-runs/studies/}}")) ;;
            esac ;;
       esac ;;
  esac
}}
complete -o default -o bashdefault -F _{package}_complete {pythons}
"""
ZSH = "autoload -Uz bashcompinit && bashcompinit\n"


def options_of(command: str) -> list[str]:
    """All long options of a command, and the words that its first argument may be."""
    found = []
    for action in importlib.import_module(f"{__package__}.{COMMANDS[command]}").parser()._actions:
        found += [option for option in action.option_strings if option.startswith("--")]
        if isinstance(action, argparse._SubParsersAction):
            found += [*action.choices]
    return found


def bash() -> str:
    """A script for bash; zsh can run it, too."""
    package = str(__package__)
    cases = "\n".join(
        f'    {package}.{command}) echo "{" ".join(options_of(command))}" ;;'
        for command in COMMANDS
    )
    return BASH.format(
        package=package,
        cases=cases,
        commands=" ".join(f"{package}.{command}" for command in COMMANDS),
        spaces=" ".join(sorted(path.stem for path in SHIPPED.glob("*.yaml"))),
        pythons=" ".join(PYTHONS),
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m study.completion", description=__doc__)
    made.add_argument("shell", choices=["bash", "zsh"])
    return made


def main(arguments: list[str] | None = None) -> int:
    """Print the script."""
    shell = parser().parse_args(arguments).shell
    sys.stdout.write(ZSH * (shell == "zsh") + bash())
    return 0


if __name__ == "__main__":
    sys.exit(main())
