"""Figures of an evaluation's report; matplotlib, without a screen."""

from typing import Any


def draw_confusion(report: dict[str, Any]) -> Any:
    """A matplotlib figure: the share of each true class (rows) that got each answer, with the counts."""
    from matplotlib.figure import Figure

    names, counts = report["class_names"], report["confusion"]
    figure = Figure(figsize=(0.9 * len(names) + 2.2, 0.8 * len(names) + 1.6), layout="constrained")
    axes = figure.add_subplot()
    shares = [[count / max(sum(row), 1) for count in row] for row in counts]
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for row, (share_row, count_row) in enumerate(zip(shares, counts, strict=True)):
        for column, (share, count) in enumerate(zip(share_row, count_row, strict=True)):
            colour = "white" if share > 0.5 else "black"
            axes.text(
                column, row, f"{share:.0%}\n{count}", ha="center", va="center", fontsize=8, color=colour
            )
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="answer", ylabel="true class")
    figure.colorbar(image, ax=axes, label="share of the true class")
    return figure


def draw_reliability(report: dict[str, Any]) -> Any:
    """A matplotlib figure: accuracy over confidence, before and after the temperature."""
    from matplotlib.figure import Figure

    calibration = report["calibration"]
    figure = Figure(figsize=(4.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for when, marker in (("before", "o"), ("after", "s")):
        bins = calibration[f"bins_{when}"]
        error = calibration[f"calibration_error_{when}"]
        axes.plot(
            [one["confidence"] for one in bins],
            [one["accuracy"] for one in bins],
            marker=marker,
            label=f"{when} scaling, error {error:.3f}",
        )
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    axes.legend(fontsize=8)
    return figure
