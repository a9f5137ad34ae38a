"""Loss and validation metric of a task along training."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evaluation.figures.canvas import new_figure, style
from evaluation.figures.palette import SLOTS
from evaluation.figures.training_log import TaskLog


def training_panel(log: TaskLog) -> Figure:
    """Loss (left) and main validation metric (right) of one task along the optimizer steps."""
    with style():
        figure = new_figure(3.9, 1.55)
        left, right = figure.subplots(1, 2)
        colour = SLOTS[0][1]
        steps, loss = np.asarray(log.loss_steps), np.asarray(log.loss)
        window = max(1, len(loss) // 25)
        if window > 1:
            left.plot(steps, loss, color=colour, lw=0.8, alpha=0.35)
            kernel = np.ones(window) / window
            left.plot(steps[window - 1 :], np.convolve(loss, kernel, "valid"), color=colour, lw=1.8)
        else:
            left.plot(steps, loss, color=colour, lw=1.8)
        left.set_title("training loss", loc="left", fontsize=9)
        if log.metric:
            values = log.metrics[log.metric]
            right.plot(log.metric_steps, values, color=SLOTS[1][1], marker="o", markersize=3.5)
            right.set_title(f"validation {log.metric}", loc="left", fontsize=9)
            if log.bounded:
                right.set_ylim(0, 1.02)
        else:
            right.set_axis_off()
        for axes in (left, right):
            axes.tick_params(labelsize=8)
            axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4))
        left.set_xlabel("optimizer step", fontsize=8)
        right.set_xlabel("optimizer step", fontsize=8)
        return figure
