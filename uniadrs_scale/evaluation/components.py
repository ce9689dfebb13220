"""Components of a map of any size: 8-connected objects, from windows row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from scipy import ndimage

from uniadrs_scale.evaluation.metrics import EIGHT
from uniadrs_scale.objects.merge import Groups

if TYPE_CHECKING:
    from numpy.typing import NDArray

BITS = 3
"""Flags of a pixel."""


class Components:
    """Objects of a mask, with their highest value and the flags of their pixels.

    Windows come row by row and touch each other. Memory: a line of labels, and 9 bytes per part of
    an object.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        # One column more on either side: corners touch, too.
        self.above, self.below = (np.zeros(width + 2, np.int64) for _ in range(2))
        self.left: NDArray[np.int64] = np.zeros(0, np.int64)
        self.groups = Groups()
        self.peaks: list[NDArray[np.float32]] = []
        self.flags: list[NDArray[np.uint8]] = []

    def add(
        self,
        col: int,
        mask: NDArray[np.bool_],
        values: NDArray[np.float32],
        flags: NDArray[np.uint8],
    ) -> None:
        """Add a window (y, x) that begins at column ``col``; one at column 0 begins a new row."""
        if col == 0:
            self.above, self.below = self.below, self.above
            self.below[:] = 0
            self.left = np.zeros(len(mask), np.int64)
        labels, number = cast("tuple[NDArray[np.int32], int]", ndimage.label(mask, EIGHT))
        found = np.arange(1, number + 1)
        if number:
            self.peaks.append(np.asarray(ndimage.maximum(values, labels, found), np.float32))
            bits = np.zeros(number, np.uint8)
            for bit in (1 << k for k in range(BITS)):
                there = np.unique(labels[(flags & bit > 0) & mask])
                bits[there[there > 0] - 1] |= np.uint8(bit)
            self.flags.append(bits)
        # From 1, so that 0 stays "no object".
        ids = np.where(labels > 0, labels.astype(np.int64) + self.count, 0)
        width = mask.shape[1]
        for shift in (0, 1, 2):
            self._join(ids[0], self.above[col + shift : col + shift + width])
        self._join(ids[:, 0], self.left)
        self._join(ids[1:, 0], self.left[:-1])
        self._join(ids[:-1, 0], self.left[1:])
        self.below[col + 1 : col + 1 + width] = ids[-1]
        self.left = ids[:, -1].copy()
        self.count += number

    def merged(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Return the peak and the flags of every object."""
        if not self.count:
            return np.zeros(0, np.float32), np.zeros(0, np.uint8)
        roots = np.arange(self.count)
        for label in self.groups.parents:
            roots[label - 1] = self.groups.find(label) - 1
        peaks, flags = np.concatenate(self.peaks), np.concatenate(self.flags)
        np.maximum.at(peaks, roots, peaks.copy())
        np.bitwise_or.at(flags, roots, flags.copy())
        kept = roots == np.arange(self.count)
        return peaks[kept], flags[kept]

    def _join(self, here: NDArray[np.int64], there: NDArray[np.int64]) -> None:
        """Make one object of labels that face each other."""
        both = (here > 0) & (there > 0)
        for one, other in {*zip(here[both].tolist(), there[both].tolist(), strict=True)}:
            self.groups.unite(one, other)
