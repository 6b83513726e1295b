"""The drawn ten-class set: balanced, the same everywhere, mirror-symmetric, weakened but not erased by downsampling."""

import numpy as np
import pytest
import torch

import datasets
from datasets import DrawnDataset
from tools import drawn
from tools.drawn import SHAPES, photo_crops, shape_distance


def test_drawn_is_balanced_and_keeps_its_bits():
    data = DrawnDataset(train=True, size=200)
    assert data.images.shape == (200, 3, 32, 32) and data.images.dtype == torch.uint8
    learnt_from = {*drawn.BACKGROUNDS["train"], *datasets.PHOTOGRAPHS["train"]}
    assert not learnt_from & set(drawn.BACKGROUNDS["test"])
    assert data.labels.bincount().tolist() == [20] * 10 and data.labels.dtype == torch.int64
    assert len(set(data.classes)) == 10 and "not CIFAR-10" in data.name
    # Changes with the images, on purpose: figures made with other images are not comparable.
    assert data.fingerprint == "07b27b3ed71981e8"
    assert DrawnDataset(train=False, size=50).fingerprint == "d0a2743a1b006e9e"
    with pytest.raises(ValueError, match=r"multiple of 10.*found 15"):
        DrawnDataset(size=15)


def test_photo_crops_are_windows_of_the_downsampled_photograph():
    photo = np.random.default_rng(1).integers(0, 256, (204, 198, 3)).astype(np.uint8)
    crops = photo_crops([photo], 60, np.random.default_rng(0))
    assert crops.shape == (60, 32, 32, 3) and crops.min() >= 0 and crops.max() <= 1
    sixth = photo.reshape(34, 6, 33, 6, 3).mean((1, 3)) / 255
    windows = [sixth[r : r + 32, c : c + 32] for r in range(3) for c in range(2)]
    found = [any(abs(crop - window).max() < 1e-6 for window in windows) for crop in crops]
    assert 5 < sum(found) < 30  # a quarter of the crops, since four sizes are equally likely


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_mirror_images_of_themselves_and_of_similar_size(shape):
    y, x = np.mgrid[-2:2:201j, -2:2:201j]
    distance = shape_distance(shape, x, y)
    np.testing.assert_allclose(distance, distance[:, ::-1], atol=1e-9)
    assert 1.0 < (distance < 0).sum() * 0.02**2 < 2.8  # area; the unit disc has 3.14
    assert distance[100, 100] < 0 < distance[0, 0]
    assert (distance < 0)[:, [0, -1]].sum() == (distance < 0)[[0, -1]].sum() == 0


def test_downsampling_weakens_the_textures_and_keeps_some_of_them():
    middle = (slice(None), slice(None), slice(12, 20), slice(12, 20))
    clean = DrawnDataset(train=True, size=200).images.float()
    lr_img = torch.nn.functional.interpolate(clean, scale_factor=0.5, mode="bicubic", antialias=True)
    upsampled = torch.nn.functional.interpolate(lr_img, scale_factor=2, mode="bicubic")
    assert 0.3 < upsampled[middle].std((2, 3)).mean() / clean[middle].std((2, 3)).mean() < 0.8
