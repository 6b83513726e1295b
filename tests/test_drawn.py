"""The drawn ten-class set: balanced, the same everywhere, mirror-symmetric, weakened but not erased by downsampling."""
import numpy as np
import pytest
import torch

import datasets
from datasets import DrawnDataset
from drawn import SHAPES, photo_crops, shape_distance


@pytest.fixture(scope="module")
def drawn():
    return DrawnDataset(train=True, size=200, seed=3)


def test_drawn_follows_the_data_set_contract(drawn):
    assert drawn.images.shape == (200, 3, 32, 32) and drawn.images.dtype == torch.uint8
    assert drawn.labels.shape == (200,) and drawn.labels.dtype == torch.int64
    assert len(drawn) == 200 and len(set(drawn.classes)) == 10
    assert not drawn.is_cifar10 and "not CIFAR-10" in drawn.name
    image, label = drawn[7]
    assert image.dtype == torch.float32 and image.shape == (3, 32, 32)
    assert torch.equal(image * 255, drawn.images[7].float()) and label == int(drawn.labels[7])
    assert isinstance(label, int)


def test_drawn_default_sizes_and_balance():
    test_set = DrawnDataset(train=False)
    assert len(test_set) == 1000
    assert torch.bincount(test_set.labels).tolist() == [100] * 10


def test_drawn_is_the_same_for_a_seed_and_differs_between_seeds_and_splits(drawn):
    again = DrawnDataset(train=True, size=200, seed=3)
    assert torch.equal(again.images, drawn.images) and again.fingerprint == drawn.fingerprint
    others = DrawnDataset(True, 200, seed=4), DrawnDataset(False, 200, seed=3)
    assert len({drawn.fingerprint, *(d.fingerprint for d in others)}) == 3


def test_drawn_fingerprint_is_pinned():
    # Changes with the images, on purpose: figures made with other images are not comparable.
    assert DrawnDataset(train=False, size=50, seed=0).fingerprint == "d0a2743a1b006e9e"


def test_training_and_test_photographs_differ():
    learnt_from = {*datasets.DRAWN_BACKGROUNDS["train"], *datasets.PHOTOGRAPHS["train"]}
    assert not learnt_from & set(datasets.DRAWN_BACKGROUNDS["test"])


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


def test_disc_distance_by_hand():
    distance = shape_distance("disc", np.array([3.0, 0.0]), np.array([4.0, 0.0]))
    np.testing.assert_allclose(distance, [5 - 0.92, -0.92])


def test_downsampling_weakens_the_textures_and_keeps_some_of_them(drawn):
    middle = (slice(None), slice(None), slice(12, 20), slice(12, 20))
    clean = drawn.images.float()
    lr_img = torch.nn.functional.interpolate(clean, scale_factor=0.5, mode="bicubic", antialias=True)
    upsampled = torch.nn.functional.interpolate(lr_img, scale_factor=2, mode="bicubic")
    kept = upsampled[middle].std((2, 3)).mean() / clean[middle].std((2, 3)).mean()
    assert 0.3 < kept < 0.8


@pytest.mark.parametrize("size", [0, -10, 15])
def test_drawn_refuses_sizes_that_cannot_balance(size):
    with pytest.raises(ValueError, match=f"multiple of 10.*found {size}"):
        DrawnDataset(size=size)
