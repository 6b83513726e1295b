"""The drawn ten-class set: balanced, the same everywhere, weakened but not erased by downsampling."""

import torch
import torch.nn.functional as F

import datasets
from datasets import DrawnDataset
from tools import drawn

from .conftest import refuses


def test_drawn_is_balanced_and_keeps_its_bits():
    data = DrawnDataset(train=True, size=200)
    assert data.images.shape == (200, 3, 32, 32) and data.images.dtype == torch.uint8
    learnt_from = {*drawn.BACKGROUNDS["train"], *datasets.PHOTOGRAPHS["train"]}
    assert not learnt_from & set(drawn.BACKGROUNDS["test"])
    assert data.labels.bincount().tolist() == [20] * 10 and data.labels.dtype == torch.int64
    assert len(set(data.classes)) == 10 and "not CIFAR-10" in data.name
    # Changes with the images, on purpose: figures made with other images are not comparable.
    assert data.fingerprint == "2cd4b5fb02492419"
    assert DrawnDataset(train=False, size=50).fingerprint == "39ea2afe3458e16d"
    refuses(ValueError, r"multiple of 10.*found 15", DrawnDataset, size=15)


def test_downsampling_weakens_the_textures_and_keeps_some_of_them():
    middle = (slice(None), slice(None), slice(12, 20), slice(12, 20))
    clean = DrawnDataset(train=True, size=200).images
    upsampled = F.interpolate(datasets.Fuzz(2)(clean).float(), scale_factor=2, mode="bicubic")
    assert 0.3 < upsampled[middle].std((2, 3)).mean() / clean[middle].float().std((2, 3)).mean() < 0.8
