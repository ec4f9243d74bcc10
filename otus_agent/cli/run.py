"""`otus run`: one task in the foreground, until its source ends or it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import rich_click as click

from otus_agent.cli.errors import CliError
from otus_agent.cli.options import Settings, assignments_option, common_options, pass_settings
from otus_agent.cli.render import emit
from otus_agent.cli.task_view import show_ledger, show_plugins

if TYPE_CHECKING:
    from otus_agent.task import Task

__all__ = ["run"]


@click.command()
@click.option(
    "--file", "-f", "path", required=True, metavar="TASK", type=click.Path(dir_okay=False),
    help="The task, YAML or JSON; `-` reads standard input.",
)  # fmt: skip
@assignments_option("Sets a key of the task: --set capture.interface=eth1. Repeatable.")
@click.option("--verbose", "-v", is_flag=True, help="Log what happens, tracebacks included.")
@common_options
@pass_settings
def run(settings: Settings, path: str, flags: dict[str, str], verbose: bool) -> None:
    """Runs one task in the foreground, without a daemon.

    Ends at the end of the task's files, at Ctrl-C or SIGTERM; then tells the
    ledger: every packet and what became of it. A second signal does not wait
    for reporters. The exit code is 1 where the task failed or a packet is not
    explained.
    """
    from otus_agent import allocator
    from otus_agent.config.task_files import check_task, load_task
    from otus_agent.logs import log_to_stderr
    from otus_agent.registry import PluginRegistry
    from otus_agent.task import Task, TaskEnvironment

    allocator.settle()
    log_to_stderr(verbose=verbose)
    agent = settings.agent_config()
    config, source = load_task(path, flags)
    registry = PluginRegistry.load()
    environment = TaskEnvironment(agent.agent_id, registry, agent.kafka, dict(agent.agent.tags))
    check_task(config, source, registry, environment.inherit)

    async def main() -> Task:
        task = Task(config, environment)
        await run_until_end(task)
        return task

    task = asyncio.run(main())
    # Beside the records of a console reporter, which go to standard output.
    emit(task.status(), settings.form, _show_end, one_line=True)
    if task.last_error is not None:
        raise CliError(f"task {task.id} failed: {task.last_error}")
    ledger = task.ledger()
    if not ledger.balanced:
        raise CliError("the ledger does not balance: " + "; ".join(ledger.imbalances))


def _show_end(status: dict[str, Any]) -> None:
    show_plugins(status["plugins"], stderr=True)
    show_ledger(status["ledger"], stderr=True)


async def run_until_end(task: Task) -> None:
    """Runs a task until it ends by itself or a signal comes, and stops it.

    A second signal hurries: what is not flushed by then is dropped and counted.
    """
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    hurried = asyncio.Event()

    def on_signal() -> None:
        (hurried if told.is_set() else told).set()

    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, on_signal)
    try:
        await task.start()
        await _first_of(task.finished.wait(), told.wait())
        # The end of a file is no reason to drop what is queued; a signal is one to hurry.
        deadline = task.config.stop_deadline
        stopping = asyncio.create_task(task.stop(deadline if told.is_set() else 10 * deadline))
        await _first_of(asyncio.shield(stopping), hurried.wait())
        if not stopping.done():
            task.hurry()
        await stopping
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def _first_of(*waits: Any) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
