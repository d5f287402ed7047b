"""The drawing of the main figures, as an SVG that the README shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

from measure import OURS, show

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from measure import Chart

OURS_COLOUR, OTHERS_COLOUR = "#2563eb", "#94a3b8"
BAR_INCHES, TITLE_INCHES, WIDTH_INCHES = 0.24, 0.75, 9.0


def draw(charts: Sequence[Chart], path: Path) -> None:
    """Draw each chart's bars one below the other; those of ours stand out."""
    if not charts:
        return
    # The same figures give the same file, and text stays text.
    mpl.rcParams.update({"svg.hashsalt": "sandkernel", "svg.fonttype": "none", "font.size": 9})
    heights = [TITLE_INCHES + BAR_INCHES * len(chart.bars) for chart in charts]
    figure = Figure(figsize=(WIDTH_INCHES, sum(heights)), layout="constrained")
    panels = figure.subplots(len(charts), 1, squeeze=False, height_ratios=heights)[:, 0]
    for chart, panel in zip(charts, panels, strict=True):
        names, values = list(chart.bars), list(chart.bars.values())
        colours = [OURS_COLOUR if OURS in name or OURS in chart.title else OTHERS_COLOUR for name in names]
        bars = panel.barh(names, values, color=colours, height=0.7)
        panel.bar_label(bars, [f"{show(value)} {chart.unit}" for value in values], padding=3)
        panel.set_title(chart.title, loc="left", fontweight="bold")
        panel.invert_yaxis()
        panel.set_xlim(0, max(values) * 1.25)
        panel.xaxis.set_visible(False)
        panel.spines[["top", "right", "bottom"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
