"""``otus top``: tasks, rates, losses and queues, live."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import rich_click as click

from otus_agent.cli.errors import CliError
from otus_agent.cli.figures import TaskFigures, figures_of
from otus_agent.cli.options import Settings, common_options, pass_settings
from otus_agent.cli.render import STATE_STYLES, count, duration, octets

if TYPE_CHECKING:
    from rich.console import RenderableType


@click.command()
@click.option(
    "--interval",
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    type=click.FloatRange(0.1, 3600),
    help="Time between two looks.",
)
@click.option(
    "--count",
    "rounds",
    default=0,
    metavar="N",
    type=click.IntRange(0),
    help="End after so many looks (default: Ctrl-C ends).",
)
@common_options
@pass_settings
def top(settings: Settings, interval: float, rounds: int) -> None:
    """Watches tasks live: packets a second, records, losses by stage, queues.

    A daemon that goes away is waited for. Ctrl-C ends.
    """
    from rich.live import Live

    from otus_agent.cli.render import console

    client = settings.client(timeout_s=10.0)
    target = console()
    before: tuple[float, Any] | None = None
    look = 0
    with Live(
        console=target, screen=sys.stdout.isatty() and not rounds, auto_refresh=False
    ) as live:
        while True:
            try:
                answer = client.call("stats")
                now = time.monotonic()
                live.update(frame(answer, before, now), refresh=True)
                before = (now, answer)
            except CliError as error:
                if before is None or error.code != "daemon_not_running":
                    raise
                live.update(f"{error.message}; waiting", refresh=True)
            look += 1
            if rounds and look >= rounds:
                return
            time.sleep(interval)


def frame(answer: Any, before: tuple[float, Any] | None, now: float) -> RenderableType:
    """One look: what is now, and what came since the look before."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    process = answer["process"]
    head = Text(
        f"otus up {duration(answer['uptime_s'])}, {len(answer['tasks'])} tasks, "
        f"{octets(process.get('resident_octets', 0))}, {_cpu(answer, before, now)}"
    )
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    # What a narrow terminal has no room for is cut off at the right: the names stay whole.
    longest_id = max(len(name) for name in ("TASK", *answer["tasks"]))
    for name, width in (("TASK", longest_id), ("STATE", 8), ("UP", 7)):
        table.add_column(name, no_wrap=True, min_width=width)
    for name in ("PACKETS/S", "RECORDS/S", "REPORTED/S", "QUEUED", "LOST/S", "LOST"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    losses = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("TASK", "LOST AT"):
        losses.add_column(name, no_wrap=True)
    losses.add_column("PACKETS", justify="right")
    losses.add_column("/S", justify="right")
    for task_id, task in sorted(answer["tasks"].items()):
        figures, rates = figures_of(task), _rates(task_id, task, before, now)
        state = str(task["state"])
        table.add_row(
            Text(task_id), Text(state, style=STATE_STYLES.get(state, "")),
            duration(task["uptime_s"]),
            *(_rate(rates, name) for name in ("received", "emitted", "reported")),
            count(figures.queued), _rate(rates, "lost"), count(figures.lost_total),
        )  # fmt: skip
        for where, number in figures.lost.items():
            losses.add_row(Text(task_id), Text(where), count(number), _rate(rates, f"lost {where}"))
        if not figures.balanced:
            losses.add_row(Text(task_id), Text("NOT EXPLAINED: see otus task status"), "", "")
    parts: list[RenderableType] = [head, "", table]
    if losses.row_count:
        parts += ["", losses]
    return Group(*parts)


def _cpu(answer: Any, before: tuple[float, Any] | None, now: float) -> str:
    if before is None:
        return "cpu -"
    used = answer["process"].get("cpu_s", 0) - before[1]["process"].get("cpu_s", 0)
    return f"cpu {100 * used / max(now - before[0], 1e-3):.0f}%"


def _rates(
    task_id: str, task: Any, before: tuple[float, Any] | None, now: float
) -> dict[str, float]:
    """Per second since the look before; empty for a task that is new or began anew."""
    earlier = before[1]["tasks"].get(task_id) if before is not None else None
    if before is None or earlier is None or earlier["uptime_s"] > task["uptime_s"]:
        return {}
    elapsed = max(now - before[0], 1e-3)
    is_now, was = _flat(figures_of(task)), _flat(figures_of(earlier))
    return {name: max(0, value - was.get(name, 0)) / elapsed for name, value in is_now.items()}


def _flat(figures: TaskFigures) -> dict[str, int]:
    return {
        "received": figures.received,
        "emitted": figures.emitted,
        "reported": figures.reported,
        "lost": figures.lost_total,
        **{f"lost {where}": number for where, number in figures.lost.items()},
    }


def _rate(rates: dict[str, float], name: str) -> str:
    return count(rates[name]) if name in rates else "-"
