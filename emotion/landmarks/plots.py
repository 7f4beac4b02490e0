"""Pictures of landmarks; matplotlib, without a screen."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

COLUMNS = 5
Floats = NDArray[np.float32] | NDArray[np.float64]


def draw_faces(faces_NPC: Floats, titles: Sequence[str]) -> Figure:
    """A matplotlib figure of faces as dots, upright, all at one scale; the nearer a point, the darker.

    Args:
        faces_NPC: (N, 478, 3) with x to the right, y down, z away; as `normalise_landmarks` returns them.
        titles: One for each.
    """
    columns = min(len(titles), COLUMNS)
    lines = -(-len(titles) // columns)
    figure = Figure(figsize=(2.3 * columns, 2.7 * lines), layout="constrained")
    low, high = faces_NPC[..., :2].min(axis=(0, 1)), faces_NPC[..., :2].max(axis=(0, 1))
    for number, (face, title) in enumerate(zip(faces_NPC, titles, strict=True), start=1):
        axes = figure.add_subplot(lines, columns, number)
        axes.scatter(face[:, 0], face[:, 1], c=face[:, 2], s=2, cmap="viridis")
        axes.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), aspect="equal", xticks=[], yticks=[])
        axes.set_title(title, fontsize=9)
    return figure


def mean_faces(faces_NPC: Floats, labels: Sequence[str], class_names: Sequence[str]) -> NDArray[np.float64]:
    """(C, 478, 3) the mean face of each class."""
    label_N = np.asarray(labels, dtype=object)
    return np.stack([faces_NPC[label_N == name].mean(axis=0, dtype=np.float64) for name in class_names])
