"""Figures of embedding maps and of a training's course."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from evaluation.figures.canvas import new_figure, style
from evaluation.figures.palette import MUTED
from evaluation.probe.projections import Points, Projection

CLASS_COLOURS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
    "#8a7f00",
    "#7f7f7f",
)
"""Okabe and Ito's, as published: points need no contrast for reading, but one on dark pages."""


VALUES = ListedColormap(colormaps["plasma"](np.linspace(0.15, 0.95, 256)))
"""Plasma without its ends, which vanish on dark and on white pages."""


def embedding_map(maps: Sequence[Projection], names: Sequence[str]) -> Figure:
    """PCA (above) and t-SNE (below) of one dataset, one column per encoder.

    Args:
        maps: projections of the same images.
        names: display name of each one's encoder.
    """
    with style():
        figure = new_figure(4.3, 4.8)
        axes = figure.subplots(2, len(maps), squeeze=False)
        for column, (one, name) in enumerate(zip(maps, names, strict=True)):
            share = "{:.0%} + {:.0%} of variance".format(*one.explained)
            _scatter(figure, axes[0, column], one, one.pca)
            axes[0, column].set_title(f"{name}\nPCA, {share}", loc="left", fontsize=8.5)
            _scatter(figure, axes[1, column], one, one.tsne)
            axes[1, column].set_title("t\N{NON-BREAKING HYPHEN}SNE", loc="left", fontsize=8.5)
        first = maps[0]
        if first.classes:
            handles, labels = axes[0, 0].get_legend_handles_labels()
            figure.legend(
                handles,
                labels,
                loc="outside lower left",
                ncols=min(len(labels), 3),
                frameon=False,
                fontsize=9,
                markerscale=1.8,
                handletextpad=0.2,
            )
        else:
            bar = figure.colorbar(
                axes[0, 0].collections[0], ax=axes, location="bottom", shrink=0.6, pad=0.02
            )
            bar.set_label("target value", fontsize=8.5, color=MUTED)
            bar.outline.set_visible(False)
        return figure


def _scatter(figure: Figure, axes: Axes, one: Projection, points: Points) -> None:
    xy, values = np.asarray(points), np.asarray(one.values)
    size = float(np.clip(4000 / len(xy), 4, 22))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.grid(False)
    if not one.classes:
        axes.scatter(
            xy[:, 0], xy[:, 1], c=values, cmap=VALUES, s=size, lw=0, alpha=0.9, rasterized=True
        )
        return
    for index, name in enumerate(one.classes):
        rows = values == index
        colour = CLASS_COLOURS[index % len(CLASS_COLOURS)]
        axes.scatter(
            xy[rows, 0],
            xy[rows, 1],
            color=colour,
            s=size,
            lw=0,
            alpha=0.75,
            label=name,
            rasterized=True,
        )
