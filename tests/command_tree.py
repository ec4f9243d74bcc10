"""The command line as a tree, for tests that look at all of it."""

from __future__ import annotations

from collections.abc import Iterator

import click

from otus_agent.cli import cli


def every_command() -> Iterator[click.Command]:
    """`otus` itself, its commands, their commands."""
    left: list[click.Command] = [cli]
    while left:
        command = left.pop()
        yield command
        if isinstance(command, click.Group):
            # Resilient: the real command, where help would get its summary alone.
            context = click.Context(command, resilient_parsing=True)
            for name in command.list_commands(context):
                member = command.get_command(context, name)
                assert member is not None
                left.append(member)


def variables() -> set[str]:
    """The variables of the environment that give options their defaults."""
    return {
        str(each.envvar) for command in every_command() for each in command.params if each.envvar
    }
