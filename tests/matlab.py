"""MATLAB's imresize as its source code defines it and as it is usually written for NumPy: the tests compare with it,
and bench.py measures it.
"""
import numpy as np


def plain_imresize(img: np.ndarray, scale: float, border: str = "symmetric") -> np.ndarray:
    """img (H, W) or (H, W, C), uint8 or float64: indices and weights of each output row, then a loop; twice."""
    kind, stretch = img.dtype, min(scale, 1)
    for axis in (0, 1):
        length = img.shape[axis]
        place = np.arange(1, int(np.ceil(scale * length)) + 1)[:, None] / scale + 0.5 * (1 - 1 / scale)
        index = np.floor(place - 2 / stretch).astype(int) + np.arange(int(np.ceil(4 / stretch)) + 2)  # counts from 1
        x = np.abs(stretch * (place - index))
        weight = np.select([x <= 1, x <= 2], [1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2])
        mirror = np.r_[0:length, length - 1 : -1 : -1]
        index = mirror[(index - 1) % (2 * length)] if border == "symmetric" else (index - 1).clip(0, length - 1)
        rows = np.moveaxis(img, axis, 0).astype(float)
        rows = np.stack([np.tensordot(w, rows[i], 1) / w.sum() for w, i in zip(weight, index, strict=True)])
        img = np.moveaxis(np.floor(rows + 0.5).clip(0, 255) if kind == np.uint8 else rows, 0, axis)
    return img.astype(kind)
