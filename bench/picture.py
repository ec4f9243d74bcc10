"""Draws the result of bench/compare.py as the picture in README.

    python bench/picture.py compare.json docs/images/speed.svg

Figures are multiples of the slowest tool's, since only ratios carry over to another
machine. The picture brings its own background, in a light and a dark form, so that
it reads on any page.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, ROW, TOP = 960, 30, 64
LEFT, RIGHT = 330, 100
# Bars begin a little below the slowest, which so has one.
LOWEST = 0.6

STYLE = """\
    .card { fill: #ffffff; stroke: #d0d7de }
    .otus { fill: #0b7a75 }
    .other { fill: #b4bcc6 }
    .grid { stroke: #d0d7de; stroke-dasharray: 3 4 }
    text { fill: #1f2328; font-size: 13px }
    .head { font-size: 15px; font-weight: 600 }
    .small { fill: #57606a; font-size: 11.5px }
    .name { font-weight: 600 }
    .does { fill: #57606a; font-weight: 400 }
    @media (prefers-color-scheme: dark) {
      .card { fill: #0d1117; stroke: #30363d }
      .otus { fill: #2bb5aa }
      .other { fill: #4b535d }
      .grid { stroke: #30363d }
      text { fill: #e6edf3 }
      .small { fill: #9198a1 }
      .does { fill: #9198a1 }
    }
"""


def multiple(value: float) -> str:
    """ "118 ×", or "3.2 ×" where a digit more tells something."""
    return f"{value:.0f} ×" if value >= 10 else f"{value:.1f} ×"


def draw(rows: list[dict[str, object]]) -> str:
    """A bar for each tool, logarithmic, the fastest first.

    Args:
        rows: of bench/compare.py: tool, does, packets_per_second.
    """
    rates = [float(str(row["packets_per_second"])) for row in rows]
    slowest = min(rates)
    multiples = [rate / slowest for rate in rates]
    scale = (WIDTH - LEFT - RIGHT) / math.log(max(multiples) / LOWEST)
    height = TOP + ROW * len(rows) + 34

    def length(value: float) -> float:
        return math.log(value / LOWEST) * scale

    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
            " font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\">"
        ),
        "  <title>SIP packets per second of CPU, Otus beside other tools</title>",
        f"  <style>\n{STYLE}  </style>",
        f'  <rect class="card" x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="10"/>',
        '  <text class="head" x="16" y="28">SIP packets per second of CPU, on one core</text>',
        (
            '  <text class="small" x="16" y="47">multiples of the slowest; logarithmic, longer is'
            " faster; one capture, one run</text>"
        ),
    ]
    for power in range(math.floor(math.log10(max(multiples))) + 1):
        x = LEFT + length(10**power)
        bottom = TOP + ROW * len(rows)
        parts += [
            f'  <path class="grid" d="M{x:.0f} {TOP}V{bottom}"/>',
            (
                f'  <text class="small" x="{x:.0f}" y="{bottom + 18}" text-anchor="middle">'
                f"{10**power} ×</text>"
            ),
        ]
    for i, (row, value) in enumerate(zip(rows, multiples, strict=True)):
        y = TOP + i * ROW
        own = "otus" if row["tool"] == "Otus" else "other"
        parts += [
            (
                f'  <text class="name" x="16" y="{y + 19}">{escape(str(row["tool"]))}'
                f' <tspan class="does">{escape(str(row["does"]))}</tspan></text>'
            ),
            f'  <rect class="{own}" x="{LEFT}" y="{y + 5}" width="{length(value):.0f}" height="20" rx="3"/>',
            f'  <text x="{LEFT + length(value) + 8:.0f}" y="{y + 19}">{multiple(value)}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("result", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    rows = json.loads(options.result.read_text())
    rows.sort(key=lambda row: -row["packets_per_second"])
    options.picture.write_text(draw(rows))


if __name__ == "__main__":
    main()
