"""``otus task``: creates, deletes, lists and applies tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from otus_agent.cli.errors import CliError
from otus_agent.cli.figures import figures_of
from otus_agent.cli.options import Settings, common_options, complete_task_ids, pass_settings
from otus_agent.cli.render import count, duration, emit, show_table
from otus_agent.cli.task_view import capture_of, show_status


@click.group()
def task() -> None:
    """Creates, deletes, lists and applies the daemon's tasks."""


@task.command()
@click.option(
    "--file",
    "-f",
    "files",
    required=True,
    multiple=True,
    metavar="FILE",
    type=click.Path(),
    help="Task file, YAML or JSON; - reads standard input; repeatable.",
)
@common_options
@pass_settings
def create(settings: Settings, files: tuple[str, ...]) -> None:
    """Creates tasks, keeps them on disk and starts them."""
    tasks = [read_task(name) for name in files]
    client = settings.client()
    answers = [client.call("task.create", task=one) for one in tasks]
    emit(
        answers, settings.form, lambda rows: [print(f"{row['id']} {row['state']}") for row in rows]
    )


@task.command()
@click.argument("task_id", metavar="ID", shell_complete=complete_task_ids)
@click.option(
    "--timeout",
    metavar="DURATION",
    help="How long flushing may take (default: the task's stop_deadline).",
)
@common_options
@pass_settings
def delete(settings: Settings, task_id: str, timeout: str | None) -> None:
    """Stops a task, flushing its reporters, and forgets it."""
    params = {"timeout": timeout} if timeout is not None else {}
    answer = settings.client().call("task.delete", id=task_id, **params)

    def show(answer: Any) -> None:
        figures = figures_of(answer)
        print(
            f"{task_id} deleted: {count(figures.received)} received, "
            f"{count(figures.reported)} reported, {count(figures.lost_total)} lost"
        )

    emit(answer, settings.form, show)


@task.command("list")
@click.option("--all", "-a", "history", is_flag=True, help="Finished tasks as well.")
@common_options
@pass_settings
def list_tasks(settings: Settings, history: bool) -> None:
    """Lists tasks."""
    answer = settings.client().call("task.list", history=history)
    rows = [*answer["tasks"], *answer.get("history", [])]
    emit(
        answer, settings.form,
        lambda _: show_table(
            ["ID", "STATE", "UP", "CAPTURE", "#RESTARTS", "LAST ERROR"],
            [(row["id"], row["state"], duration(row["uptime_s"]), capture_of(row), row["restarts"],
              row["last_error"]) for row in rows],
            "no tasks: create one with `otus task create -f FILE`",
        ),
    )  # fmt: skip


@task.command()
@click.argument("task_id", metavar="ID", shell_complete=complete_task_ids)
@common_options
@pass_settings
def status(settings: Settings, task_id: str) -> None:
    """Tells all about one task: state, pipelines, reporters, ledger."""
    emit(settings.client().call("task.status", id=task_id), settings.form, show_status)


@task.command("apply")
@click.argument("directory", type=click.Path(exists=True))
@click.option("--dry-run", is_flag=True, help="Only tell what would be done.")
@common_options
@pass_settings
def apply_directory(settings: Settings, directory: str, dry_run: bool) -> None:
    """Makes the running set equal to a directory of task files (or to one file).

    Tasks that no file describes are deleted, changed ones are replaced, equal
    ones are left alone.
    """
    tasks = read_tasks(Path(directory))
    answer = settings.client(timeout_s=600.0).call("task.apply", tasks=tasks, dry_run=dry_run)

    def show(answer: Any) -> None:
        verb = "would be " if answer["dry_run"] else ""
        for action in ("deleted", "replaced", "created", "unchanged"):
            for task_id in answer[action]:
                print(f"{task_id} {'' if action == 'unchanged' else verb}{action}")
        for task_id, reason in answer["failed"].items():
            print(f"{task_id} FAILED: {reason}")

    emit(answer, settings.form, show)
    if answer["failed"]:
        raise CliError(f"{len(answer['failed'])} of {len(tasks)} tasks failed")


def read_tasks(path: Path) -> list[dict[str, Any]]:
    """The tasks of a directory's files, in order of their names.

    Raises:
        CliError: there is none, or two have one id; ConfigurationInvalid: a
            file does not hold.
    """
    from otus_agent.config.task_files import TASK_FILE_PATTERNS, task_files_in

    files = task_files_in(path) if path.is_dir() else [path]
    if not files:
        raise CliError(f"{path} holds no task files ({', '.join(TASK_FILE_PATTERNS)})")
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for file in files:
        task = read_task(str(file))
        other = found.get(task["id"])
        if other is not None:
            message = f"{file}: task {task['id']!r} is in {other[0]} as well"
            raise CliError(message, "configuration_invalid")
        found[task["id"]] = (file, task)
    return [task for _, task in found.values()]


def read_task(name: str) -> dict[str, Any]:
    """The task in a file, checked as far as can be without the daemon's plugins.

    Raises:
        ConfigurationInvalid: it does not hold; each problem has its place.
    """
    from otus_agent.config.task_files import load_task

    _, source = load_task(name)
    return dict(source.data)
