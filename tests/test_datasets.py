"""datasets.py: the resize against MATLAB's files, loaders against broken input, a download server."""

import hashlib
import http.server
import io
import itertools
import math
import os
import pickle
import re
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import datasets
from datasets import imresize

PROJECT = Path(datasets.__file__).resolve().parent


def random_image(height=40, width=56, seed=0, batch=()):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*batch, 3, height, width), dtype=torch.uint8, generator=generator)


def save(path, img):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(img.permute(1, 2, 0).numpy()).save(path)
    return path


# --- imresize -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Set5", "Set14"])
@pytest.mark.parametrize("scale", [2, 4])
def test_imresize_gives_the_bytes_of_matlab(real_data, name, scale):
    folder = real_data(name)
    files = sorted((folder / "HR").glob("*.png"))
    lr_folder = folder / "LR_bicubic" / f"X{scale}"
    if not lr_folder.is_dir():
        pytest.skip(f"{name} came without MATLAB's LR files; DS/README.md says where they are")
    assert len(files) == {"Set5": 5, "Set14": 14}[name]
    for file in files:
        hr_img, lr_img = (
            np.array(Image.open(file)),
            np.array(Image.open(lr_folder / f"{file.stem}x{scale}.png")),
        )
        assert hr_img.ndim == lr_img.ndim  # one Set14 file is grey in both
        hr_img = np.atleast_3d(hr_img)[: len(lr_img) * scale, : lr_img.shape[1] * scale].transpose(2, 0, 1)
        made = imresize(torch.from_numpy(hr_img.copy()), 1 / scale, border="replicate")
        assert np.array_equal(made.numpy(), np.atleast_3d(lr_img).transpose(2, 0, 1)), file.name


def reference_resize(img, scale, border):
    """MATLAB's imresize, pixel by pixel, as its source code defines it: img (H, W) float64 or uint8."""

    def cubic(x):
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0

    def along_rows(img):
        side, stretch = len(img), min(scale, 1.0)
        rows = []
        for i in range(1, int(np.ceil(scale * side)) + 1):  # MATLAB counts from 1
            u = i / scale + 0.5 * (1 - 1 / scale)
            left = int(np.floor(u - 2 / stretch))
            taps = range(left, left + int(np.ceil(4 / stretch)) + 2)
            weights = np.array([stretch * cubic(stretch * (u - k)) for k in taps])
            weights /= weights.sum()
            mirror = [*range(side), *range(side - 1, -1, -1)]
            where = [
                mirror[(k - 1) % (2 * side)] if border == "symmetric" else min(max(k, 1), side) - 1
                for k in taps
            ]
            rows.append(weights @ img[where])
        out = np.array(rows)
        return np.floor(out + 0.5).clip(0, 255) if is_bytes else out

    is_bytes = img.dtype == np.uint8
    return along_rows(along_rows(img.astype(np.float64)).T).T


@settings(max_examples=40)
@given(
    height=st.integers(1, 23),
    width=st.integers(1, 23),
    scale=st.sampled_from([0.5, 0.25, 1 / 3, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0]),
    border=st.sampled_from(["symmetric", "replicate"]),
    block=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_imresize_equals_a_plain_port(height, width, scale, border, block, seed):
    img = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    made = imresize(torch.from_numpy(img), scale, border).numpy()
    expected = reference_resize(img, scale, border)
    # Where an exact sum lies on a half, rounding errors decide; at these five scales no sum has any.
    assert np.abs(made - expected).max() <= (0 if scale in (0.25, 0.5, 1, 2, 4) else 1)
    assert (made != expected).mean() < 0.02
    values = imresize(torch.from_numpy(img / 255), scale, border).numpy()
    assert np.allclose(values, reference_resize(img / 255, scale, border), atol=1e-12)


@pytest.mark.parametrize("scale", [0.5, 0.25, 1 / 3, 2, 1.7])
def test_blocks_equal_the_dense_product(scale):
    img = random_image(131, 150)
    dense = imresize(img, scale, block=10**6)
    for block in (1, 7, 32):
        assert torch.equal(imresize(img, scale, block=block), dense)


def test_imresize_of_a_constant_a_ramp_and_a_wave():
    flat = torch.full((1, 3, 20, 20), 77, dtype=torch.uint8)
    assert (imresize(flat, 0.5) == 77).all() and (imresize(flat, 3) == 77).all()
    ramp = torch.arange(64, dtype=torch.float64).repeat(64, 1) / 64
    inside = imresize(ramp, 0.5)[4:-4, 4:-4]
    assert torch.allclose(inside, ((torch.arange(4, 28) * 2 + 0.5) / 64).double().expand(24, 24))
    stripes = torch.zeros(64, 64)
    stripes[:, ::2] = 1  # finer than the small image can show: the widened kernel averages it away
    assert (imresize(stripes, 0.25)[4:-4, 4:-4] - 0.5).abs().max() < 0.01


def test_imresize_leaves_floats_unclipped_and_passes_gradients():
    step = torch.zeros(1, 1, 8, 8)
    step[..., 4:] = 1
    big = imresize(step, 2)
    assert big.min() < -0.01 and big.max() > 1.01  # the cubic overshoots
    img = torch.rand(1, 2, 6, 9, dtype=torch.float64, requires_grad=True)
    for scale in (0.5, 2, 1 / 3):
        assert torch.autograd.gradcheck(lambda x, s=scale: imresize(x, s), img)


def test_weights_cached_in_inference_mode_serve_a_backward_pass():
    with torch.inference_mode():
        imresize(torch.rand(3, 37, 41), 0.5)
    img = torch.rand(3, 37, 41, requires_grad=True)
    imresize(img, 0.5).sum().backward()
    assert torch.isfinite(img.grad).all()


def test_imresize_keeps_its_bytes_under_autocast():
    img = random_image(36, 36)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(imresize(img, 0.5), imresize(img, 0.5, block=1000))


def test_imresize_shapes_and_wrong_input():
    assert imresize(torch.rand(2, 5, 3, 7, 9), 0.5).shape == (2, 5, 3, 4, 5)
    assert imresize(torch.rand(7, 9), 2).shape == (14, 18)
    img = torch.rand(3, 8, 8)
    for scale in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="positive number"):
            imresize(img, scale)
    with pytest.raises(ValueError, match='"symmetric" or "replicate"'):
        imresize(img, 2, border="zeros")
    with pytest.raises(TypeError, match="uint8 or floating"):
        imresize(torch.ones(3, 8, 8, dtype=torch.int32), 2)
    with pytest.raises(ValueError, match="non-empty"):
        imresize(torch.ones(3, 0, 8), 2)


# --- degradations -------------------------------------------------------------------------------------------


def test_fuzz_is_imresize_on_bytes_and_clamps_floats():
    img = random_image(32, 48, batch=(2,))
    assert torch.equal(datasets.Fuzz(2)(img), imresize(img, 0.5))
    assert datasets.Fuzz(4)(img[0]).shape == (3, 8, 12)
    lr_img = datasets.Fuzz(2)((random_image(32, 48) > 127).float())
    assert lr_img.dtype == torch.float32 and lr_img.min() >= 0 and lr_img.max() <= 1
    with pytest.raises(ValueError, match=r"31x48.*multiples of 2"):
        datasets.Fuzz(2)(img[..., :31, :])
    with pytest.raises(ValueError, match="RGB images"):
        datasets.Fuzz(2)(img[:, :1])
    with pytest.raises(ValueError, match="whole number"):
        datasets.Fuzz(1.5)


def test_float_and_uint8_round_trip():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(datasets.to_uint8(datasets.to_float(values)), values)
    assert datasets.to_uint8(torch.tensor([-1.0, 0.5 / 255, 0.49 / 255, 2.0])).tolist() == [0, 1, 0, 255]


def test_noise_has_the_stated_sigma_and_follows_the_generator():
    img = torch.full((4, 3, 64, 64), 0.5)
    noise = datasets.GaussianNoise(0.1)
    first = noise(img, torch.Generator().manual_seed(3))
    assert abs((first - img).std().item() - 0.1) < 0.002 and abs((first - img).mean().item()) < 0.002
    assert torch.equal(first, noise(img, torch.Generator().manual_seed(3)))
    assert noise(random_image()).dtype == torch.uint8
    with pytest.raises(ValueError, match="sigma"):
        datasets.GaussianNoise(-1)


def test_occlusion_makes_one_hole_of_the_stated_size_anywhere():
    img = torch.full((500, 3, 12, 12), 200, dtype=torch.uint8)
    out = datasets.Occlusion(5)(img, torch.Generator().manual_seed(0))
    hole = (out == 0).all(1)
    assert (hole.sum((1, 2)) == 25).all() and (hole.any(2).sum(1) == 5).all()
    assert hole.any(0).all()  # every pixel, corners too, is hit in some image
    assert (out[:, :, :, :][~hole[:, None].expand_as(out)] == 200).all()
    assert (datasets.Occlusion(12, fill=0.5)(datasets.to_float(img[0])) == 0.5).all()
    with pytest.raises(ValueError, match="does not fit"):
        datasets.Occlusion(13)(img)


def test_blur_keeps_the_mean_and_has_the_stated_width():
    dot = torch.zeros(1, 3, 33, 33)
    dot[..., 16, 16] = 1
    spread = datasets.blur(dot, sigma=1.5)[0, 0]
    place = torch.arange(33) - 16.0
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    assert (spread.sum(0) * place**2).sum().sqrt() == pytest.approx(1.5, abs=0.03)
    wave = torch.rand(2, 3, 32, 32)
    assert datasets.blur(wave).std() < 0.5 * wave.std() and datasets.blur(datasets.to_uint8(wave)).dtype == torch.uint8


def test_jpeg_keeps_a_plain_colour_and_loses_more_at_lower_quality():
    plain = torch.full((2, 3, 16, 16), 120, dtype=torch.uint8)
    assert (datasets.jpeg(plain, 50).int() - 120).abs().max() <= 1
    img = datasets.DrawnDataset(train=False, size=10).images
    errors = [(datasets.jpeg(img, quality).int() - img.int()).abs().float().mean() for quality in (10, 50, 95)]
    assert errors[0] > errors[1] > errors[2] > 0
    with pytest.raises(ValueError, match="jpeg expects uint8"):
        datasets.jpeg(img / 255)


def test_degradations_have_one_size_and_differ():
    img = datasets.DrawnDataset(train=False, size=20).images
    kept = img.clone()
    small = {name: degrade(img) for name, degrade in datasets.degradations().items()}
    assert len(small) == 9 and torch.equal(img, kept)
    assert {(tuple(lr_img.shape), lr_img.dtype) for lr_img in small.values()} == {((20, 3, 16, 16), torch.uint8)}
    names = list(small)
    assert torch.equal(small[names[0]], datasets.Fuzz(2)(img))
    for a, b in itertools.combinations(names, 2):
        assert not torch.equal(small[a], small[b]), f"{a} and {b} are one"
    again = {name: degrade(img) for name, degrade in datasets.degradations().items()}
    assert all(torch.equal(small[name], again[name]) for name in names)
    nearest, area = small["nearest ×2"], small["area ×2"]
    assert torch.equal(nearest[0, :, 3, 5], img[0, :, 6, 10])
    assert area[0, 0, 3, 5] == math.floor(img[0, 0, 6:8, 10:12].double().mean() + 0.5)


@pytest.mark.parametrize("name", ["CIFAR10", "Set14"])
def test_is_there(tmp_path, name):
    assert not datasets.is_there(name, tmp_path)
    (tmp_path / "Set14").mkdir()
    (tmp_path / "CIFAR10").mkdir()
    assert not datasets.is_there(name, tmp_path)  # empty
    (tmp_path / "Set14" / "HR").mkdir()
    (tmp_path / "CIFAR10" / "cifar-10-batches-bin").mkdir()
    assert datasets.is_there(name, tmp_path)


def test_grey_is_luma_in_three_channels():
    img = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]], dtype=torch.uint8)
    out = datasets.grey(img.T[:, None, :].contiguous())
    assert out[:, 0].tolist() == [[76, 150, 29, 18]] * 3  # 0.299, 0.587, 0.114 of 255; 18.15


# --- image files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_every_mode_becomes_rgb_bytes(tmp_path, mode):
    gradient = Image.fromarray(np.arange(0, 240, dtype=np.uint8).reshape(12, 20))
    if mode == "I;16":
        img, suffix = Image.fromarray(np.full((12, 20), 65535, np.uint16)), "png"
    else:
        img, suffix = gradient.convert(mode), "tif" if mode in ("CMYK", "YCbCr") else "png"
    img.save(tmp_path / f"x.{suffix}")
    read = datasets.read_image(tmp_path / f"x.{suffix}")
    assert read.shape == (3, 12, 20) and read.dtype == torch.uint8 and read.is_contiguous()
    if mode == "I;16":
        assert (read == 255).all()
    elif mode != "1":
        assert (read[0].int() - torch.from_numpy(np.array(gradient)).int()).abs().max() <= 3


def test_16_bit_grey_is_scaled(tmp_path):
    values = np.array([[0, 128, 129, 257, 32896, 65407, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert datasets.read_image(tmp_path / "deep.png")[0, 0].tolist() == [0, 0, 1, 1, 128, 255, 255]


def test_transparency_is_composited_over_white(tmp_path):
    Image.new("RGBA", (4, 4), (200, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (datasets.read_image(tmp_path / "clear.png") == 255).all()
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30] * 256)
    palette.save(tmp_path / "palette.png", transparency=0)
    assert (datasets.read_image(tmp_path / "palette.png") == 255).all()


def test_exif_orientation_is_applied(tmp_path):
    img = Image.new("RGB", (6, 4))
    img.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter to the right
    img.save(tmp_path / "turned.png", exif=exif)
    read = datasets.read_image(tmp_path / "turned.png")
    assert read.shape == (3, 6, 4) and read[0, 0, 3] == 255
    assert datasets.DIV2KDataset(tmp_path, crop_size=4, scale_factor=2).image(0).shape == (3, 6, 4)


def test_broken_files_are_named(tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    whole = save(tmp_path / "whole.png", random_image(64, 64)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("text.png", "cut.png", "empty.png"):
        with pytest.raises(ValueError, match=rf"{name} cannot be read as an image"):
            datasets.read_image(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"none.png"):
        datasets.read_image(tmp_path / "none.png")


def test_a_decompression_bomb_is_refused(tmp_path):
    save(tmp_path / "small.png", random_image(8, 8))
    data = bytearray((tmp_path / "small.png").read_bytes())
    data[16:24] = struct.pack(">II", 60_000, 60_000)  # the size in the header, with its checksum
    data[29:33] = struct.pack(">I", __import__("zlib").crc32(data[12:29]))
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(ValueError, match=r"bomb.png .*DecompressionBomb"):
        datasets.read_image(tmp_path / "bomb.png")


def test_list_images_sorts_and_passes_over_what_is_hidden(tmp_path):
    folder = tmp_path / "with spaces 和 汉字"
    for name in ("b.PNG", "a.png", "._a.png", ".hidden.png"):
        save(folder / name, random_image(8, 8))
    (folder / "notes.txt").write_text("x")
    (folder / "folder.png").mkdir()
    assert [f.name for f in datasets.list_images(folder)] == ["a.png", "b.PNG"]
    assert datasets.read_image(folder / "a.png").shape == (3, 8, 8)
    with pytest.raises(FileNotFoundError, match="no such folder; put image files"):
        datasets.list_images(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no image: put image files"):
        datasets.list_images(tmp_path / "empty")


# --- super-resolution sets ----------------------------------------------------------------------------------


def places_of(crop, whole):
    """Every (y, x) at which the crop stands in the whole image."""
    windows = whole.unfold(1, crop.shape[1], 1).unfold(2, crop.shape[2], 1)
    return [tuple(p) for p in (windows == crop[:, None, None]).all(-1).all(-1).all(0).nonzero().tolist()]


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_lr_crops_are_cut_from_the_whole_shrunken_image(scale):
    images = [random_image(53, 47, seed=1), random_image(24, 61, seed=2)]
    data = datasets.DIV2KDataset(None, 24, scale, augment=False, images=images)
    wholes = [img[:, : img.shape[1] // scale * scale, : img.shape[2] // scale * scale] for img in images]
    shrunken = [imresize(img, 1 / scale) if scale > 1 else img for img in wholes]
    lr_img, hr_img = data.batch(40, torch.Generator().manual_seed(0))
    assert lr_img.shape == (40, 3, 24 // scale, 24 // scale) and hr_img.shape == (40, 3, 24, 24)
    at_edge = 0
    for lr, hr in zip(lr_img, hr_img, strict=True):
        for whole, small in zip(wholes, shrunken, strict=True):
            for y, x in places_of(hr, whole):
                at_edge += y == 0 or x == 0 or y + 24 == whole.shape[1]
                cut = small[:, y // scale :, x // scale :][:, : 24 // scale, : 24 // scale]
                assert y % scale == x % scale == 0 and torch.equal(lr, cut)
                break
            else:
                continue
            break
        else:
            raise AssertionError("an HR crop that stands in no image")
    assert at_edge > 3


def test_augmented_pairs_are_all_eight_moves_of_the_same_place():
    img = random_image(16, 16)
    data = datasets.DIV2KDataset(None, 16, 2, images=[img])  # only one place fits: the moves alone differ
    lr_img, hr_img = data.batch(200, torch.Generator().manual_seed(1))
    moves = [m for r in range(4) for t in [torch.rot90(img, r, (1, 2))] for m in (t, t.flip(2))]
    found = {next(i for i, m in enumerate(moves) if torch.equal(m, hr)) for hr in hr_img}
    assert found == set(range(8))
    small = imresize(img, 0.5)
    small_moves = [m for r in range(4) for t in [torch.rot90(small, r, (1, 2))] for m in (t, t.flip(2))]
    for lr, hr in zip(lr_img, hr_img, strict=True):
        assert any(torch.equal(lr, s) and torch.equal(hr, m) for s, m in zip(small_moves, moves, strict=True))


def test_batches_repeat_with_the_generator_and_images_weigh_by_area():
    images = [torch.zeros(3, 16, 16, dtype=torch.uint8), torch.full((3, 48, 16), 255, dtype=torch.uint8)]
    data = datasets.DIV2KDataset(None, 8, 2, images=images, names=["dark", "light"])
    first, second = (data.batch(400, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert abs(first[1].float().mean().item() / 255 - 0.75) < 0.07
    torch.manual_seed(0)
    lr_img, hr_img = data[1]
    assert lr_img.shape == (3, 4, 4) and hr_img.dtype == torch.float32 and hr_img.max() == 1
    assert len(data) == 2 and data.names == ["dark", "light"] and data.to("cpu") is data
    with pytest.raises(IndexError):
        data[2]


def test_training_set_from_a_folder(tmp_path):
    images = [random_image(20 + 2 * i, 30 - i, seed=i) for i in range(3)]
    for i, img in enumerate(images):
        save(tmp_path / "CID22" / "train" / f"{i} 图.png", img)
    data = datasets.find_sr_train(tmp_path, crop_size=16)
    assert data.name == "CID22/train" and len(data) == 3
    assert all(torch.equal(data.image(i), img) for i, img in enumerate(images))
    same = datasets.DIV2KDataset(None, 16, images=images)
    assert re.fullmatch("[0-9a-f]{16}", data.fingerprint) and data.fingerprint == same.fingerprint
    assert data.fingerprint != datasets.DIV2KDataset(None, 16, images=images[::-1]).fingerprint


def test_training_set_refuses_what_does_not_fit(tmp_path):
    save(tmp_path / "a.png", random_image(64, 64))
    save(tmp_path / "tiny.png", random_image(20, 64))
    with pytest.raises(
        ValueError, match=r"image tiny is 20x64, smaller than a crop of 32.*smaller crop_size"
    ):
        datasets.DIV2KDataset(tmp_path, 32)
    with pytest.raises(ValueError, match="more than max_gigabytes"):
        datasets.DIV2KDataset(tmp_path, 16, max_gigabytes=1e-6)
    with pytest.raises(ValueError, match="no multiple of scale_factor"):
        datasets.DIV2KDataset(tmp_path, 15, 2)
    with pytest.raises(ValueError, match="either root"):
        datasets.DIV2KDataset()
    with pytest.raises(ValueError, match=r"float32 .*expected uint8"):
        datasets.DIV2KDataset(None, 16, images=[torch.rand(3, 32, 32)])
    with pytest.raises(ValueError, match="0 images"):
        datasets.SRTestSet(images=[])
    (tmp_path / "bad.png").write_text("no")
    with pytest.raises(ValueError, match=r"bad.png cannot be read"):
        datasets.DIV2KDataset(tmp_path, 16)


def test_test_set_of_plain_images_and_of_pairs(tmp_path):
    img = random_image(41, 30)
    save(tmp_path / "plain" / "cat.png", img)
    plain = datasets.SRTestSet(tmp_path / "plain", 4)
    lr_img, hr_img, name = plain[0]
    assert name == "cat" and plain.name == "plain" and len(plain) == 1
    assert torch.equal(hr_img, datasets.to_float(img[:, :40, :28]))
    assert torch.equal(lr_img, datasets.to_float(imresize(img[:, :40, :28], 0.25)))

    root = tmp_path / "Set5"
    save(root / "HR" / "img_001.png", img)
    lr = random_image(20, 15, seed=9)
    save(root / "LR_bicubic" / "X2" / "img_001x2.png", lr)
    pairs = datasets.SRTestSet(root, 2)
    assert torch.equal(pairs[0][0], datasets.to_float(lr)) and pairs[0][1].shape == (3, 40, 30)
    assert datasets.SRTestSet(root, 3)[0][0].shape == (3, 13, 10)  # no X3 files: made from HR
    assert pairs.fingerprint == datasets.SRTestSet(root, 2).fingerprint != plain.fingerprint
    memory = datasets.SRTestSet(None, 4, images=[img], names=["cat"], name="mine")
    assert memory.fingerprint == plain.fingerprint and memory.name == "mine"
    (tmp_path / "Set14").symlink_to(root)
    assert datasets.SRTestSet(tmp_path / "Set14", 2).name == "Set14"  # the name it has here, not where the link leads

    save(root / "LR_bicubic" / "X2" / "img_001x2.png", random_image(21, 15))
    with pytest.raises(ValueError, match=r"21x15.*makes 20x15"):
        pairs[0]
    save(root / "HR" / "img_002.png", img)
    with pytest.raises(FileNotFoundError, match="lacks img_002x2"):
        datasets.SRTestSet(root, 2)


# --- CIFAR-10 -----------------------------------------------------------------------------------------------


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Both layouts of a CIFAR-10 of 6 x 20 images; returns (root, images, labels) of the training part."""
    monkeypatch.setattr(datasets, "CIFAR10_BATCH", 20)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 20, 3072), dtype=np.uint8)
    labels = rng.integers(0, 10, (6, 20))
    folders = [tmp_path / kind / "CIFAR10" / f"cifar-10-batches-{kind}" for kind in ("bin", "py")]
    for folder in folders:
        folder.mkdir(parents=True)
    for i, name in enumerate([f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]):
        records = np.concatenate([labels[i][:, None].astype(np.uint8), images[i]], 1)
        (folders[0] / f"{name}.bin").write_bytes(records.tobytes())
        batch = {
            b"batch_label": b"x",
            b"labels": labels[i].tolist(),
            b"data": images[i],
            b"filenames": [b"a"],
        }
        (folders[1] / name).write_bytes(pickle.dumps(batch, protocol=2))
    return tmp_path, torch.from_numpy(images), torch.from_numpy(labels)


@pytest.mark.parametrize("kind", ["bin", "py"])
@pytest.mark.parametrize("level", ["", "CIFAR10", "CIFAR10/cifar-10-batches-{}"])
def test_cifar_reads_both_layouts_from_three_places(cifar, kind, level):
    root, images, labels = cifar
    root = root / kind / level.format(kind)
    train, test = datasets.CIFAR10Dataset(root), datasets.CIFAR10Dataset(root, train=False)
    assert torch.equal(train.images, images[:5].view(-1, 3, 32, 32)) and torch.equal(
        train.labels, labels[:5].view(-1)
    )
    assert torch.equal(test.images, images[5].view(-1, 3, 32, 32)) and len(test) == 20
    img, label = train[3]
    assert img.dtype == torch.float32 and img.max() <= 1 and label == labels[0, 3]
    assert train.classes[label] in datasets.CLASSES and train.is_cifar10 and train.name == "CIFAR-10"
    assert (
        datasets.find_classification(root, train=False).fingerprint == test.fingerprint != train.fingerprint
    )


def test_a_pickle_from_python_2_is_read(cifar):
    folder = cifar[0] / "py" / "CIFAR10" / "cifar-10-batches-py"
    # protocol 2 with numpy's old module name and text bytes through _codecs.encode, as old files have them
    text = (
        (folder / "test_batch")
        .read_bytes()
        .replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    )
    assert b"_codecs" in text and b"cnumpy.core.multiarray\n" in text
    (folder / "test_batch").write_bytes(text)
    assert len(datasets.CIFAR10Dataset(folder, train=False)) == 20


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_hostile_pickle_is_refused_and_not_run(cifar, tmp_path):
    folder = cifar[0] / "py" / "CIFAR10" / "cifar-10-batches-py"
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": Hostile(tmp_path / "ran"), b"labels": []}))
    with pytest.raises(ValueError, match=r"test_batch.*would run code"):
        datasets.CIFAR10Dataset(folder, train=False)
    assert not (tmp_path / "ran").exists()
    (folder / "test_batch").write_bytes(b"cbuiltins\neval\n(S'1+1'\ntR.")
    with pytest.raises(ValueError, match="would run code"):
        datasets.CIFAR10Dataset(folder, train=False)


def test_broken_cifar_says_what_to_do(cifar):
    root = cifar[0]
    binary, python = (root / k / "CIFAR10" / f"cifar-10-batches-{k}" for k in ("bin", "py"))
    good = (binary / "test_batch.bin").read_bytes()
    (binary / "test_batch.bin").write_bytes(good[:-1])
    with pytest.raises(ValueError, match=r"61,459 bytes instead of 61,460.*download cifar10"):
        datasets.CIFAR10Dataset(root / "bin", train=False)
    (binary / "test_batch.bin").write_bytes(bytes([10]) + good[1:])
    with pytest.raises(ValueError, match=r"labels outside 0\.\.9"):
        datasets.CIFAR10Dataset(root / "bin", train=False)
    (binary / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks data_batch_3.bin.*half-extracted.*download cifar10"):
        datasets.find_classification(root / "bin")  # broken, so no silent fallback

    whole = (python / "test_batch").read_bytes()
    (python / "test_batch").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="test_batch was not read"):
        datasets.CIFAR10Dataset(root / "py", train=False)
    (python / "test_batch").write_bytes(pickle.dumps({b"data": np.zeros((20, 3072), np.uint8)}, protocol=2))
    with pytest.raises(ValueError, match="no entry b'labels'"):
        datasets.CIFAR10Dataset(root / "py", train=False)
    (python / "test_batch").write_bytes(
        pickle.dumps({b"data": np.zeros((20, 3072)), b"labels": [0] * 20}, protocol=2)
    )
    with pytest.raises(ValueError, match="float64"):
        datasets.CIFAR10Dataset(root / "py", train=False)
    with pytest.raises(FileNotFoundError, match=r"python datasets\.py download cifar10"):
        datasets.CIFAR10Dataset(root / "nowhere")


def test_any_copy_of_a_known_set_comes_out_in_the_order_of_the_studies(tmp_path):
    rng = np.random.default_rng(3)
    images, labels = rng.integers(0, 256, (20, 3072), dtype=np.uint8), rng.integers(0, 10, 20)
    hashes = [hashlib.sha256(bytes([labels[i]]) + images[i].tobytes()).digest() for i in range(20)]
    digest = hashlib.sha256(b"".join(sorted(hashes))).digest()
    place = np.array([sorted(hashes).index(one) for one in hashes], np.uint16)
    known = tmp_path / "order.npz"
    np.savez(known, test=place, test_digest=np.frombuffer(digest, np.uint8))
    copy = rng.permutation(20)
    order = datasets.study_order(images[copy], labels[copy], "test", known)
    assert (images[copy][order] == images).all() and (labels[copy][order] == labels).all()
    images[7, 5] ^= 1
    assert datasets.study_order(images[copy], labels[copy], "test", known) is None
    assert datasets.study_order(images, labels, "test", tmp_path / "none.npz") is None


def test_a_shuffled_copy_of_cifar_is_the_same_data(real_data, tmp_path):
    test = datasets.CIFAR10Dataset(real_data("CIFAR10"), train=False)
    order = np.random.default_rng(4).permutation(len(test))
    records = np.concatenate([test.labels.numpy()[:, None], test.images.view(-1, 3072).numpy()], 1).astype(np.uint8)
    records[order].tofile(tmp_path / "test_batch.bin")
    assert datasets.CIFAR10Dataset(tmp_path, train=False).fingerprint == test.fingerprint


def test_an_archive_that_was_not_unpacked_is_no_silent_fallback(tmp_path):
    (tmp_path / "CIFAR10").mkdir()
    (tmp_path / "CIFAR10" / "cifar-10-binary.tar.gz").write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match=r"holds cifar-10-binary\.tar\.gz, but no CIFAR-10"):
        datasets.find_classification(tmp_path)


def test_without_cifar_the_drawn_set_stands_in(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "DrawnDataset", lambda train: ("drawn", train))
    (tmp_path / "CIFAR10").mkdir()
    (tmp_path / "CIFAR10" / ".DS_Store").touch()
    assert datasets.find_classification(tmp_path, train=False) == ("drawn", False)
    assert datasets.find_classification(tmp_path / "none") == ("drawn", True)


def test_the_real_cifar_has_the_published_statistics(real_data):
    data = datasets.CIFAR10Dataset(real_data("CIFAR10"))
    assert data.images.shape == (50_000, 3, 32, 32) and data.labels.bincount().tolist() == [5000] * 10
    mean = [data.images[:, c].double().mean().item() / 255 for c in range(3)]
    assert np.allclose(mean, (0.4914, 0.4822, 0.4465), atol=5e-5)


# --- batches ------------------------------------------------------------------------------------------------


def test_sample_takes_every_image_once_before_any_twice():
    steps = list(datasets.sample(23, 5, 12, torch.Generator().manual_seed(2)))
    assert [len(index) for index in steps] == [5] * 12
    whole = torch.cat(steps)
    assert torch.equal(whole[:23].sort().values, torch.arange(23))
    assert torch.equal(whole[23:46].sort().values, torch.arange(23)) and not torch.equal(whole[:23], whole[23:46])
    assert torch.equal(whole, torch.cat(list(datasets.sample(23, 5, 12, torch.Generator().manual_seed(2)))))
    with pytest.raises(ValueError, match="1 to 4 of the 4 images; found batch_size 5"):
        next(datasets.sample(4, 5, 1))


def test_centre_crops_are_the_middle_of_both_sizes():
    images = [random_image(40, 52), random_image(64, 36)]
    test_set = datasets.SRTestSet(None, 2, images=images, names=["a", "b"], name="two")
    lr_img, hr_img = datasets.centre_crops(test_set, 16)
    assert lr_img.shape == (2, 3, 8, 8) and hr_img.shape == (2, 3, 16, 16)
    assert torch.equal(datasets.to_uint8(hr_img[0]), images[0][:, 12:28, 18:34])
    assert torch.equal(lr_img[1], test_set[1][0][:, 12:20, 5:13])
    with pytest.raises(ValueError, match="a of two is smaller than 42 pixels"):
        datasets.centre_crops(test_set, 42)


def test_augment_shifts_with_reflection_and_flips():
    images = random_image(9, 11, batch=(300,))
    out = datasets.augment(images, shift=2, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(images.float(), (2, 2, 2, 2), mode="reflect").to(torch.uint8)
    seen = set()
    for i in range(300):
        candidates = {
            (dy, dx, flip): part.flip(-1) if flip else part
            for dy in range(5)
            for dx in range(5)
            for part in [padded[i, :, dy : dy + 9, dx : dx + 11]]
            for flip in (False, True)
        }
        seen.add(next(key for key, value in candidates.items() if torch.equal(value, out[i])))
    assert len(seen) > 45  # of 50, in 300 draws
    assert torch.equal(datasets.augment(images, flip=False, shift=0), images)
    again = datasets.augment(images, shift=2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(out, again)


def test_cutout_fills_a_square_with_the_mean_colour():
    images = random_image(16, 16, batch=(50,))
    out = datasets.augment(images, flip=False, shift=0, cutout=6, generator=torch.Generator().manual_seed(0))
    mean = (images.double().mean((2, 3)) + 0.5).floor()
    assert (out != images).any(1).sum((1, 2)).max() <= 36
    for i in range(50):
        changed = (out[i] != images[i]).any(0)
        assert (out[i][:, changed] == mean[i][:, None]).all() and changed.sum() > 30
    with pytest.raises(ValueError, match="does not fit"):
        datasets.augment(images, shift=16)


def test_split_is_fixed_and_disjoint():
    train_idx, val_idx = datasets.split_indices(100, 10)
    assert len(train_idx) == 90 and len(val_idx) == 10
    assert sorted([*train_idx.tolist(), *val_idx.tolist()]) == list(range(100))
    assert torch.equal(val_idx, datasets.split_indices(100, 10)[1])
    assert not torch.equal(val_idx, datasets.split_indices(100, 10, seed=1)[1])
    with pytest.raises(ValueError, match=r"0\.\.5"):
        datasets.split_indices(5, 6)


# --- what is found ------------------------------------------------------------------------------------------


def test_embedded_photographs_need_no_network(monkeypatch, tmp_path):
    monkeypatch.setattr("socket.socket.connect", lambda *a: (_ for _ in ()).throw(AssertionError("network")))
    names = {part: datasets.embedded_photographs(part)[1] for part in ("train", "valid", "test")}
    assert len(set().union(*names.values())) == sum(len(n) for n in names.values()) == 12  # split by image
    assert names["test"] == ["chelsea", "coffee"]
    train, valid = datasets.find_sr_train(tmp_path, 64), datasets.find_sr_valid(tmp_path)
    (test,) = datasets.find_sr_test(tmp_path, 4)
    assert {d.name for d in (train, valid, test)} == {"photographs inside scikit-image"}
    assert len(train) == 8 and train.batch(2)[1].shape == (2, 3, 64, 64)
    assert test[0][1].shape == (3, 300, 448) and test[0][2] == "chelsea"
    with pytest.raises(ValueError, match="train, valid, test"):
        datasets.embedded_photographs("all")


def test_present_folders_come_first_and_broken_ones_raise(tmp_path):
    for name in ("DIV2K/train", "DIV2K/valid", "CID22/train", "CID22/valid", "Set14/HR", "B100"):
        save(tmp_path / name / "x.png", random_image(64, 64))
    assert datasets.find_sr_train(tmp_path, 32).name == "DIV2K/train"
    assert datasets.find_sr_valid(tmp_path).name == "DIV2K/valid"
    assert [s.name for s in datasets.find_sr_test(tmp_path)] == ["Set14", "B100"]
    (tmp_path / "DIV2K" / "train" / "x.png").unlink()
    with pytest.raises(FileNotFoundError, match="holds no image"):
        datasets.find_sr_train(tmp_path, 32)


# --- download -----------------------------------------------------------------------------------------------


def tar_of(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                file.addfile(info)
    return buffer.getvalue()


def zip_of(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def server(monkeypatch):
    """A web server on this machine; `serve(content, ...)` points the set "set5" at it and returns its log."""
    state = {"content": b"", "cut": None, "ranges": True, "log": []}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content, asked = state["content"], self.headers.get("Range")
            state["log"].append(asked)
            start = int(asked[6:-1]) if asked and state["ranges"] else 0
            if start and start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end, state["cut"] = state["cut"], None
            self.wfile.write(content[start:end])

        def log_message(self, *args):
            pass

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)

    def serve(content, checksum="", inner="Set5_HR", target="Set5/HR", **more):
        state.update(content=content, **more)
        url = f"http://127.0.0.1:{web.server_port}/Set5_HR.tar.gz"
        archive = datasets.Archive("1 kB", url, inner, target, checksum)
        monkeypatch.setitem(datasets.ARCHIVES, "set5", [archive])
        return state["log"]

    yield serve
    web.shutdown()
    web.server_close()


def picture():
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


def leftovers(root):
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_download_unpacks_and_shows_progress(server, tmp_path, capsys, pack):
    content = pack({"Set5_HR/baby.png": picture(), "Set5_HR/._baby.png": b"mac"})
    server(content, "sha256:" + hashlib.sha256(content).hexdigest())
    assert datasets.main(["download", "set5", "--root", str(tmp_path / "数据 set")]) == 0
    assert leftovers(tmp_path) == ["数据 set/Set5/HR/._baby.png", "数据 set/Set5/HR/baby.png"]
    out = capsys.readouterr().out
    assert "100%" in out and "is ready" in out
    assert datasets.find_sr_test(tmp_path / "数据 set")[0].names == ["baby"]
    assert datasets.main(["download", "set5", "--root", str(tmp_path / "数据 set")]) == 0
    assert "already there" in capsys.readouterr().out


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_download_goes_on(server, tmp_path, capsys, ranges):
    content = tar_of({"Set5_HR/baby.png": picture()})
    log = server(content, "md5:" + hashlib.md5(content).hexdigest(), cut=5000, ranges=ranges)
    assert datasets.main(["download", "set5", "--root", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "broke off at 5,000 of" in error and "run the command again" in error
    assert leftovers(tmp_path) == ["Set5_HR.tar.gz.part"]
    assert datasets.main(["download", "set5", "--root", str(tmp_path)]) == 0
    assert log == [None, "bytes=5000-"] and leftovers(tmp_path) == ["Set5/HR/baby.png"]


def test_a_part_that_is_already_whole_is_unpacked(server, tmp_path, capsys):
    content = tar_of({"Set5_HR/baby.png": picture()})
    server(content)
    (tmp_path / "Set5_HR.tar.gz.part").write_bytes(content)
    assert datasets.main(["download", "set5", "--root", str(tmp_path)]) == 0
    assert leftovers(tmp_path) == ["Set5/HR/baby.png"]
    out = capsys.readouterr().out
    assert "no checksum is published" in out and hashlib.sha256(content).hexdigest() in out


def test_a_single_file_is_put_in_its_place_and_checked_by_how_its_checksum_begins(server, tmp_path, capsys):
    begins = hashlib.sha256(b"weights").hexdigest()[:8]
    server(b"weights", f"sha256:{begins}", inner="", target="weights.pth")
    assert datasets.main(["download", "set5", "--root", str(tmp_path)]) == 0
    assert leftovers(tmp_path) == ["weights.pth"] and (tmp_path / "weights.pth").read_bytes() == b"weights"
    server(b"other weights", f"sha256:{begins}", inner="", target="others.pth")
    assert datasets.main(["download", "set5", "--root", str(tmp_path)]) == 1
    assert leftovers(tmp_path) == ["weights.pth"] and f"instead of {begins}" in capsys.readouterr().err


def test_vgg_is_found_beside_the_data_or_where_torchvision_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    assert datasets.find_vgg("vgg19", tmp_path / "DS") is None
    for folder in (tmp_path / "hub" / "checkpoints", tmp_path / "DS"):
        folder.mkdir(parents=True)
        (folder / "vgg19-dcbb9e9d.pth").touch()
        assert datasets.find_vgg("vgg19", tmp_path / "DS") == folder / "vgg19-dcbb9e9d.pth"
        assert datasets.find_vgg("vgg16", tmp_path / "DS") is None


def test_absent_test_sets_are_named_with_the_command_that_brings_them(tmp_path):
    assert list(datasets.absent_sr_test(tmp_path)) == ["Set5", "Set14", "B100", "Urban100", "DIV2K/valid"]
    save(tmp_path / "Set14" / "a.png", random_image(8, 8))
    save(tmp_path / "DIV2K" / "valid" / "b.png", random_image(8, 8))
    absent = datasets.absent_sr_test(tmp_path)
    assert list(absent) == ["Set5", "B100", "Urban100"]
    assert all(how.split()[-1] in datasets.ARCHIVES for how in absent.values())
    assert [test_set.name for test_set in datasets.find_sr_test(tmp_path, 4, div2k=True)] == ["Set14", "DIV2K/valid"]


def test_a_wrong_checksum_deletes_the_download(server, tmp_path, capsys):
    server(tar_of({"Set5_HR/baby.png": picture()}), "md5:" + "0" * 32)
    assert datasets.main(["download", "set5", "--root", str(tmp_path)]) == 1
    assert "instead of 000" in capsys.readouterr().err and leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tar_of({"Set5_HR/a.png": b"x", "../evil": b"x"}), "evil leads outside"),
        (tar_of({"/tmp/evil-absolute": b"x"}), "leads outside"),
        (tar_of({"Set5_HR/link": (tarfile.SYMTYPE, "/etc")}), "link or a device"),
        (tar_of({"Set5_HR/hard": (tarfile.LNKTYPE, "/etc/passwd")}), "link or a device"),
        (tar_of({"Set5_HR/pipe": (tarfile.FIFOTYPE, "")}), "link or a device"),
        (zip_of({"Set5_HR/a.png": b"x", "../evil": b"x"}), "evil leads outside"),
        (zip_of({"Set5_HR\\..\\..\\evil": b"x"}), "leads outside"),
        (tar_of({"other/a.png": b"x"}), "no folder Set5_HR"),
        (tar_of({"Set5_HR/a.png": picture()})[:3000], "was not unpacked"),
        (b"<html>not found</html>", "was not unpacked"),
    ],
    ids=["up", "absolute", "symlink", "hard link", "pipe", "zip up", "backslash", "other", "cut", "html"],
)
def test_unsafe_and_broken_archives_leave_nothing(server, tmp_path, capsys, content, message):
    server(content)
    root = tmp_path / "deep" / "DS"
    assert datasets.main(["download", "set5", "--root", str(root)]) == 1
    assert message in capsys.readouterr().err
    assert leftovers(tmp_path) == [] and not (root / "Set5").exists() and not list(root.iterdir())


def test_an_archive_too_large_is_refused(tmp_path):
    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_of({"x/a": bytes(2000)}))
    with pytest.raises(ValueError, match="unpacks to"):
        datasets.extract(archive, "x", tmp_path / "x", max_bytes=1000)
    assert leftovers(tmp_path) == ["a.zip"]


def test_no_server_and_no_right_to_write_are_one_sentence(server, tmp_path, capsys, monkeypatch):
    server(b"")
    refused = datasets.Archive("1 kB", "http://127.0.0.1:9/Set5_HR.tar.gz", "Set5_HR", "Set5/HR")
    monkeypatch.setitem(datasets.ARCHIVES, "set5", [refused])
    assert datasets.main(["download", "set5", "--root", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "127.0.0.1:9" in error and "unpack its folder Set5_HR as" in error and len(error.splitlines()) == 1

    def forbidden(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(tmp_path / "DS"))

    monkeypatch.setattr(Path, "mkdir", forbidden)
    assert datasets.main(["download", "set5", "--root", str(tmp_path / "DS")]) == 1
    error = capsys.readouterr().err
    assert "Permission denied" in error and "DS" in error and len(error.splitlines()) == 1


def test_reading_needs_no_right_to_write(tmp_path):
    save(tmp_path / "DS" / "Set5" / "HR" / "a.png", random_image(32, 32))
    for folder in (tmp_path / "DS" / "Set5" / "HR", tmp_path / "DS" / "Set5", tmp_path / "DS"):
        folder.chmod(0o555)
    try:
        before = leftovers(tmp_path)
        assert datasets.find_sr_test(tmp_path / "DS")[0][0][1].shape == (3, 32, 32)
        datasets.show(tmp_path / "DS")
        assert leftovers(tmp_path) == before
    finally:
        for folder in (tmp_path / "DS", tmp_path / "DS" / "Set5", tmp_path / "DS" / "Set5" / "HR"):
            folder.chmod(0o755)


def test_the_command_line(tmp_path):
    save(tmp_path / "Set14" / "HR" / "a.png", random_image(32, 32))
    (tmp_path / "B100").mkdir()
    command = [sys.executable, str(PROJECT / "datasets.py")]
    listing = subprocess.run(
        [*command, "--root", str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout
    assert re.search(r"Set14 +\S*Set14, 1 images", listing) and re.search(
        "B100 +BROKEN.*holds no image", listing
    )
    assert re.search(r"CIFAR10 +missing: 162 MB, python datasets.py download cifar10", listing)
    assert "chelsea, coffee" in listing


def test_command_line_help_and_errors(capsys):
    with pytest.raises(SystemExit, match="0"):
        datasets.main(["--help"])
    assert "download" in capsys.readouterr().out
    for wrong in (["download"], ["download", "imagenet"], ["upload"]):
        with pytest.raises(SystemExit, match="2"):
            datasets.main(wrong)
        assert "set14" in capsys.readouterr().err or wrong == ["upload"]


def test_max_images_takes_the_first_by_name_and_says_so():
    images = [random_image(32, 32) for _ in range(4)]
    some = datasets.DIV2KDataset(None, 8, 2, images=images, names=list("abcd"), name="four", max_images=3)
    assert len(some) == 3 and some.names == ["a", "b", "c"] and some.name == "four, first 3 images"
    alike = datasets.DIV2KDataset(None, 8, 2, images=images, names=list("abcd"), name="four", max_images=9)
    assert len(alike) == 4 and alike.name == "four"
