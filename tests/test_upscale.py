"""upscale.py: tiles without seams, files that come out whole and are never written over, scores of test sets."""
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import datasets
import NetSet
import training
from tools import upscale

from .conftest import ROOT, random_image, refuses, save
from .test_images import SWAPPED_PROFILE


def trained_like(model, std=1e-3, bias=0.5):
    """The network with a last layer that does something, as after training."""
    layer = model.unet.last if isinstance(model, NetSet.Colorizer) else model.to_rgb
    torch.nn.init.normal_(layer.weight, std=std)
    torch.nn.init.constant_(layer.bias, bias)
    return model.eval()


class Pooling(torch.nn.Module):
    """A dilated convolution, PixelShuffle, and a share of the mean over the whole image."""

    scale_factor = 2

    def __init__(self, share):
        super().__init__()
        self.conv, self.share = torch.nn.Conv2d(3, 12, (1, 3), padding="same", dilation=8), share

    def forward(self, img):
        return torch.nn.functional.pixel_shuffle(self.conv(img), 2) + self.share * img.mean((2, 3), keepdim=True) + 0.5


torch.manual_seed(0)
SRNET = NetSet.SRNet(2, 64, 1, init="kaiming").eval()
SRRESNET = trained_like(NetSet.SRResNet(4, 8, 2, init="kaiming"))
RESSHUFFLE = trained_like(NetSet.ResShuffle(3, 8, 1, init="kaiming"))
RESTORER = trained_like(NetSet.JointNet(num_channels=4), std=0.1, bias=0)
DILATED = Pooling(0).eval()
COLORIZER = trained_like(NetSet.Colorizer(8, keep_luma=True), std=0.1, bias=0)


def difference(a, b):
    assert a.shape == b.shape
    return (a.int() - b.int()).abs()


@pytest.mark.parametrize("model", [SRNET, SRRESNET, RESSHUFFLE, RESTORER])
def test_no_pixel_depends_on_what_lies_beyond_the_radius(model):
    radius, scale = upscale.receptive_radius(model), model.scale_factor
    img = torch.rand(1, 3, 2 * radius + 16, 2 * radius + 16, requires_grad=True)
    first, last, output = radius + 4, radius + 11, model(img)
    pixels = slice(first * scale, (last + 1) * scale)
    (output[0] if isinstance(output, tuple) else output)[..., pixels, pixels].sum().backward()
    reached = img.grad.abs().sum((0, 1)).nonzero()
    assert first - radius <= reached.min() < first and last < reached.max() <= last + radius


def test_radius_and_cuts_by_hand():
    assert upscale.receptive_radius(NetSet.SRNet(2, 64, 3)) == math.ceil(1 + 1 + 3 * 2 + 1 + 1 + 0.5)
    assert upscale.receptive_radius(DILATED) == 8
    assert upscale._cuts(1000, 640) == [(0, 504), (504, 1000)] and upscale._cuts(5, 640) == [(0, 5)]


def test_a_network_that_sees_the_whole_image_is_not_cut():
    img, pooling = random_image(60, 44), Pooling(1).eval()
    refuses(ValueError, "Pooling cannot be cut into tiles: .* more than the 8", upscale.upscale, pooling, img, 16)
    assert upscale.upscale(pooling, img).shape == (3, 120, 88)  # which need not be cut


@settings(max_examples=10)
@given(st.sampled_from([SRNET, SRRESNET, RESSHUFFLE, DILATED]), *[st.integers(1, 40)] * 2, st.sampled_from([8, 16, 24]))
def test_tiles_have_no_seams(model, height, width, tile):
    img = random_image(height, width)
    off = difference(upscale.upscale(model, img, tile), datasets.to_uint8(training.predict(model, img[None])[0]))
    assert off.max() <= 1 and (off > 0).float().mean() < 0.01  # where a rounding falls the other way


def test_a_network_that_downsamples_inside_is_cut_without_seams():
    img = random_image(250, 213)
    whole = upscale.upscale(RESTORER, img, 256)
    assert difference(whole, img).max() > 3 and difference(upscale.upscale(RESTORER, img, 64), whole).max() <= 1


def test_a_colorized_photograph_keeps_its_luma(monkeypatch):
    for sides in ((90, 61), (33, 200), (5, 9)):
        gray = datasets.gray(64 + random_image(*sides) // 2)
        colorized = upscale.upscale(COLORIZER, gray)
        assert difference(colorized, gray).max() > 2 and difference(datasets.gray(colorized), gray).max() <= 1
        assert difference(upscale.upscale(COLORIZER, colorized), colorized).max() <= 3  # the luma alone is read
    seen = []
    monkeypatch.setattr(training, "predict", lambda model, img: seen.append(tuple(img.shape[2:])) or img)
    for sides in ((2, 12000), (90, 120), (1, 50), (1, 10**6)):  # long and thin: at a bounded size
        gray = datasets.gray(random_image(*sides))
        assert torch.equal(upscale.upscale(COLORIZER, gray), gray)
    assert seen[1] == (32, 40) and all(rows * columns <= 2 * upscale.COLORIZED_AREA for rows, columns in seen)


@pytest.mark.parametrize("model", [SRNET, RESTORER, COLORIZER])
@pytest.mark.parametrize("sides, mode", [((9, 12), "RGB"), ((9, 12), "P"), ((50, 1), "L"), ((1, 2), "RGB")])
def test_files_of_any_mode_and_size_gray_ones_stay_gray(tmp_path, model, sides, mode):
    gray = datasets.gray(random_image(*sides))  # as a file of three channels too
    for img in (random_image(*sides), gray) if mode == "RGB" else (random_image(*sides),):
        path = save(tmp_path / "photo.png", img, mode)
        out = upscale.upscale_file(path, "name", model=model, again=True)
        assert out == tmp_path / "photo_name.png" and len(list(tmp_path.iterdir())) == 2
        stays = model is not COLORIZER and (mode == "L" or img is gray)
        with Image.open(out) as file:
            assert file.mode == ("L" if stays else "RGB")
        expected = upscale.upscale(model, datasets.read_image(path))
        assert torch.equal(datasets.read_image(out), datasets.gray(expected) if stays else expected)


@pytest.mark.parametrize("model", [SRNET, SRRESNET, RESTORER, COLORIZER])
def test_transparency_is_kept_and_colors_do_not_mix_with_what_it_hides(tmp_path, model):
    pixels = torch.cat([random_image(32, 27), (random_image(32, 27, seed=1)[:1] // 2 + 1)])
    pixels[3, 8:24] = 0  # no further from what is visible than colors are spread

    def found(name):
        path = save(tmp_path / f"{name}.png", pixels)
        with Image.open(upscale.upscale_file(path, "x", tmp_path / "new" / f"{name}.png", model)) as file:
            assert file.mode == "RGBA"
            return torch.from_numpy(np.array(file)).permute(2, 0, 1)

    first = found("first")
    assert torch.equal(first[3:], datasets.imresize(pixels[3:], model.scale_factor))
    if model is COLORIZER:
        assert torch.equal(first[:3], upscale.upscale(model, pixels[:3]))
        return
    assert difference(upscale.upscale(model, pixels, 8), first).max() <= 1
    pixels[:3, 8:24] = 255 - pixels[:3, 8:24]
    assert torch.equal(found("second"), first)
    pixels[3] = 128
    assert torch.equal(found("third")[:3], upscale.upscale(model, pixels[:3]))  # no color of its own


def test_a_png_file_keeps_what_it_can_hold_and_the_rest_is_named(tmp_path, capsys):
    exif = Image.Exif()
    camera, place = {0x9003: "2020:01:01 00:00:00", 0xA002: 15}, {1: "N"}
    exif.update({0x0112: 6, 0x010E: "a caption", 0x0100: 15, 0x8769: camera, 0x8825: place})
    for suffix, options in (("png", {}), ("jpg", {"comment": b"x"}), ("tif", {}), ("webp", {})):
        options |= {"dpi": (300, 150), "exif": exif.tobytes(), "icc_profile": SWAPPED_PROFILE}
        path = save(tmp_path / f"a.{suffix}", random_image(12, 15), **options)
        with Image.open(upscale.upscale_file(path, suffix, model=SRNET)) as file:
            file.load()
            assert file.size == (24, 30) and file.info["icc_profile"] == SWAPPED_PROFILE
            assert suffix == "webp" or file.info["dpi"] == pytest.approx((300, 150), abs=0.02)
            kept = file.getexif()
            assert kept[0x010E] == "a caption" and not {0x0112, 0x0100, 0x0111} & set(kept)
            assert kept.get_ifd(0x8769) == {0x9003: "2020:01:01 00:00:00"} and kept.get_ifd(0x8825) == place
        out = capsys.readouterr().out
        assert ("comments) left out" in out) == (suffix == "jpg") and "further" not in out and "bits" not in out
    path = save(tmp_path / "gray.png", datasets.gray(random_image(9, 9)), icc_profile=SWAPPED_PROFILE)
    with Image.open(upscale.upscale_file(path, "gray", model=SRNET)) as file:
        assert file.mode == "L" and "icc_profile" not in file.info
    frames = [Image.new("L", (8, 8), value) for value in (0, 99, 200)]
    frames[0].save(tmp_path / "many.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 999).save(tmp_path / "deep.tif")
    for name, said in (("many.gif", "2 further frames left out"), ("deep.tif", "8 of 16 bits a channel left out")):
        upscale.upscale_file(tmp_path / name, "x", model=SRNET)
        assert said in capsys.readouterr().out


def test_a_large_photograph_is_colorized_in_little_memory(tmp_path):
    Image.new("LA", (99, 99), (99, 200)).save(tmp_path / "small.png")
    Image.new("LA", (4000, 3000), (99, 200)).save(tmp_path / "large.png")
    script = f"""import resource
from tests.test_upscale import COLORIZER, upscale
for name in ("small", "large"):
    upscale.upscale_file(f"{tmp_path}/{{name}}.png", "colorize", model=COLORIZER)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"""
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    small, large = map(int, run.stdout.split())
    assert (large - small) * 1024 / (4000 * 3000) < 25  # bytes a pixel; a network itself takes less than 0.5 GB


def test_nothing_is_written_over_and_nothing_half_is_left(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", random_image(8, 8))
    before = path.read_bytes()
    out = upscale.upscale_file(path, "srnet_x2", model=SRNET)
    assert upscale.upscale_file(path, "srnet_x2", model=SRNET, again=True) == out
    for target, again in ((None, False), (path, False), (path, True)):
        refuses(FileExistsError, "png is there already", upscale.upscale_file, path, "srnet_x2", target, SRNET, again)
    out.unlink()
    monkeypatch.setattr(training, "predict", lambda *_, **options: 1 / 0)
    refuses(ZeroDivisionError, None, upscale.upscale_file, path, "srnet_x2", model=SRNET)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"] and path.read_bytes() == before


def test_the_command_takes_files_and_folders_skips_what_is_done_and_says_what_is_wrong(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(upscale, "load", lambda name: SRNET)
    names = ("a", "in/b", "in/c")
    for name in names:
        save(tmp_path / f"{name}.png", random_image(5, 7))
    arguments = [str(tmp_path / "a.png"), str(tmp_path / "in")]
    assert upscale.main(arguments) == 0
    assert all(datasets.read_image(tmp_path / f"{name}_srnet_x2.png").shape == (3, 10, 14) for name in names)
    save(tmp_path / "in" / "d.png", random_image(5, 7))
    assert upscale.main(arguments) == 0
    out = capsys.readouterr().out
    assert "d_srnet_x2.png is ready" in out and "a_srnet_x2.png is there already" in out
    assert len(list((tmp_path / "in").iterdir())) == 6  # results are not upscaled again
    assert "2 of 5 images end in _srnet_x2" in out
    refuses(ValueError, "nothing was written", upscale.main, [str(tmp_path)])
    assert f"{tmp_path}: in not read; name its folders too" in capsys.readouterr().out
    (tmp_path / "broken.png").write_bytes(b"no image")
    broken = [str(tmp_path / "broken.png"), *arguments, "--out", str(tmp_path / "new")]
    for args, said in ((arguments, "nothing was written"), ([*arguments, "--out", "a.jpg"], "PNG files"),
                       (broken, "cannot be read as an image"), ([str(tmp_path / "none")], "no such file or folder")):
        refuses((OSError, ValueError), f"^.*{said}.*$", upscale.main, args)
    assert len(list((tmp_path / "new").iterdir())) == 4  # what is sound is done all the same


def test_names_are_settled_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(upscale, "load", lambda name: SRNET)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("s1/a.png", "s2/a.png", "s3/b.jpg", "s3/b.png", f"{240 * 'n'}.png", f"{250 * 'n'}.png"):
        save(tmp_path / name, random_image(5, 7))
    for args in (["s1", "s2", "--out", "new"], ["s1", "s2", "--out", "one.png"], ["s3"], [f"{250 * 'n'}.png", "s1"]):
        before = sorted(tmp_path.rglob("*"))
        refuses((OSError, ValueError), "^.*$", upscale.main, args)
        assert sorted(tmp_path.rglob("*")) == before
    assert upscale.main(["s1", "s1/a.png", str(tmp_path / "s2/../s1"), "~/s2/a.png"]) == 0  # each once
    assert upscale.main([f"{240 * 'n'}.png", "--out", "~/new"]) == 0
    for made in ("s1/a_srnet_x2.png", "s2/a_srnet_x2.png", f"new/{240 * 'n'}_srnet_x2.png"):
        assert datasets.read_image(tmp_path / made).shape == (3, 10, 14)
    assert len(list((tmp_path / "s1").iterdir())) == 2 and not (tmp_path / "~").exists()


def test_test_sets_print_a_dash_for_what_has_no_value_and_must_be_there(tmp_path, capsys, monkeypatch):
    save(tmp_path / "Set5" / "a.png", random_image(40, 36))
    save(tmp_path / "Set14" / "a.png", torch.full((3, 40, 36), 255, dtype=torch.uint8))
    save(tmp_path / "B100" / ".hidden.png", random_image(8, 8))
    monkeypatch.setattr(upscale, "load", lambda name: SRRESNET)
    assert upscale.main(["--test-sets", "--model", "srgan_x4", "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "Set5         srgan_x4" in out and "Set5         bicubic" in out
    assert "Set14        bicubic             – 1.0000  PSNR (dB, Y, border 4) and SSIM, 0 of 1 images" in out
    *rows, last = out.splitlines()
    assert "B100, Urban100, DIV2K/valid" in last and not any("B100" in row for row in rows)  # it holds no image
    for folder, said in (("none", "is no folder"), ("Set5", "holds none of the test sets")):
        refuses(FileNotFoundError, said, upscale.main, ["--test-sets", "--root", str(tmp_path / folder)])
