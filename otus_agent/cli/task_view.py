"""What a task's status looks like to people: facts, pipelines, reporters, ledger."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from otus_agent.cli.render import (
    console,
    count,
    duration,
    octets,
    printable,
    show_facts,
    show_table,
)


def capture_of(row: Mapping[str, Any]) -> str:
    """``afpacket eth0``."""
    return f"{row['capture']} {row['interface'] or row.get('files', '')}".strip()


def show_status(status: Mapping[str, Any]) -> None:
    """Prints all that ``task.status`` tells."""
    created = datetime.fromtimestamp(status["created_at"]).astimezone()
    show_facts(
        [
            ("task", status["id"]),
            ("state", status["state"]),
            ("up", f"{duration(status['uptime_s'])}, created {created:%Y-%m-%d %H:%M:%S %Z}"),
            ("capture", capture_of(status)),
            ("restarts", status["restarts"] or ""),
            ("last error", status["last_error"]),
            *(("note", note) for note in status.get("notes", ())),
        ]
    )
    _show_pipelines(status.get("pipelines", ()))
    _show_reporters(status.get("reporters", ()))
    show_plugins(status.get("plugins", ()))
    if status.get("ledger"):
        print()
        show_ledger(status["ledger"])


def _show_pipelines(pipelines: Any) -> None:
    if not pipelines:
        return
    print()
    show_table(
        ["PIPELINE", "STATE", "#RECEIVED", "#DROPPED BY KERNEL", "#DECODED", "#PARSED",
         "#RECORDS"],
        [(one["id"], _pipeline_state(one), count(one["received"]), count(one["dropped"]),
          *(count(sum(one["counters"].get(group, {}).values()))
            for group in ("decoded", "parsed", "emitted")))
         for one in pipelines],
        "",
    )  # fmt: skip


def _pipeline_state(pipeline: Mapping[str, Any]) -> str:
    if pipeline["stuck_in"]:
        return f"stuck in {pipeline['stuck_in']}"
    return "running" if pipeline["running"] else "stopped"


def _show_reporters(reporters: Any) -> None:
    if not reporters:
        return
    print()
    show_table(
        ["REPORTER", "#RECORDS", "#REPORTED", "#QUEUED", "#QUEUED OCTETS", "#DROPPED", "#FAILED"],
        [(one["name"], count(one["offered"]), count(one["reported"]), count(one["queued"]),
          octets(one["queued_octets"]), count(sum(one["dropped"].values())),
          count(sum(one["failed"].values())))
         for one in reporters],
        "",
    )  # fmt: skip
    for one in reporters:
        if one.get("trouble"):
            print(f"{one['name']}: {printable(one['trouble'])}")
        if one.get("notes"):
            print(f"{one['name']}: {_listed(one['notes'])}")


def show_plugins(plugins: Any, *, stderr: bool = False) -> None:
    """Prints the faults of Python plugins; nothing where there are none."""
    rows = [
        (one["plugin"], _listed(one["faults"]), count(one["overruns"]), one["quarantined"])
        for one in plugins
        if one["faults"] or one["overruns"] or one["quarantined"]
    ]
    if rows:
        console(stderr=stderr).print()
        columns = ["PLUGIN", "FAULTS", "#OVERRUNS", "QUARANTINED"]
        show_table(columns, rows, "", stderr=stderr)


def show_ledger(ledger: Mapping[str, Any], *, stderr: bool = False) -> None:
    """Prints the ledger: what came in at each stage, and where each part of it went.

    Ends with ``balanced``, or with a line for all that is not explained.
    """
    rows = [
        (line["name"], count(line["total"]), _listed(line["parts"]) or "-",
         "=" if sum(line["parts"].values()) == line["total"] else "≠")
        for line in ledger["equations"]
    ]  # fmt: skip
    show_table(["LEDGER", "#IN", "WENT TO", ""], rows, "", stderr=stderr)
    target = console(stderr=stderr)
    if ledger.get("interface_dropped"):
        target.print(f"lost before the socket: {count(ledger['interface_dropped'])}")
    if ledger.get("anomalies"):
        target.print(f"anomalies: {_listed(ledger['anomalies'])}", markup=False)
    for imbalance in ledger["imbalances"]:
        target.print(f"NOT EXPLAINED: {imbalance}", markup=False)
    target.print("balanced" if ledger["balanced"] else "NOT BALANCED")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count(number)}" for name, number in counts.items())
