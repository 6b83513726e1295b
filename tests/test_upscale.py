"""upscale.py: tiles without seams, files that come out whole and are never written over, scores of test sets."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import datasets
import metrics
import NetSet
import training
import upscale


def trained_like(network, *size, seed=0):
    """A network whose blocks do something, as after training, and whose images lie inside [0, 1]."""
    torch.manual_seed(seed)
    model = network(*size, init="kaiming").eval()
    if network is not NetSet.SRNet:
        torch.nn.init.normal_(model.to_rgb.weight, std=1e-3)
        torch.nn.init.constant_(model.to_rgb.bias, 0.5)
    return model


NETWORKS = {
    "SRNet": lambda: trained_like(NetSet.SRNet, 2, 64, 1),
    "SRResNet": lambda: trained_like(NetSet.SRResNet, 4, 8, 2),
    "ResShuffle": lambda: trained_like(NetSet.ResShuffle, 3, 8, 1),
}


def random_image(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("network", "by_hand"),
    [
        (NetSet.SRNet(2, 64, 3), 1 + 1 + 3 * 2 + 1 + 1 + 0.5),
        (NetSet.SRResNet(4, 8, 16), 4 + 32 + 1 + 1 + 0.5 + 4 / 4),
        (NetSet.ResShuffle(3, 8, 2), 4 + 4 + 1 + 1 + 4 / 3),
    ],
)
def test_receptive_radius_by_hand(network, by_hand):
    assert upscale.receptive_radius(network) == int(np.ceil(by_hand))


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_no_pixel_depends_on_what_lies_beyond_the_radius(build):
    model = build()
    radius = upscale.receptive_radius(model)
    img = torch.rand(1, 3, 2 * radius + 5, 2 * radius + 5, requires_grad=True)
    middle = radius + 2
    model.train(False)(img)[..., middle * model.scale_factor, middle * model.scale_factor].sum().backward()
    reached = img.grad.abs().sum((0, 1)).nonzero() - middle
    assert 0 < reached.abs().max() <= radius


@settings(max_examples=10)
@given(st.sampled_from(list(NETWORKS)), st.integers(1, 40), st.integers(1, 40), st.sampled_from([8, 16, 24]))
def test_tiles_have_no_seams(name, height, width, tile):
    model, img = NETWORKS[name](), random_image(height, width)
    whole = datasets.to_uint8(training.predict(model, img[None])[0])
    tiled = upscale.upscale(model, img, tile)
    assert tiled.shape == whole.shape
    difference = (tiled.int() - whole.int()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 0.01  # where a rounding falls the other way


@pytest.fixture(scope="module")
def restorer():
    """A network that downsamples by 8 inside, whose last layer does something."""
    torch.manual_seed(0)
    model = NetSet.JointNet(num_channels=4).eval()
    torch.nn.init.normal_(model.to_rgb.weight, std=0.1)
    return model


def test_a_network_that_downsamples_inside_is_cut_without_seams(restorer):
    img = random_image(250, 213)
    whole = upscale.upscale(restorer, img, 256)
    assert whole.shape == img.shape and (whole.int() - img.int()).abs().max() > 3
    assert (upscale.upscale(restorer, img, 64).int() - whole.int()).abs().max() <= 1


def test_its_radius_holds(restorer):
    img = torch.rand(1, 3, 208, 208, requires_grad=True)
    restorer(img)[0][..., 100:108, 100:108].sum().backward()
    reached = img.grad.abs().sum((0, 1)).nonzero()
    assert reached.min() >= 100 - restorer.receptive_radius and reached.max() <= 107 + restorer.receptive_radius


@pytest.mark.parametrize("height, width", [(90, 61), (33, 200), (5, 9)])
def test_a_colorized_photograph_keeps_its_luma(height, width):
    torch.manual_seed(0)
    model = NetSet.Colorizer(8, keep_luma=True).eval()
    torch.nn.init.normal_(model.unet.last.weight, std=0.1)
    grey = datasets.grey(64 + random_image(height, width) // 2)
    colorized = upscale.colorize(model, grey)
    assert colorized.shape == grey.shape and (colorized.int() - grey.int()).abs().max() > 2
    assert (datasets.grey(colorized).int() - grey.int()).abs().max() <= 1
    again = upscale.colorize(model, colorized)  # of a colour image the luma alone is read
    assert (again.int() - colorized.int()).abs().max() <= 3


def test_what_cannot_be_cut_says_so():
    with pytest.raises(ValueError, match="Colorizer cannot be cut into tiles"):
        upscale.upscale(NetSet.Colorizer(8), random_image(16, 16))
    with pytest.raises(ValueError, match="BicubicUpsampler cannot be cut into tiles"):
        upscale.upscale(NetSet.BicubicUpsampler(2), random_image(5, 5))
    assert upscale.receptive_radius(NetSet.SelfEnsemble(NetSet.SRNet(2, 64, 3))) == 11


def test_too_little_overlap_would_show(monkeypatch):
    model, img = NETWORKS["SRResNet"](), random_image(30, 30)
    whole = upscale.upscale(model, img, 30)
    monkeypatch.setattr(upscale, "receptive_radius", lambda model: 1)
    assert (upscale.upscale(model, img, 8).int() - whole.int()).abs().max() > 3


def test_cuts_are_equal_and_cover_the_side():
    assert upscale._cuts(1000, 640) == [(0, 504), (504, 1000)]
    assert upscale._cuts(5, 640) == [(0, 5)]


def test_tiles_of_two_megapixels_cost_little_overlap():
    radius = upscale.receptive_radius(NetSet.SRNet())
    cost = 1.0
    for side in (1250, 1600):
        spans = upscale._cuts(side, upscale.default_tile(NetSet.SRNet()))
        cost *= sum(min(end + radius, side) - max(start - radius, 0) for start, end in spans) / side
    assert 1 < cost < 1.15


def test_a_long_thin_photograph_is_colorized_at_a_bounded_size(monkeypatch):
    seen = []
    monkeypatch.setattr(training, "predict", lambda model, img: seen.append(tuple(img.shape[2:])) or img)
    for height, width in ((2, 12000), (90, 120), (1, 50), (1, 10**6)):
        grey = datasets.grey(random_image(height, width))
        assert torch.equal(upscale.colorize(None, grey), grey)
    assert seen[1] == (32, 40) and all(rows * columns <= 2 * upscale.COLORIZED_AREA for rows, columns in seen)


# --- files ------------------------------------------------------------------------------------------------------------


def save(path, img):
    Image.fromarray(img.permute(1, 2, 0).numpy()).save(path)
    return path


@pytest.fixture
def one_network(monkeypatch):
    """Every model of the command is a small network."""
    model = NETWORKS["SRNet"]()
    monkeypatch.setattr(upscale, "load", lambda name: model)
    return model


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "I;16", "1", "CMYK"])
def test_any_mode_is_upscaled(tmp_path, mode):
    path = tmp_path / f"photo.{'tif' if mode == 'CMYK' else 'png'}"
    img = Image.fromarray(random_image(9, 12).permute(1, 2, 0).numpy())
    (img.convert("I").convert("I;16") if mode == "I;16" else img.convert(mode)).save(path)
    model = NETWORKS["SRNet"]()
    out = upscale.upscale_file(path, "srnet_x2", model=model)
    assert out == tmp_path / "photo_srnet_x2.png" and len(list(tmp_path.iterdir())) == 2
    assert torch.equal(datasets.read_image(out), upscale.upscale(model, datasets.read_image(path)))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_kept(tmp_path, mode):
    img = datasets.imresize(random_image(4, 5), 3)
    alpha = datasets.imresize(random_image(2, 3), 6)[:1, :, :15]
    alpha[:, :3], alpha[:, -3:] = 255, 0
    pixels = torch.cat([img, alpha]).permute(1, 2, 0).numpy()
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.fromarray(pixels, "RGBA").convert(mode).save(tmp_path / "a.png", exif=exif)
    model = NETWORKS["SRNet"]()
    out = upscale.upscale_file(tmp_path / "a.png", "srnet_x2", model=model)
    with Image.open(out) as file:
        assert file.mode == "RGBA" and file.size == (24, 30)
        found = torch.from_numpy(np.array(file.getchannel("A")))
    assert torch.equal(found, datasets.imresize(alpha.rot90(-1, (1, 2)), 2)[0])
    on_white = upscale.upscale(model, datasets.read_image(tmp_path / "a.png"))
    possible = on_white.maximum(255 - found)  # a pixel that is seen through cannot be darker on white
    assert (datasets.read_image(out).int() - possible.int()).abs().max() <= 1


@pytest.mark.parametrize("sides", [(50, 1), (1, 50), (1, 1)])
def test_images_one_pixel_wide(tmp_path, restorer, sides):
    colorizer = NetSet.Colorizer(8, keep_luma=True).eval()
    save(tmp_path / "a.png", random_image(*sides))
    for name, model in (("restore", restorer), ("colorize", colorizer), ("srnet_x2", NETWORKS["SRNet"]())):
        out = datasets.read_image(upscale.upscale_file(tmp_path / "a.png", name, model=model))
        assert out.shape == (3, *(side * model.scale_factor for side in sides))


def test_a_photograph_held_sideways_comes_out_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (12, 8)).save(tmp_path / "a.jpg", exif=exif)
    out = upscale.upscale_file(tmp_path / "a.jpg", "srnet_x2", tmp_path / "new" / "b.png", NETWORKS["SRNet"]())
    assert datasets.read_image(out).shape == (3, 24, 16)


def test_nothing_is_written_over_and_nothing_half_is_left(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", random_image(8, 8))
    before, model = path.read_bytes(), NETWORKS["SRNet"]()
    with pytest.raises(FileExistsError, match=r"a\.png is there already"):
        upscale.upscale_file(path, "srnet_x2", path, model)
    with pytest.raises(ValueError, match=r"must end in \.png"):
        upscale.upscale_file(path, "srnet_x2", tmp_path / "a.jpg", model)
    out = upscale.upscale_file(path, "srnet_x2", model=model)
    with pytest.raises(FileExistsError, match=r"a_srnet_x2\.png is there already"):
        upscale.upscale_file(path, "srnet_x2", model=model)
    assert upscale.upscale_file(path, "srnet_x2", model=model, again=True) == out
    with pytest.raises(FileExistsError, match=r"a\.png is there already"):
        upscale.upscale_file(path, "srnet_x2", path, model, again=True)
    out.unlink()

    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "predict", stop)
    with pytest.raises(KeyboardInterrupt):
        upscale.upscale_file(path, "srnet_x2", model=model)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"] and path.read_bytes() == before


def test_load_builds_the_network_of_its_run(tmp_path):
    model, folder = NETWORKS["ResShuffle"](), tmp_path / "resshuffle_x4"
    folder.mkdir()
    torch.save(model.state_dict(), folder / "model.pth")
    (folder / "history.csv").write_text("epoch\n1\n")
    sizes = {"scale_factor": 3, "num_channels": 8, "num_blocks": 1}
    (folder / "run.json").write_text(json.dumps({"finished": True, "settings": sizes, "data": {"name": "a"}}))
    img = random_image(5, 6)
    assert torch.equal(upscale.upscale(upscale.load("resshuffle_x4", tmp_path), img), upscale.upscale(model, img))
    with pytest.raises(FileNotFoundError, match=r"run study_srgan_x4.ipynb first"):
        upscale.load("srresnet_x4", tmp_path)
    with pytest.raises(ValueError, match="choose one of srnet_x2"):
        upscale.load("vdsr", tmp_path)


def test_the_command_says_what_is_wrong_in_one_line(tmp_path, capsys, one_network):
    (tmp_path / "broken.png").write_bytes(b"no image")
    for name, said in (("none.png", "no such file"), ("broken.png", "cannot be read as an image")):
        assert upscale.main([str(tmp_path / name)]) == 1
        error = capsys.readouterr().err
        assert said in error and len(error.splitlines()) == 1
    for arguments in ([], ["--test-sets", "--model", "colorize"], ["a.png", "--test-sets"]):
        with pytest.raises(SystemExit):
            upscale.main(arguments)
    assert "either images (and --out), or --test-sets" in capsys.readouterr().err


def test_the_command_takes_files_and_folders_and_skips_what_is_done(tmp_path, capsys, one_network):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "in/b.png", "in/c.png"):
        save(tmp_path / name, random_image(5, 7))
    arguments = [str(tmp_path / "a.png"), str(tmp_path / "in")]
    assert upscale.main(arguments) == 0
    done = [tmp_path / name for name in ("a_srnet_x2.png", "in/b_srnet_x2.png", "in/c_srnet_x2.png")]
    assert all(datasets.read_image(path).shape == (3, 10, 14) for path in done)
    before = [path.stat().st_mtime_ns for path in done]
    save(tmp_path / "in" / "d.png", random_image(5, 7))
    capsys.readouterr()
    assert upscale.main(arguments) == 0
    out = capsys.readouterr().out
    assert "d_srnet_x2.png is ready" in out and "a_srnet_x2.png is there already" in out
    assert "c_srnet_x2.png: it is a result" in out
    assert [path.stat().st_mtime_ns for path in done] == before and len(list((tmp_path / "in").iterdir())) == 6
    assert upscale.main(arguments) == 1 and "nothing was written" in capsys.readouterr().err
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert upscale.main([str(tmp_path / "broken.png"), *arguments, "--out", str(tmp_path / "new")]) == 1
    assert "cannot be read as an image" in capsys.readouterr().err
    assert len(list((tmp_path / "new").iterdir())) == 4
    (tmp_path / "empty").mkdir()
    assert upscale.main([str(tmp_path / "empty"), str(tmp_path / "in" / "d.png"), "--out", str(tmp_path / "e")]) == 1
    assert "holds no image" in capsys.readouterr().err and (tmp_path / "e" / "d_srnet_x2.png").exists()
    assert upscale.main([*arguments, "--out", str(tmp_path / "one.png")]) == 1


def test_the_command_on_a_console_that_lacks_a_letter_and_from_another_folder(tmp_path):
    save(tmp_path / "照片.png", random_image(2, 2))
    code = "import sys, NetSet, upscale; upscale.load = lambda name: NetSet.SRNet(2, 64, 0); sys.exit(upscale.main())"
    env = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(Path(upscale.__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code, "照片.png"], cwd=tmp_path, env=env, capture_output=True)
    assert done.returncode == 0 and (tmp_path / "照片_srnet_x2.png").exists(), done.stderr
    beside = Path(upscale.__file__).resolve().parent
    assert Path(upscale.make_parser().parse_args([]).root).resolve() == beside / "DS"
    assert upscale.RESULTS_ROOT.resolve() == beside / "results"


# --- test sets --------------------------------------------------------------------------------------------------------


def sr_test_set(*hr_images, name="two"):
    names = [f"img_{k}" for k in range(len(hr_images))]
    return datasets.SRTestSet(None, 2, images=list(hr_images), names=names, name=name)


def test_measure_is_evaluate_image_by_image():
    test_set = sr_test_set(*(datasets.imresize(random_image(8, 9, seed), 14) for seed in (0, 1)))
    lr_img, hr_img = test_set.pair(1)
    niqe = metrics.NIQE([datasets.to_float(hr_img)])
    scores = upscale.measure(upscale.baselines(2), [test_set], ("literature", "reference"), niqe)
    bicubic = datasets.to_float(datasets.imresize(lr_img, 2))
    row = scores.query("image == 'img_1' and method == 'bicubic' and protocol == 'reference'").iloc[0]
    expected = metrics.evaluate(bicubic[None], datasets.to_float(hr_img)[None], "reference", 2)
    assert (row.psnr_db, row.ssim) == (expected["psnr_db"].item(), expected["ssim"].item())
    assert row.niqe == niqe.score(bicubic) and len(scores) == 2 * (2 * 2 + 1)
    literature = scores.query("image == 'img_1' and method == 'bicubic' and protocol == 'literature'").iloc[0]
    assert upscale.bicubic_psnr(datasets.to_float(lr_img)[None], datasets.to_float(hr_img)[None]) == literature.psnr_db
    shown = upscale.upscaled_images(upscale.baselines(2), [test_set], ["img_1"])
    assert list(shown) == ["img_1"] and list(shown["img_1"]) == ["nearest", "bicubic", "truth"]
    assert torch.equal(shown["img_1"]["truth"], hr_img)
    assert torch.equal(datasets.to_float(shown["img_1"]["bicubic"]), bicubic)
    with pytest.raises(ValueError, match="no test image is called img_7; there are img_0, img_1"):
        upscale.upscaled_images({}, [test_set], ["img_7"])


def test_names_are_unique_across_test_sets():
    test_sets = [sr_test_set(datasets.imresize(random_image(8, 8), 3), name=name) for name in ("Set5", "DIV2K/valid")]
    scores = upscale.measure(upscale.baselines(2), test_sets)
    assert set(scores.image) == {"Set5 img_0", "DIV2K/valid img_0"}
    assert set(scores[scores.set == "DIV2K/valid"].protocol) == {"literature", "rgb"}
    assert list(upscale.upscaled_images({}, test_sets, ["Set5 img_0"])) == ["Set5 img_0"]


def test_what_has_no_score_is_nan_and_leaves_the_mean(capsys):
    good = datasets.imresize(random_image(8, 8), 13)
    white, tiny = torch.full((3, 100, 100), 255, dtype=torch.uint8), random_image(12, 12)
    niqe = metrics.NIQE([datasets.to_float(good)])
    scores = upscale.measure(upscale.baselines(2), [sr_test_set(good, white, tiny)], niqe=niqe)
    scores = scores[scores.method == "bicubic"]
    assert scores.psnr_db.isna().tolist() == [False, True, True] and scores.niqe.isna().tolist() == [False, True, True]
    assert scores.ssim.isna().tolist() == [False, False, True] and scores.ssim[scores.image == "img_1"].item() == 1
    assert math.isfinite(scores.psnr_db.mean())
    assert "img_2: no PSNR and SSIM, whose window needs 11 pixels" in capsys.readouterr().out


def test_cached_scores_are_those_of_measure_and_are_computed_once(tmp_path):
    test_set, calls = sr_test_set(datasets.imresize(random_image(8, 8), 13), torch.zeros(3, 40, 40).byte()), []
    bicubic = upscale.baselines(2)["bicubic"]
    methods = {"bicubic": bicubic, "net": lambda img: calls.append(1) or bicubic(img)}
    niqe = metrics.NIQE([datasets.to_float(test_set.pair(0)[1])])

    def cached(weights="w", test_set=test_set, protocols=("literature",), niqe=None):
        return upscale.measure_cached(tmp_path, methods, {"net": weights}, [test_set], protocols, niqe)

    expected = upscale.measure(methods, [test_set])
    calls.clear()
    for _ in range(2):
        assert cached().equals(expected) and len(calls) == 2
    stored = (tmp_path / "test_scores.json").read_text()
    assert "null" in stored and "NaN" not in stored  # the PSNR of identical images
    with_niqe = cached(niqe=niqe)
    assert len(calls) == 4 and with_niqe.equals(upscale.measure(methods, [test_set], niqe=niqe))
    calls.clear()
    other = metrics.NIQE([datasets.to_float(random_image(96, 96))])
    assert cached(niqe=other).query("method == 'net'").equals(with_niqe.query("method == 'net'")) and not calls
    for change in ({"weights": "v"}, {"protocols": ("rgb",)}, {"test_set": sr_test_set(random_image(40, 40))}):
        calls.clear()
        cached(**change)
        assert calls


def test_test_sets_print_a_dash_and_name_those_that_are_missing(tmp_path, capsys, monkeypatch):
    for name, img in (("Set5", random_image(40, 36)), ("Set14", torch.full((3, 40, 36), 255, dtype=torch.uint8))):
        (tmp_path / name).mkdir()
        save(tmp_path / name / "a.png", img)
    monkeypatch.setattr(upscale, "load", lambda name: NETWORKS["SRResNet"]())
    assert upscale.main(["--test-sets", "--model", "srgan_x4", "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "PSNR (dB, Y, border 4)" in out and "Set5         srgan_x4" in out and "Set5         bicubic" in out
    dash = next(line for line in out.splitlines() if line.startswith("Set14        bicubic"))
    assert "–" in dash and "1.0000" in dash and dash.endswith("1 images, 1 identical")
    assert "Urban100     is not there: python datasets.py download urban100" in out
