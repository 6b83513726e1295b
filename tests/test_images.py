"""images.py: the resize against MATLAB's files, degradations, random changes, any image file or a clear error."""

import hashlib
import itertools
import math
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

import datasets
from datasets import imresize


def random_image(height=40, width=56, seed=0, batch=()):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*batch, 3, height, width), dtype=torch.uint8, generator=generator)


def save(path, img):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(img.permute(1, 2, 0).numpy()).save(path)
    return path


# --- imresize --------------------------------------------------------------------------------------------------------


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
            where = [mirror[(k - 1) % (2 * side)] if border == "symmetric" else min(max(k, 1), side) - 1 for k in taps]
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


# --- degradations ----------------------------------------------------------------------------------------------------


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


def test_occlusion_masks_one_square_of_the_stated_size_anywhere():
    img = torch.full((500, 3, 12, 12), 200, dtype=torch.uint8)
    out = datasets.Occlusion(5)(img, torch.Generator().manual_seed(0))
    mask = (out == 0).all(1)
    assert (mask.sum((1, 2)) == 25).all() and (mask.any(2).sum(1) == 5).all()
    assert mask.any(0).all()  # every pixel, corners too, is hit in some image
    assert (out[:, :, :, :][~mask[:, None].expand_as(out)] == 200).all()
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


def test_grey_is_luma_in_three_channels():
    img = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]], dtype=torch.uint8)
    out = datasets.grey(img.T[:, None, :].contiguous())
    assert out[:, 0].tolist() == [[76, 150, 29, 18]] * 3  # 0.299, 0.587, 0.114 of 255; 18.15


# --- random changes --------------------------------------------------------------------------------------------------


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


def test_a_random_batch_keeps_its_bits():
    """The draws and their order are those that trained the networks in results/."""
    images, generator = random_image(32, 32, batch=(16,)), torch.Generator().manual_seed(7)
    out = datasets.augment(images, flip=True, shift=4, cutout=8, generator=generator)
    assert hashlib.sha256(out.numpy()).hexdigest()[:16] == "3b97d481d53fd625"
    masked = datasets.Occlusion(8)(images, generator)
    assert hashlib.sha256(masked.numpy()).hexdigest()[:16] == "6284c3a9261974a2"


def test_random_changes_mix_no_devices():
    images = torch.empty(4, 3, 8, 8, dtype=torch.uint8, device="meta")  # refuses to meet a tensor of the CPU
    assert datasets.augment(images, cutout=2).device.type == "meta"
    assert datasets.Occlusion(2)(images).shape == images.shape


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


# --- image files -----------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_orientation_is_applied_once(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    # what each orientation says of where the stored first row and column belong, by hand
    stored = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    turned = stored.transpose(1, 0, 2)
    upright = [stored, stored[:, ::-1], stored[::-1, ::-1], stored[::-1],
               turned, turned[:, ::-1], turned[::-1, ::-1], turned[::-1]][orientation - 1]  # fmt: skip
    Image.fromarray(stored).save(tmp_path / f"turned.{suffix}", exif=exif)
    expected = torch.from_numpy(upright.copy()).permute(2, 0, 1)
    assert torch.equal(datasets.read_image(tmp_path / f"turned.{suffix}"), expected)
    assert torch.equal(datasets.DIV2KDataset(tmp_path, crop_size=4, scale_factor=2).image(0), expected)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("metadata", [b"garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", repr(b"Exif\0\0II*\0").encode()])
def test_unreadable_metadata_is_no_unreadable_image(tmp_path, metadata):
    img = random_image(6, 4)
    Image.fromarray(img.permute(1, 2, 0).numpy()).save(tmp_path / "x.png", exif=metadata, icc_profile=metadata)
    assert torch.equal(datasets.read_image(tmp_path / "x.png"), img)


def test_colours_are_converted_to_srgb(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # A space whose red and green have changed places: the two tags' names, and the name that readers know sRGB by.
    swapped = srgb.replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ").replace(b"?XYZ", b"gXYZ")
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be"))
    for mode, profile, expected in (
        *(("RGB", srgb, (255, 40, 10)), ("RGB", swapped, (40, 255, 10)), ("RGBA", swapped, (40, 255, 10))),
        *(("L", swapped, None), ("CMYK", swapped, None)),  # grey stays grey; a profile for other channels is no use
    ):
        img = Image.new("RGB", (2, 2), (255, 40, 10)).convert(mode)
        expected = expected or img.convert("RGB").getpixel((0, 0))
        img.save(tmp_path / f"{mode}.tif", icc_profile=profile)
        pixel = datasets.read_image(tmp_path / f"{mode}.tif")[:, 0, 0].tolist()
        assert np.abs(np.subtract(pixel, expected)).max() <= 1, mode


def test_broken_files_are_named(tmp_path):
    (tmp_path / "text.png").write_text("not an image")
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
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
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
