"""Which predicted centres hit which objects; without torch, for processes that start often."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def match_centres(predicted: Array, objects: Array, distance: float) -> NDArray[np.int64]:
    """Match centres (m, 2), in descending order of score, with those of objects (n, 2).

    Each takes the nearest object that is still free and not farther than the distance, so its match
    does not depend on centres with lower scores.

    Returns:
        (m,): index of the object, -1 for none.

    Example:
        >>> found, objects = np.array([[0, 0], [1, 0], [9, 9]]), np.array([[0, 1], [2, 0]])
        >>> match_centres(found, objects, distance=2).tolist()
        [0, 1, -1]
    """
    matches = np.full(len(predicted), -1, np.int64)
    if not len(objects):
        return matches
    distances = np.linalg.norm(predicted[:, None] - objects[None], axis=-1)
    for row in np.flatnonzero((distances <= distance).any(1)):
        nearest = int(distances[row].argmin())
        if distances[row, nearest] <= distance:
            distances[:, nearest] = np.inf  # taken
            matches[row] = nearest
    return matches
