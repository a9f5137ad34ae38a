"""Figures of embedding maps."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from evaluation.figures.canvas import MUTED, clear, new_figure, style
from evaluation.probe.projections import Points, Projection

OKABE_ITO = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a7f00", "#7f7f7f")
"""Undarkened: points need less contrast than letters, and are seen on dark pages too."""

VALUES = ListedColormap(colormaps["plasma"](np.linspace(0.15, 0.95, 256)))
"""Plasma without its ends, which vanish on dark and on white pages."""


@style()
def embedding_map(maps: Sequence[Projection], names: Sequence[str]) -> Figure:
    """Draw PCA (above) and t-SNE (below) of the same images, one column per encoder."""
    figure = new_figure(4.3, 4.8)
    grid = figure.subplots(2, len(maps), squeeze=False)
    for (above, below), one, name in zip(grid.T, maps, names, strict=True):
        share = "{:.0%} + {:.0%} of variance".format(*one.explained)
        _scatter(above, one, one.pca)
        above.set_title(f"{name}\nPCA, {share}", loc="left", fontsize=8.5)
        _scatter(below, one, one.tsne)
        below.set_title("t\N{NON-BREAKING HYPHEN}SNE", loc="left", fontsize=8.5)
    if maps[0].classes:
        handles, labels = grid[0, 0].get_legend_handles_labels()
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
        points = grid[0, 0].collections[0]
        bar = figure.colorbar(points, ax=grid, location="bottom", shrink=0.6, pad=0.02)
        bar.set_label("target value", fontsize=8.5, color=MUTED)
        bar.outline.set_visible(False)
    return figure


def _scatter(axes: Axes, one: Projection, points: Points) -> None:
    (x, y), values = np.asarray(points).T, np.asarray(one.values)
    size = float(np.clip(4000 / len(x), 4, 22))
    clear(axes)
    if not one.classes:
        axes.scatter(x, y, c=values, cmap=VALUES, s=size, lw=0, alpha=0.9, rasterized=True)
    for index, name in enumerate(one.classes):
        rows, colour = values == index, OKABE_ITO[index % len(OKABE_ITO)]
        axes.scatter(
            x[rows], y[rows], color=colour, s=size, lw=0, alpha=0.75, label=name, rasterized=True
        )
