"""Commands about the daemon as a whole."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import rich_click as click

from otus_agent.cli.errors import CliError
from otus_agent.cli.figures import figures_of
from otus_agent.cli.options import Settings, common_options, pass_settings
from otus_agent.cli.render import count, duration, emit, octets, show_facts, show_table


@click.command()
@click.option(
    "--timeout",
    metavar="DURATION",
    help="How long tasks may take to flush (default: daemon.shutdown_timeout).",
)
@click.option("--wait/--no-wait", default=True, help="Whether to wait until it has stopped.")
@common_options
@pass_settings
def stop(settings: Settings, timeout: str | None, wait: bool) -> None:
    """Stops the daemon in order, flushing its tasks."""
    client = settings.client()
    params = {"timeout": timeout} if timeout is not None else {}
    answer = client.call("shutdown", **params)
    if wait:
        _wait_for_end(int(answer["pid"]), client.path)
    emit(answer, settings.form, lambda _: print("stopped" if wait else "stopping"))


def _wait_for_end(pid: int, path: str, timeout_s: float = 120.0) -> None:
    """Waits until the process is gone; its socket may be another daemon's by then."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if not Path(f"/proc/{pid}").exists() or _is_zombie(pid):
            return
        time.sleep(0.02)
    raise CliError(f"the daemon (pid {pid}, {path}) has not stopped after {timeout_s:g} s: "
                   f"hurry it with `kill {pid}`")  # fmt: skip


def _is_zombie(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[:1] == ["Z"]


@click.command()
@common_options
@pass_settings
def reload(settings: Settings) -> None:
    """Has the daemon read its configuration anew and apply what can change."""
    answer = settings.client().call("reload")

    def show(answer: Any) -> None:
        for key in answer["applied"]:
            print(f"applied         {key}")
        for key in answer["restart_needed"]:
            print(f"needs restart   {key}")
        for section, reason in answer["failed"].items():
            print(f"failed          {section}: {reason}")
        for task_id in answer["tasks_as_before"]:
            print(f"as before       task {task_id}, until it is created anew")
        if not any(answer.values()):
            print("nothing changed")

    emit(answer, settings.form, show)
    if answer["failed"]:
        raise CliError("a part could not be reloaded and runs on as it was: see the log")


@click.command()
@common_options
@pass_settings
def status(settings: Settings) -> None:
    """Tells how the daemon is: who, since when, how many tasks."""
    emit(settings.client().call("status"), settings.form, _show_status)


def _show_status(answer: Any) -> None:
    process = answer["process"]
    tasks = ", ".join(f"{number} {state}" for state, number in sorted(answer["tasks"].items()))
    tags = ", ".join(f"{key}={value}" for key, value in sorted(answer["tags"].items()))
    started = datetime.fromtimestamp(answer["started_at"]).astimezone()
    show_facts(
        [
            ("agent", answer["agent_id"]),
            ("version", f"{answer['version']} (Python {answer['python']})"),
            ("pid", answer["pid"]),
            ("up", f"{duration(answer['uptime_s'])}, since {started:%Y-%m-%d %H:%M:%S %Z}"),
            ("tasks", tasks or "none: see `otus task create --help`"),
            ("finished", f"{answer['history']} remembered" if answer["history"] else ""),
            ("tags", tags),
            ("log level", answer["log_level"]),
            ("metrics", _metrics_text(answer.get("metrics"))),
            *(("kafka", f"{name}: {text}") for name, text in _kafka_texts(answer.get("kafka"))),
            ("memory", octets(process.get("resident_octets", 0))),
            ("cpu", f"{process.get('cpu_s', 0):.1f} s"),
            ("threads", process.get("threads", "")),
            ("descriptors", process.get("descriptors", "")),
        ]
    )


def _metrics_text(metrics: Any) -> str:
    if not metrics:
        return ""
    return metrics.get("error") or f"port {metrics['port']}, {metrics['path']}"


def _kafka_texts(kafka: Any) -> list[tuple[str, str]]:
    """How commands and events are, where the daemon has them."""
    if not kafka:
        return []
    if "error" in kafka:
        return [("not started", kafka["error"])]
    texts = []
    for name, part in kafka.items():
        if part is not None:
            state = "connected" if part["connected"] else "not connected"
            reason = (
                f" ({part['last_error']})" if part["last_error"] and not part["connected"] else ""
            )
            texts.append((name, state + reason))
    return texts


@click.command()
@common_options
@pass_settings
def stats(settings: Settings) -> None:
    """Tells the counters of every task and part."""
    emit(settings.client().call("stats"), settings.form, _show_stats)


def _show_stats(answer: Any) -> None:
    rows = []
    for task_id, task in answer["tasks"].items():
        figures = figures_of(task)
        rows.append((
            task_id, task["state"], count(figures.received), count(figures.emitted),
            count(figures.reported), count(figures.queued), count(figures.lost_total),
            "yes" if figures.balanced else "NO",
        ))  # fmt: skip
    show_table(
        ["TASK", "STATE", "#RECEIVED", "#RECORDS", "#REPORTED", "#QUEUED", "#LOST", "BALANCED"],
        rows, "no tasks",
    )  # fmt: skip
    lost = [
        (task_id, where, count(number))
        for task_id, task in answer["tasks"].items()
        for where, number in figures_of(task).lost.items()
    ]
    if lost:
        print()
        show_table(["TASK", "LOST AT", "#PACKETS"], lost, "")
    print()
    outputs = [
        (name, count(one["written"]), count(one["queued"]),
         count(sum(number for key, number in one.items() if key.startswith("dropped"))))
        for name, one in answer["logs"].items()
        if isinstance(one, dict)
    ]  # fmt: skip
    show_table(["LOG OUTPUT", "#WRITTEN", "#QUEUED", "#DROPPED"], outputs, "no log outputs")


@click.command()
@common_options
@pass_settings
def plugins(settings: Settings) -> None:
    """Lists the installed plugins, the daemon's where one runs."""
    try:
        answer = settings.client(timeout_s=30.0).call("plugin.list")
    except CliError as error:
        if error.code != "daemon_not_running" or settings.socket is not None:
            raise
        answer = _installed_plugins()
    rows = [
        (row["kind"], row["name"], row["stability"], row["distribution"],
         row["error"] or row["description"])
        for row in answer["plugins"]
    ]  # fmt: skip
    emit(
        answer, settings.form,
        lambda _: show_table(["KIND", "NAME", "STABILITY", "PACKAGE", "DESCRIPTION"], rows,
                             "no plugins are installed: reinstall otus"),
    )  # fmt: skip


def _installed_plugins() -> dict[str, Any]:
    from otus_agent.agent import plugin_row
    from otus_agent.registry import PluginRegistry

    return {"plugins": [plugin_row(info) for info in PluginRegistry.load().plugins()]}


@click.group()
def log() -> None:
    """Tells or changes the daemon's log level."""


@log.command()
@click.argument("level", required=False, type=click.Choice(["debug", "info", "warn", "error"]))
@common_options
@pass_settings
def level(settings: Settings, level: str | None) -> None:
    """Tells the log level, or sets it until the next restart or reload."""
    answer = settings.client().call("log.level", level=level)
    emit(answer, settings.form, lambda answer: print(answer["level"]))


__all__ = ["log", "plugins", "reload", "stats", "status", "stop"]
