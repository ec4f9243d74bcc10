"""Results on the terminal: tables for people, JSON and YAML for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

# A table that goes into a pipe is not cut to a terminal's width.
PIPE_WIDTH = 240

# Columns of sentences; in all others a cell is one word that can be copied.
WRAPPED = ("LAST ERROR", "DESCRIPTION", "MEANING", "WENT TO", "QUARANTINED", "FIX")

# What comes from the network or from other hosts must not move the cursor or forge a line.
_CONTROL = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029], "\ufffd")

STATE_STYLES = {
    "running": "green",
    "starting": "cyan",
    "created": "cyan",
    "stopping": "yellow",
    "stopped": "dim",
    "failed": "bold red",
}


def console(*, stderr: bool = False) -> Console:
    """A console that honours NO_COLOR, and pipes."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=False)


def emit(data: Any, form: str, show: Callable[[Any], object], *, one_line: bool = False) -> None:
    """Prints data as JSON or YAML, or has ``show`` print it for people.

    Args:
        data: made of what JSON knows.
        form: json, yaml or table.
        show: prints data for people.
        one_line: whether JSON is one line, as after records that are one each.
    """
    if form == "json":
        indent = None if one_line else 2
        print(json.dumps(data, indent=indent, ensure_ascii=False, default=str), flush=True)
    elif form == "yaml":
        import yaml

        text = yaml.safe_dump(
            json.loads(json.dumps(data, default=str)), sort_keys=False, allow_unicode=True
        )
        print(text, end="")
    else:
        show(data)


def show_table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], empty: str, *, stderr: bool = False
) -> None:
    """Prints rows under columns; a column whose name begins with ``#`` holds numbers."""
    listed = list(rows)
    if not listed:
        print(empty)
        return
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column, cells in zip(columns, zip(*listed, strict=True), strict=True):
        name = column.removeprefix("#")
        is_text = name in WRAPPED
        width = max(len(name), *(0 if is_text else len(str(cell or "")) for cell in cells))
        table.add_column(
            name, justify="left" if name == column else "right",
            no_wrap=not is_text, overflow="fold", min_width=width,
        )  # fmt: skip
    for row in listed:
        table.add_row(*(_cell(column, value) for column, value in zip(columns, row, strict=True)))
    target = console(stderr=stderr)
    # Rather wider than the terminal, which wraps it, than without an id's end.
    unbounded = target.options.update(max_width=10_000)
    target.width = max(target.width, target.measure(table, options=unbounded).minimum)
    target.print(table)


def show_facts(facts: Iterable[tuple[str, Any]]) -> None:
    """Prints names and values, one a line, aligned."""
    listed = [(name, value) for name, value in facts if value not in ("", None)]
    width = max((len(name) for name, _ in listed), default=0)
    target = console()
    for name, value in listed:
        target.print(f"[bold]{name:<{width}}[/]  {_escaped(value)}", markup=True)


def _cell(column: str, value: Any) -> str:
    text = _escaped(value)
    if column == "STATE" and str(value) in STATE_STYLES:
        return f"[{STATE_STYLES[str(value)]}]{text}[/]"
    return text


def _escaped(value: Any) -> str:
    from rich.markup import escape

    return escape("" if value is None else printable(str(value)))


def printable(text: str) -> str:
    """The text with control characters replaced."""
    return text.translate(_CONTROL)


def printable_lines(text: str) -> str:
    """The same for a problem that points into an expression in indented lines below it."""
    return "\n  ".join(printable(line) for line in text.split("\n  "))


def duration(seconds: float) -> str:
    """``3d 4h``, ``5m 2s``, ``0.4s``: two units are enough for people."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    parts: list[str] = []
    left = int(seconds)
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number or parts:
            parts.append(f"{number}{unit}")
    return " ".join(parts[:2])


def octets(number: float) -> str:
    """``12.3 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return ""


def count(number: float) -> str:
    """``1,234,567``."""
    return f"{number:,.0f}"
