"""Time, memory and largest batch

What every mechanism costs on {dataset} ({image_size} pixels, expected batch size {batch_size}),
relative to non-private training of the same model: the median time of an optimiser step after
warm-up, the peak memory of the tensors on the GPU, or where there is none of the whole process,
whose libraries and images bring the ratio closer to 1, and the largest batch that fits into one
budget of memory. A bar a noise level ({noise}), lighter with more noise; whiskers: 95 % intervals
over runs; at the right what was measured, the mean over noise levels. The largest batch is not of
this training: benchmarks/engines.py measures it on networks of default width and images of its own
size. Mechanisms: {mechanisms}.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator

from dpmedbench.figures import live, palette, style, utility, wording

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

ORDER = 80
NEEDS = ("summary", "cost", "networks", "benchmark")
PUBLISHED = {"engines": "Cost of the optimisations"}

ROW, HEAD = 0.24, 0.75  # inches
GIB = 1024**3
ENGINE = ["engine", "mode", "clipping", "clipping_style"]
BATCH = "largest_batch"
NOT_MEASURED = "not measured: benchmarks/engines.py measures it"
ALONE = "no non-private run to compare with"


@dataclass(frozen=True)
class Quantity:
    """A column of panels: a metric, its ratio, their axes, the unit and size of what it shows."""

    metric: str
    ratio: str
    name: str
    unit: str
    divisor: float = 1.0
    form: str = ".3g"

    def words(self, value: float) -> str:
        """A value with its unit."""
        return f"{value / self.divisor:{self.form}} {self.unit}".strip()


QUANTITIES = (
    Quantity("step_seconds", "step_seconds_ratio", "time of a step", "s", form=".2g"),
    Quantity("peak_bytes", "peak_bytes_ratio", "peak memory", "GiB", GIB, ".2g"),
    Quantity(BATCH, f"{BATCH}_ratio", "largest batch", "", form=".0f"),
)


def draw(
    summary: pd.DataFrame,
    cost: pd.DataFrame,
    networks: Sequence[str | Path],
    benchmark: Sequence[str | Path],
) -> Figure:
    """A row of panels a model: time, memory and largest batch, a group of bars a mechanism."""
    measured = values(summary, networks, benchmark)
    models = list(measured["model"].unique())
    if not models:
        return style.empty(summary, "nothing was measured")
    order = list(palette.colours(measured))
    rows = {
        model: [m for m in order if m in set(measured.loc[measured["model"] == model, "mechanism"])]
        for model in models
    }
    heights = [len(names) + 1 for names in rows.values()]
    figure = Figure(
        figsize=(style.DOUBLE, sum(ROW * len(names) + HEAD for names in rows.values()) + 0.5),
        layout="constrained",
    )
    grid = figure.subplots(len(models), 3, squeeze=False, sharex="col", height_ratios=heights)
    relative = [_relative(measured, quantity) for quantity in QUANTITIES]
    for model, line in zip(models, grid, strict=True):
        part = measured[measured["model"] == model]
        part.attrs = measured.attrs
        for quantity, axes, ratios in zip(QUANTITIES, line, relative, strict=True):
            _panel(axes, part, quantity, rows[model], ratios)
            axes.set_yticks(range(len(rows[model])), [""] * len(rows[model]))
            axes.tick_params(axis="y", length=0)
        line[0].set_yticklabels(wording.rows(rows[model]))
        line[0].set_title(wording.name(model), loc="left")
    for quantity, column, ratios in zip(QUANTITIES, grid.T, relative, strict=True):
        _axis(column, measured, quantity, ratios)
    sides = sorted(measured.loc[measured["metric"] == BATCH, "side"].unique())
    pixels = ", ".join(f"{side:g}" for side in sides)
    bars = measured[measured["metric"] == "step_seconds"]
    bars.attrs = measured.attrs
    if len(wording.noises(bars["privacy"])) > 1:
        style.legend(figure, [style.noise_section(bars, marker="s")], below=True)
    devices = ", ".join(cost["device"].dropna().unique())
    batches = sorted(cost["physical_batch_size"].dropna().unique())
    style.headline(
        figure,
        summary,
        f"device: {devices}",
        f"physical batch size {', '.join(f'{batch:g}' for batch in batches)}",
        utility.interval_note(bars),
        f"largest batch: measured on networks of default width at {pixels} px" if sides else "",
        "" if (bars["privacy"] == "none").any() else ALONE,
    )
    return figure


def numbers(summary: pd.DataFrame) -> str:
    """Time and memory relative to non-private training, lowest and highest of all noise levels."""
    said = []
    for quantity in QUANTITIES[:2]:
        part = summary[summary["metric"] == quantity.ratio].dropna(subset="value")
        part.attrs = summary.attrs
        part = part[part["privacy"] != "none"]
        if len(part):
            name = quantity.name.capitalize()
            said.append(
                f"{name} relative to non-private: {live.ranges(part, 'value', '.2g', '×')}."
            )
    return " ".join(said)


def values(
    summary: pd.DataFrame, networks: Sequence[str | Path], benchmark: Sequence[str | Path]
) -> pd.DataFrame:
    """The rows of the summary that the figure shows, and such rows of the largest batch, which
    have the `side` of the images it was measured on, in pixels."""
    import pandas as pd

    names = [name for quantity in QUANTITIES for name in (quantity.metric, quantity.ratio)]
    rows = [summary[summary["metric"].isin(names)]]
    rows += [_largest(rows[0], networks, pd.read_parquet(path)) for path in benchmark]
    found = pd.concat([frame for frame in rows if len(frame)] or rows[:1], ignore_index=True)
    found = found.reindex(columns=list(dict.fromkeys([*found, "side"])))
    found.attrs = summary.attrs
    return found


def _largest(
    settings: pd.DataFrame, networks: Sequence[str | Path], benchmark: pd.DataFrame
) -> pd.DataFrame:
    """The largest batch of each mechanism's engine on each network, and its ratio."""
    import pandas as pd

    described = [json.loads(Path(path).read_text(encoding="utf-8")) for path in networks]
    network = {found["model"]: found["network"] for found in described}
    settings = settings.assign(network=settings["model"].map(network))
    settings = settings.drop(columns=["metric", "value", "low", "high"]).drop_duplicates(
        style.SETTING
    )
    measured = benchmark.reindex(columns=[*ENGINE, "network", "side", BATCH]).dropna(subset=BATCH)
    joined = settings.merge(measured, on=[*ENGINE, "network"], suffixes=("", "_"))
    plain = measured[measured["engine"] == "none"].set_index("network")[BATCH]
    ratio = joined[BATCH] / joined["network"].map(plain).astype(float)
    bounds = {"low": np.nan, "high": np.nan}
    return pd.concat(
        [
            joined.assign(metric=BATCH, value=joined[BATCH], **bounds),
            joined.assign(metric=f"{BATCH}_ratio", value=ratio, **bounds),
        ]
    )


def _relative(measured: pd.DataFrame, quantity: Quantity) -> bool:
    """Whether the bars of all models are ratios: where any model has one."""
    ratios = measured[(measured["metric"] == quantity.ratio) & (measured["privacy"] != "none")]
    return bool(np.isfinite(ratios["value"].astype(float)).any())


def _shown(part: pd.DataFrame, quantity: Quantity, relative: bool) -> pd.DataFrame:
    """The rows that the bars are of: ratios, with 1 for what is not private, or what was
    measured."""
    if not relative:
        rows = part[part["metric"] == quantity.metric]
        scale = {name: rows[name] / quantity.divisor for name in ("value", "low", "high")}
        return rows.assign(**scale)
    plain = part["privacy"] == "none"
    rows = part[part["metric"] == np.where(plain, quantity.metric, quantity.ratio)]
    ends = {name: rows[name].mask(plain) for name in ("low", "high")}
    return rows.assign(value=rows["value"].mask(plain, 1.0), **ends)


def _panel(
    axes: Axes, part: pd.DataFrame, quantity: Quantity, mechanisms: list[str], relative: bool
) -> None:
    colours = palette.colours(part)
    levels = wording.noises(part["privacy"])
    bars = _shown(part, quantity, relative)
    bars = bars[np.isfinite(bars["value"].astype(float))]
    if bars.empty:
        missing = NOT_MEASURED if quantity.metric == BATCH else "not measured"
        measured = part.loc[part["metric"] == quantity.metric, "value"].notna().any()
        style.explain(axes, ALONE if measured else missing)
    for y, mechanism in enumerate(mechanisms):
        of_mechanism = bars[bars["mechanism"] == mechanism].set_index("privacy")
        labels = [label for label in ["none", *levels] if label in of_mechanism.index]
        height = 0.8 / max(len(labels), 1)
        for place, label in enumerate(labels):
            bar = of_mechanism.loc[label]
            rank = levels.index(label) if label in levels else 0
            axes.barh(
                y - 0.4 + (place + 0.5) * height,
                bar["value"],
                height=min(height, 0.6),
                color=palette.shade(colours[mechanism], rank, len(levels)),
                linewidth=0,
                xerr=style.whiskers(bar),
                error_kw=style.WHISKERS,
                label=f"{mechanism}/{label}",
            )
        rows = part[part["mechanism"] == mechanism]
        mean, ratio = (
            rows.loc[rows["metric"] == name, "value"].mean()
            for name in (quantity.metric, quantity.ratio)
        )
        if np.isfinite(mean):
            axes.text(
                1.02,
                y,
                quantity.words(mean) + (f", {ratio:.2g}×" if np.isfinite(ratio) else ""),
                transform=axes.get_yaxis_transform(),
                va="center",
                fontsize=style.SMALL,
                color=style.MUTED,
            )
    axes.set_ylim(len(mechanisms) - 0.4, -0.6)
    axes.grid(False, axis="y")


def _axis(
    column: Sequence[Axes], measured: pd.DataFrame, quantity: Quantity, relative: bool
) -> None:
    """Scale and name the shared axis of a column of panels."""
    ends = _shown(measured, quantity, relative)[["value", "high"]].to_numpy(dtype=float)
    ends = ends[np.isfinite(ends)]
    for axes in column:
        if not style.log_if_decades(axes, ends, axis="x"):
            axes.set_xlim(0, 1.08 * ends.max(initial=1e-9) if len(ends) else 1)
            if len(ends):  # an empty panel took the ticks from all that share them
                axes.xaxis.set_major_locator(AutoLocator())
        if relative and axes.containers:
            axes.axvline(1, color=style.MUTED, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0.5)
    unit = "× non-private" if relative else quantity.unit or "images"
    column[-1].set_xlabel(f"{quantity.name} ({unit})")
