"""datasets.py: degradations as objects, alone, in chains and by choice; random changes for training."""
import hashlib
import itertools
from dataclasses import FrozenInstanceError, dataclass

import pytest
import torch
import torch.nn.functional as F

import datasets
from datasets import Area, BicubicPlain, Blur, Chain, Choice, Fuzz, Jpeg, Nearest, Noise, Occlusion, Rescaled, imresize

from .conftest import random_image, refuses, seed

IMG = torch.rand(3, 8, 8)


def test_the_nine_keep_the_bytes_that_kept_answers_were_made_with():
    def resized(mode):
        return datasets.to_uint8(F.interpolate(img / 255, size=(16, 16), mode=mode))

    img = datasets.DrawnDataset(train=False, size=20).images
    half = imresize(img, 0.5)
    expected = {
        "bicubic ×2": half, "bicubic ×3": imresize(imresize(img, 1 / 3), 3 / 2)[..., :16, :16],
        "bicubic ×4": imresize(imresize(img, 1 / 4), 2), "area ×2": resized("area"), "nearest ×2": img[..., ::2, ::2],
        "bicubic ×2, no antialias": resized("bicubic"), "blur σ 1, ×2": imresize(datasets.blur(img, 1.0), 0.5),
        "×2, noise σ 0.05": datasets.to_uint8(half / 255 + 0.05 * torch.randn(half.shape, generator=seed(0))),
        "×2, JPEG 50": datasets.jpeg(half, 50),
    }  # fmt: skip
    found = {name: degradation(img) for name, degradation in datasets.degradations().items()}
    assert list(found) == list(expected) and all(torch.equal(found[name], expected[name]) for name in found)
    for a, b in itertools.combinations(found, 2):
        assert not torch.equal(found[a], found[b]), f"{a} and {b} are one"


def test_fuzz_on_bytes_on_floats_and_on_sides_that_a_float_would_miss():
    img = random_image(32, 48, batch=(2,))
    assert torch.equal(Fuzz(2)(img)[1], Fuzz(2)(img[1]))
    lr_img = Fuzz(2)((img > 127).float())
    assert lr_img.dtype == torch.float32 and lr_img.min() >= 0 and lr_img.max() <= 1
    assert Fuzz(75)(random_image(525, 150)).shape == (3, 7, 2)  # 525 * (1 / 75) is 7.000000000000001


@pytest.mark.parametrize("degradation", [
    Fuzz(2), Fuzz(3), BicubicPlain(2), Area(4), Nearest(2), Blur(1.5), Rescaled(3), Rescaled(4, 2),
    Chain(Fuzz(2), Blur(0.8), Fuzz(2)), Choice(Fuzz(2), BicubicPlain(2)),
], ids=lambda degradation: degradation.name)  # fmt: skip
def test_nothing_beyond_the_margin_is_seen(degradation):
    img, margin, scale = random_image(192, 192), degradation.margin, degradation.scale_factor
    first, end = 96 - margin, 144 + margin  # 96 and 144 suit every grid
    hidden = torch.zeros_like(img)
    hidden[:, first:end, first:end] = img[:, first:end, first:end]
    inside = slice(None), slice(96 // scale, 144 // scale), slice(96 // scale, 144 // scale)
    assert margin % scale == 0 and torch.equal(degradation(hidden)[inside], degradation(img)[inside])


def test_chance_is_drawn_from_the_generator_and_is_fixed_without_one():
    img = random_image(16, 16, batch=(6,))
    for degradation in (Noise(0.1), Occlusion(4), Choice(Noise(0.1)), Chain(Fuzz(2), Noise(0.1))):
        assert torch.equal(degradation(img), degradation(img, seed(0)))
        assert not torch.equal(degradation(img), degradation(img, seed(1)))
    generator = seed(3)
    by_hand = Noise(0.2)(Noise(0.1)(img, generator), generator)
    assert torch.equal(Chain(Noise(0.1), Noise(0.2))(img, seed(3)), by_hand)
    before = seed(4)
    first, again, other = (torch.rand(3, generator=datasets.fork(g)) for g in (before, before, seed(5)))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.rand(3, generator=before), torch.rand(3, generator=seed(4)))  # it has not moved


def test_choice_takes_one_part_for_each_image():
    img = random_image(8, 8, batch=(200,))
    parts = Fuzz(2), Nearest(2), Area(2)
    choice = Choice(*parts)
    same = torch.stack([(choice(img, seed(0)) == part(img)).flatten(1).all(1) for part in parts])
    assert (same.sum(0) == 1).all() and same.sum(1).min() > 45
    assert choice(img[0]).shape == (3, 4, 4) and choice.name == "bicubic ×2 or nearest ×2 or area ×2"


class Mirrored(datasets.Degradation):
    """As a student writes one."""

    def __call__(self, images, generator=None):
        return images.flip(-1)


@dataclass
class Darker(datasets.Degradation):
    share: float
    label = "darker, {0.share:.0%}"

    def __call__(self, images, generator=None):
        return (images * self.share).to(torch.uint8)


def test_a_degradation_is_its_class_and_its_parameters_also_one_of_ones_own():
    named = Mirrored()
    named.name = "mine"
    assert [d.name for d in (Mirrored(), Darker(0.5), named)] == ["Mirrored", "darker, 50%", "mine"]
    img, both = random_image(24, 24), Chain(Mirrored(), Fuzz(2), Darker(0.5))
    assert (both.name, both.scale_factor, both.margin) == ("Mirrored, ×2, darker, 50%", 2, 4)
    assert torch.equal(both(img), (imresize(img.flip(-1), 0.5) * 0.5).to(torch.uint8))
    assert Fuzz(2) == Fuzz(2.0) != Fuzz(3) and Fuzz(2) != Nearest(2) and len({Noise(0.1), Noise(0.1), Blur(0.1)}) == 2
    assert Chain(Fuzz(2), Jpeg(50)) == Chain(Fuzz(2), Jpeg(50)) != Chain(Fuzz(2), Jpeg(40))
    refuses(FrozenInstanceError, None, setattr, Noise(0.1), "sigma", 0.2)


def test_damage_is_noise_a_mask_or_both_and_low_resolution_on_request():
    img, damage = datasets.to_float(random_image(16, 16, batch=(3,))), datasets.Damage(0.2, 5)
    noisy = (img + 0.2 * torch.randn(img.shape, generator=seed(0))).clamp(0, 1)
    assert damage.kinds == ("noise", "mask", "both") and torch.equal(damage(img, "noise")[0], noisy)
    masked, visible = damage(img, "mask", seed(1))
    assert (visible.sum((2, 3)) == 16 * 16 - 25).all() and torch.equal(masked, img * visible)
    generator = seed(2)
    noisy, visible = Noise(0.2)(img, generator), Occlusion(5)(torch.ones_like(img), generator)
    assert torch.equal(damage(img, "both", seed(2))[0], noisy * visible)
    low, visible = damage(img, "low_res")
    assert torch.equal(low, imresize(Fuzz(2)(img), 2).clamp(0, 1)) and visible.min() == 1
    assert torch.equal(damage(img, "clean")[0], img)


@pytest.mark.parametrize("call, message", [
    (lambda: Fuzz(2)(IMG[:, :7]), "multiples of 2, found 7x8"), (lambda: Fuzz(2)(IMG[:1]), "expected RGB images"),
    (lambda: Fuzz(1.5), "whole number of at least 1, found 1.5"), (lambda: Noise(-1), "at least 0"),
    (lambda: Occlusion(9)(IMG[None]), "does not fit"), (lambda: Jpeg(50)(IMG), "jpeg expects uint8"),
    (lambda: Choice(Fuzz(2), Fuzz(3)), "share one scale_factor, found .*3"), (lambda: Choice(), "found {}"),
    (lambda: datasets.Damage()(IMG, "dust"), "found 'dust'"),
])  # fmt: skip
def test_wrong_input_is_refused(call, message):
    refuses(ValueError, message, call)


def test_a_random_batch_keeps_its_bits():
    """The draws and their order are those that trained the networks in results/."""
    images, generator = random_image(32, 32, batch=(16,)), seed(7)
    out = datasets.augment(images, flip=True, shift=4, cutout=8, generator=generator)
    assert hashlib.sha256(out.numpy()).hexdigest()[:16] == "3b97d481d53fd625"
    masked = datasets.Occlusion(8)(images, generator)
    assert hashlib.sha256(masked.numpy()).hexdigest()[:16] == "6284c3a9261974a2"
    images = torch.empty(4, 3, 8, 8, dtype=torch.uint8, device="meta")  # refuses to meet a tensor of the CPU
    assert datasets.augment(images, cutout=2).device.type == datasets.Occlusion(2)(images).device.type == "meta"
