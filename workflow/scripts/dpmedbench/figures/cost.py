"""Time and memory

Left: median time of an optimiser step on {dataset} after warm-up, its 10th to 90th percentile as a
bar. Right: peak memory of the process's GPU, or of the host where there is none. A dot a noise
level, averaged over folds and seeds; beside each row, its mean relative to non-private training of
the same model. Expected batch size {batch_size}, images of {image_size} pixels. Mechanisms:
{mechanisms}; noise: {noise}.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from dpmedbench.figures import style, wording

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

CATEGORY = "Cost"
ORDER = 80
NEEDS = ("cost",)

GIB = 1024**3
ROW = 0.3  # inches


def draw(cost: pd.DataFrame) -> Figure:
    """A row a mechanism, a dot a noise level; left the time of a step, right peak memory."""
    models = list(cost["model"].unique())
    if not models:
        figure, (axes,) = style.panels([" "], [])
        style.explain(axes, f"no rows of dataset {style.dataset(cost)} in the table")
        axes.set_yticks([])
        return figure
    mechanisms = list(style.colours(cost))
    counts = [cost.loc[cost["model"] == model, "mechanism"].nunique() for model in models]
    figure = Figure(
        figsize=(style.DOUBLE, sum(ROW * count + 0.75 for count in counts) + 0.5),
        layout="constrained",
    )
    grid = figure.subplots(
        len(models), 2, squeeze=False, sharex="col", height_ratios=[count + 1.5 for count in counts]
    )
    memory, host = _memory(cost)
    values = cost.assign(
        low=cost["step_seconds_p10"], high=cost["step_seconds_p90"], memory=memory / GIB
    )
    levels = wording.noises(cost["privacy"])
    for model, (time_axes, memory_axes) in zip(models, grid, strict=True):
        part = values[values["model"] == model]
        rows = [mechanism for mechanism in mechanisms if mechanism in set(part["mechanism"])]
        _dots(time_axes, part, rows, levels, "step_seconds_p50", ("low", "high"))
        _dots(memory_axes, part, rows, levels, "memory", None)
        time_axes.set_title(wording.name(model), loc="left")
        time_axes.set_yticks(range(len(rows)), [wording.name(row) for row in rows])
        memory_axes.set_yticks(range(len(rows)), [""] * len(rows))
    for column, names in ((0, ["step_seconds_p50", "low", "high"]), (1, ["memory"])):
        for axes in grid[:, column]:
            if not style.log_if_decades(axes, values[names], axis="x"):
                axes.set_xlim(0, 1.08 * np.nanmax(values[names].to_numpy(float), initial=1e-9))
    grid[-1, 0].set_xlabel("time of a step (s)")
    grid[-1, 1].set_xlabel(f"peak memory of the {host} (GiB)")
    if levels:
        style.legend(figure, [style.noise_section(cost, marker="o")], below=False)
    devices = ", ".join(cost["device"].dropna().unique())
    batches = sorted(cost["physical_batch_size"].dropna().unique())
    style.headline(
        figure,
        cost,
        f"device: {devices}",
        f"physical batch size {', '.join(f'{batch:g}' for batch in batches)}",
        "× = relative to non-private"
        if (cost["privacy"] == "none").any()
        else "no non-private cell to compare with",
    )
    return figure


def _memory(cost: pd.DataFrame) -> tuple[pd.Series, str]:
    gpu = cost["peak_gpu_bytes"].astype(float)
    return (gpu, "GPU") if gpu.notna().any() else (cost["peak_host_bytes"].astype(float), "host")


def _dots(
    axes: Axes,
    part: pd.DataFrame,
    rows: list[str],
    levels: list[str],
    column: str,
    bar: tuple[str, str] | None,
) -> None:
    colours = style.colours(part)
    reference = part.loc[part["privacy"] == "none", column].mean()
    for y, mechanism in enumerate(rows):
        of_mechanism = part[part["mechanism"] == mechanism]
        labels = [*wording.noises(of_mechanism["privacy"]), "none"]
        labels = [label for label in labels if (of_mechanism["privacy"] == label).any()]
        for place, label in enumerate(labels):
            of_noise = of_mechanism[of_mechanism["privacy"] == label]
            value = of_noise[column].mean()
            rank = levels.index(label) if label in levels else 0
            colour = style.shade(colours[mechanism], rank, len(levels))
            offset = 0.5 * ((place + 0.5) / len(labels) - 0.5)
            if bar is not None:
                axes.hlines(
                    y + offset,
                    of_noise[bar[0]].mean(),
                    of_noise[bar[1]].mean(),
                    color=colour,
                    linewidth=1,
                )
            axes.plot(value, y + offset, "o", color=colour, label=f"{mechanism}/{label}")
        ratio = of_mechanism[column].mean() / reference
        if np.isfinite(ratio):
            axes.text(
                1.02,
                y,
                f"{ratio:.2g}×" if ratio < 10 else f"{ratio:.0f}×",
                transform=axes.get_yaxis_transform(),
                va="center",
                fontsize=style.SMALL,
                color=style.MUTED,
            )
    if not np.isfinite(part[column].astype(float)).any():
        style.explain(axes, "not measured")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(False, axis="y")
