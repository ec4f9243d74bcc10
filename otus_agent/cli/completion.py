"""``otus completion``: the shell's completion script."""

from __future__ import annotations

import rich_click as click
from click.shell_completion import get_completion_class

from otus_agent.cli.errors import CliError


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Prints the completion script of a shell.

    bash: add `source <(otus completion bash)` to ~/.bashrc.
    zsh: `otus completion zsh > "${fpath[1]}/_otus"`.
    fish: `otus completion fish > ~/.config/fish/completions/otus.fish`.
    """
    from otus_agent.cli import cli

    script = get_completion_class(shell)
    if script is None:
        raise CliError(f"no completion for {shell}")
    print(script(cli, {}, "otus", "_OTUS_COMPLETE").source())
