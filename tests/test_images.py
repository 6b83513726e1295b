"""images.py: the resize against MATLAB's files, pixels, any image file or a clear error."""
from pathlib import Path

import numpy as np
import png
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

import datasets
from datasets import imresize
from tools import images

from .conftest import random_image, refuses, save
from .matlab import plain_imresize


@pytest.mark.parametrize("name, num_images", [("golden", 1), ("Set5", 5), ("Set14", 14)])
@pytest.mark.parametrize("scale", [2, 4])
def test_imresize_gives_the_bytes_of_matlab(real_data, name, num_images, scale):
    """golden: 64x64 pixels of NASA's photograph of Eileen Collins (public domain), by the rule that makes the bytes of
    MATLAB's files of Set5 and Set14.
    """
    folder = Path(__file__).parent / name if name == "golden" else real_data(name)
    files, lr_folder = sorted((folder / "HR").glob("*.png")), folder / "LR_bicubic" / f"X{scale}"
    if not lr_folder.is_dir():
        pytest.skip(f"{name} came without MATLAB's LR files; DS/README.md says where they are")
    assert len(files) == num_images
    for file in files:
        hr_img, lr_img = (np.atleast_3d(Image.open(f)) for f in (file, lr_folder / f"{file.stem}x{scale}.png"))
        hr_img = torch.tensor(hr_img[: len(lr_img) * scale, : lr_img.shape[1] * scale]).permute(2, 0, 1)
        made = imresize(hr_img, 1 / scale, border="replicate")
        assert np.array_equal(made.permute(1, 2, 0), lr_img), file.name


@settings(max_examples=40)
@given(
    sides=st.tuples(st.integers(1, 23), st.integers(1, 23) | st.just(90)),  # sides above 64 are resized in blocks
    scale=st.sampled_from([0.5, 0.25, 1 / 3, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0]),
    border=st.sampled_from(["symmetric", "replicate"]), seed=st.integers(0, 99),
)  # fmt: skip
def test_imresize_equals_a_plain_port(sides, scale, border, seed):
    img = np.random.default_rng(seed).integers(0, 256, sides, dtype=np.uint8)
    made, expected = imresize(torch.from_numpy(img), scale, border).int().numpy(), plain_imresize(img, scale, border)
    # Where an exact sum lies on a half, rounding errors decide, in the first direction and then, sharpened, in the
    # second; at these five scales no sum has any.
    assert np.abs(made - expected).max() <= (0 if scale in (0.25, 0.5, 1, 2, 4) else 2)
    assert (made != expected).mean() < 0.02 or made.size < 400  # in a small image one such sum is a large share
    values = imresize(torch.from_numpy(img / 255), scale, border).numpy()
    assert np.allclose(values, plain_imresize(img / 255, scale, border), atol=1e-12)


def test_imresize_passes_gradients_and_minds_neither_inference_mode_nor_autocast():
    img = random_image(37, 41, batch=(2, 1))
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        halved = imresize(img, 0.5)
    assert halved.shape == (2, 1, 3, 19, 21) and torch.equal(halved, imresize(img, 0.5))
    img = torch.rand(1, 2, 37, 9, dtype=torch.float64, requires_grad=True)  # the weights were cached in inference mode
    imresize(img.float(), 0.5).sum().backward()
    for scale in (0.5, 2, 1 / 3):
        assert torch.autograd.gradcheck(lambda x, s=scale: imresize(x, s), img[..., :6, :])


def test_wrong_input_is_refused():
    img = torch.rand(3, 8, 8)
    for wrong in ((img, 0), (img, float("nan")), (img, 2, "zeros"), (img.int(), 2), (img[:, :0], 2)):
        refuses(ValueError, "expected|takes uint8 or floats", imresize, *wrong)


def test_float_uint8_and_gray():
    colors = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]], dtype=torch.uint8).T[:, None]
    assert datasets.gray(colors)[:, 0].tolist() == [[76, 150, 29, 18]] * 3  # 0.299, 0.587, 0.114 of 255; 18.15
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(datasets.to_uint8(datasets.to_float(values)), values)
    assert datasets.to_uint8(torch.tensor([-1.0, 0.5 / 255, 0.49 / 255, 2.0])).tolist() == [0, 1, 0, 255]


@pytest.mark.parametrize("depth, pixels, key, expected", [  # the first pixel is transparent, the second is not
    (1, [1, 0], 1, [[255] * 3, [0] * 3]), (2, [2, 1], 2, [[170] * 3, [85] * 3]), (4, [5, 10], 5, [[85] * 3, [170] * 3]),
    (8, [7, 8], 7, [[7] * 3, [8] * 3]), (16, [65407, 129], 65407, [[255] * 3, [1] * 3]),
    (8, [1, 2, 3, 1, 2, 4], (1, 2, 3), [[1, 2, 3], [1, 2, 4]]),
    (16, [256, 512, 1025, 256, 512, 65535], (256, 512, 1025), [[1, 2, 4], [1, 2, 255]]),
])  # fmt: skip
def test_a_transparent_key_counts_at_every_depth_and_is_white_for_training(tmp_path, depth, pixels, key, expected):
    writer = png.Writer(2, 1, greyscale=isinstance(key, int), bitdepth=depth, transparent=key)
    with open(tmp_path / "key.png", "wb") as file:
        writer.write(file, [pixels])
    read = images.read_file(tmp_path / "key.png")
    assert read.pixels[:, 0].T.tolist() == [[*expected[0], 0], [*expected[1], 255]]
    assert read.left_out == (["8 of 16 bits a channel"] if depth == 16 else [])
    assert datasets.read_image(tmp_path / "key.png")[:, 0].T.tolist() == [[255] * 3, expected[1]]


def test_transparency_is_composited_over_white_as_by_pillow(tmp_path):
    color, opacity = np.mgrid[:256, :256].astype(np.uint8)
    img = Image.fromarray(np.dstack([color, color[::-1], opacity, opacity]))
    white = Image.alpha_composite(Image.new("RGBA", img.size, "white"), img).convert("RGB")
    img.save(tmp_path / "every.png")
    assert np.array_equal(datasets.read_image(tmp_path / "every.png").permute(1, 2, 0), white)
    Image.new("P", (4, 4), 0).save(tmp_path / "palette.png", transparency=0)
    assert (datasets.read_image(tmp_path / "palette.png") == 255).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_orientation_is_applied_once(tmp_path, suffix):
    stored, exif = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3), Image.Exif()
    turned = stored.transpose(1, 0, 2)
    # where the stored first row and column belong, by hand
    by_hand = (stored, stored[:, ::-1], stored[::-1, ::-1], stored[::-1],
               turned, turned[:, ::-1], turned[::-1, ::-1], turned[::-1])  # fmt: skip
    for exif[0x0112], upright in enumerate(by_hand, 1):
        Image.fromarray(stored).save(tmp_path / f"turned.{suffix}", exif=exif)
        assert np.array_equal(datasets.read_image(tmp_path / f"turned.{suffix}").permute(1, 2, 0), upright)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("metadata", [b"garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", repr(b"Exif\0\0II*\0").encode()])
def test_unreadable_metadata_is_no_unreadable_image(tmp_path, metadata):
    path = save(tmp_path / "x.png", random_image(6, 4), exif=metadata, icc_profile=metadata)
    assert torch.equal(datasets.read_image(path), random_image(6, 4))


@pytest.mark.parametrize("megabytes", [2, 80])  # more than Pillow reads, and more than the project lets it read
def test_large_and_damaged_metadata_do_not_stop_pixels(tmp_path, megabytes):
    img, text, exif = random_image(6, 4), PngImagePlugin.PngInfo(), Image.Exif()
    exif[0x0112] = 3
    text.add_text("much", "x" * (megabytes << 20), zip=True)
    path = save(tmp_path / "x.png", img.flip(1, 2), pnginfo=text, exif=exif, icc_profile=bytes(megabytes << 20))
    assert torch.equal(datasets.read_image(path), img)
    path.write_bytes(path.read_bytes().replace(b"zTXtmuch", b"zTXtMUCH"))  # its checksum no longer fits
    assert torch.equal(datasets.read_image(path), img)


SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# A space whose red and green have changed places: the two tags' names, and the name that readers know sRGB by.
SWAPPED_PROFILE = SRGB_PROFILE.replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ").replace(b"?XYZ", b"gXYZ")
SWAPPED_PROFILE = SWAPPED_PROFILE.replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be"))


@pytest.mark.parametrize("mode, profile, expected", [
    ("RGB", SRGB_PROFILE, (255, 40, 10)), ("RGB", SWAPPED_PROFILE, (40, 255, 10)),
    ("RGBA", SWAPPED_PROFILE, (40, 255, 10)), ("L", SWAPPED_PROFILE, (101, 101, 101)),  # gray stays gray
    ("CMYK", SWAPPED_PROFILE, (255, 40, 10)),  # a profile for other channels is no use
    ("1", None, (0, 0, 0)), ("LA", None, (101, 101, 101)), ("P", None, (255, 51, 0)),  # of a web palette
])  # fmt: skip
def test_every_mode_becomes_bytes_of_srgb(tmp_path, mode, profile, expected):
    Image.new("RGB", (2, 2), (255, 40, 10)).convert(mode).save(tmp_path / "x.tif", icc_profile=profile)
    pixel = datasets.read_image(tmp_path / "x.tif")[:, 0, 0].tolist()
    assert np.abs(np.subtract(pixel, expected)).max() <= 1


def test_broken_files_and_decompression_bombs_are_named(tmp_path, monkeypatch):
    whole = save(tmp_path / "cut.png", random_image(64, 64)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("not an image")
    save(tmp_path / "bomb.png", random_image(96, 96))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64)
    for name, reason in (("cut", "truncated"), ("text", "cannot identify"), ("bomb", "DecompressionBomb")):
        message = rf"{name}.png cannot be read as an image .*{reason}"
        refuses(ValueError, message, datasets.read_image, tmp_path / f"{name}.png")
    refuses(FileNotFoundError, r"none.png", datasets.read_image, tmp_path / "none.png")


def test_list_images_sorts_and_passes_over_what_is_hidden(tmp_path):
    folder = tmp_path / "with spaces 和 汉字"
    for name in ("b.PNG", "a.png", "._a.png"):
        save(folder / name, random_image(8, 8))
    (folder / "notes.txt").write_text("x")
    (folder / "folder.png").mkdir()
    assert [f.name for f in datasets.list_images(folder)] == ["a.png", "b.PNG"]
    for empty, message in ((tmp_path / "none", "is no folder"), (folder / "folder.png", "holds no image")):
        refuses(FileNotFoundError, f"{message}: put image files there", datasets.list_images, empty)
