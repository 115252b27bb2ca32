"""Completion of the command line in a shell: the commands, and the options of each, from their signatures."""

import inspect
from typing import Literal

from hf_sparse.signature import stand_in

Shell = Literal["bash", "zsh", "fish"]

_BASH = """\
_hf_sparse() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}"
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{commands}" -- "$current"))
        return
    fi
    local options=""
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
    case "$current" in
        --*) current="${{current#--}}"; COMPREPLY=($(compgen -W "$options" -- "--${{current//-/_}}")) ;;
        -*) COMPREPLY=($(compgen -W "$options" -- "$current")) ;;
        *) COMPREPLY=($(compgen -f -- "$current")) ;;
    esac
}}
complete -o filenames -F _hf_sparse hf-sparse"""


def completion(shell: Shell) -> dict[str, str]:
    """Print what completes the commands and their options in a shell.

    bash: `eval "$(hf-sparse completion bash)"` in ~/.bashrc; zsh: the same in ~/.zshrc after `compinit`;
    fish: `hf-sparse completion fish > ~/.config/fish/completions/hf-sparse.fish`.

    Args:
        shell: bash, zsh or fish.

    Returns:
        `script`.
    """
    from hf_sparse.cli import COMMANDS

    options = {name: _options(stand_in(command.function)) for name, command in COMMANDS.items()}
    if shell == "fish":
        lines = [
            f'complete -c hf-sparse -n __fish_use_subcommand -a {name} -d "{command.summary}"'
            for name, command in COMMANDS.items()
        ]
        lines += [
            f"complete -c hf-sparse -n '__fish_seen_subcommand_from {name}' -l {option.removeprefix('--')}"
            for name, found in options.items()
            for option in found
        ]
        return {"script": "\n".join(lines)}
    cases = "\n".join(f'        {name}) options="{" ".join(found)}" ;;' for name, found in options.items())
    script = _BASH.format(commands=" ".join(COMMANDS), cases=cases)
    before = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return {"script": before + script}


def format_completion(result: dict[str, str]) -> str:
    """Return the script."""
    return result["script"]


def _options(function: object) -> list[str]:
    assert callable(function), "a function or a dataclass"
    names = [f"--{name}" for name in inspect.signature(function).parameters]
    return [*names, "--config", "--format", "--help"]
