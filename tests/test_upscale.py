"""enhance.py: tiles without seams, files that come out whole and are never written over, scores of test sets."""
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import datasets
import enhance
import metrics
import NetSet
import training


def trained_like(network, *size, seed=0):
    """A network whose blocks do something, as after training, and whose pictures lie inside [0, 1]."""
    torch.manual_seed(seed)
    model = network(*size, start="kaiming").eval()
    if network is not NetSet.SRNet:
        torch.nn.init.normal_(model.to_rgb.weight, std=1e-3)
        torch.nn.init.constant_(model.to_rgb.bias, 0.5)
    return model


NETWORKS = {
    "SRNet": lambda: trained_like(NetSet.SRNet, 2, 64, 1),
    "SRResNet": lambda: trained_like(NetSet.SRResNet, 4, 8, 2),
    "ResShuffle": lambda: trained_like(NetSet.ResShuffle, 3, 8, 1),
}


def random_picture(height, width, seed=0):
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
    assert enhance.receptive_radius(network) == int(np.ceil(by_hand))


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_no_pixel_depends_on_what_lies_beyond_the_radius(build):
    model = build()
    radius = enhance.receptive_radius(model)
    img = torch.rand(1, 3, 2 * radius + 5, 2 * radius + 5, requires_grad=True)
    middle = radius + 2
    model.train(False)(img)[..., middle * model.scale_factor, middle * model.scale_factor].sum().backward()
    reached = img.grad.abs().sum((0, 1)).nonzero() - middle
    assert 0 < reached.abs().max() <= radius


@settings(max_examples=10)
@given(st.sampled_from(list(NETWORKS)), st.integers(1, 40), st.integers(1, 40), st.integers(3, 17))
def test_tiles_have_no_seams(name, height, width, tile):
    model, img = NETWORKS[name](), random_picture(height, width)
    whole = datasets.to_uint8(training.predict(model, img[None])[0])
    tiled = enhance.enlarge(model, img, tile)
    assert tiled.shape == whole.shape
    difference = (tiled.int() - whole.int()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 0.01  # where a rounding falls the other way


@pytest.fixture(scope="module")
def mender():
    """A network that shrinks by 8 inside, whose last layer does something."""
    torch.manual_seed(0)
    model = NetSet.JointNet(num_channels=4).eval()
    torch.nn.init.normal_(model.to_rgb.weight, std=0.1)
    return model


def test_a_network_that_shrinks_inside_is_cut_without_seams(mender):
    img = random_picture(250, 213)
    whole = enhance.enlarge(mender, img, 256)
    assert whole.shape == img.shape and (whole.int() - img.int()).abs().max() > 3
    assert (enhance.enlarge(mender, img, 64).int() - whole.int()).abs().max() <= 1


def test_its_radius_holds(mender):
    img = torch.rand(1, 3, 208, 208, requires_grad=True)
    mender(img)[0][..., 100:108, 100:108].sum().backward()
    reached = img.grad.abs().sum((0, 1)).nonzero()
    assert reached.min() >= 100 - mender.receptive_radius and reached.max() <= 107 + mender.receptive_radius


@pytest.mark.parametrize("height, width", [(90, 61), (33, 200), (5, 9)])
def test_a_painted_photograph_keeps_its_luma(height, width):
    torch.manual_seed(0)
    model = NetSet.Colorizer(8, keep_luma=True).eval()
    torch.nn.init.normal_(model.unet.last.weight, std=0.1)
    grey = datasets.grey(64 + random_picture(height, width) // 2)
    painted = enhance.colorize(model, grey)
    assert painted.shape == grey.shape and (painted.int() - grey.int()).abs().max() > 2
    assert (datasets.grey(painted).int() - grey.int()).abs().max() <= 1
    again = enhance.colorize(model, painted)  # of a colour picture the luma alone is read
    assert (again.int() - painted.int()).abs().max() <= 3


def test_what_cannot_be_cut_says_so():
    with pytest.raises(ValueError, match="Colorizer cannot be cut into tiles"):
        enhance.enlarge(NetSet.Colorizer(8), random_picture(16, 16))
    with pytest.raises(ValueError, match="BicubicEnlarger cannot be cut into tiles"):
        enhance.enlarge(NetSet.BicubicEnlarger(2), random_picture(5, 5))
    assert enhance.receptive_radius(NetSet.SelfEnsemble(NetSet.SRNet(2, 64, 3))) == 11


def test_too_little_overlap_would_show(monkeypatch):
    model, img = NETWORKS["SRResNet"](), random_picture(30, 30)
    whole = enhance.enlarge(model, img, 30)
    monkeypatch.setattr(enhance, "receptive_radius", lambda model: 1)
    assert (enhance.enlarge(model, img, 8).int() - whole.int()).abs().max() > 3


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "I;16", "1", "CMYK"])
def test_any_mode_goes_through(tmp_path, mode):
    suffix = "tif" if mode == "CMYK" else "png"
    picture = Image.fromarray(random_picture(9, 12).permute(1, 2, 0).numpy())
    picture = picture.convert("I").convert("I;16") if mode == "I;16" else picture.convert(mode)
    picture.save(tmp_path / f"photo.{suffix}")
    model = NETWORKS["SRNet"]()
    out = enhance.enlarge_file(tmp_path / f"photo.{suffix}", "srnet_x2", model=model)
    assert out == tmp_path / "photo_srnet_x2.png"
    expected = enhance.enlarge(model, datasets.read_image(tmp_path / f"photo.{suffix}"))
    assert torch.equal(datasets.read_image(out), expected)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_photograph_held_sideways_comes_out_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (12, 8)).save(tmp_path / "a.jpg", exif=exif)
    out = enhance.enlarge_file(tmp_path / "a.jpg", "srnet_x2", tmp_path / "new" / "b.png", NETWORKS["SRNet"]())
    assert datasets.read_image(out).shape == (3, 24, 16)


def test_nothing_is_written_over_and_nothing_half_is_left(tmp_path, monkeypatch):
    picture = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(picture)
    before, model = picture.read_bytes(), NETWORKS["SRNet"]()
    with pytest.raises(FileExistsError, match=r"a\.png is there already"):
        enhance.enlarge_file(picture, "srnet_x2", picture, model)
    with pytest.raises(ValueError, match=r"must end in \.png"):
        enhance.enlarge_file(picture, "srnet_x2", tmp_path / "a.jpg", model)
    out = enhance.enlarge_file(picture, "srnet_x2", model=model)
    with pytest.raises(FileExistsError, match=r"a_srnet_x2\.png is there already"):
        enhance.enlarge_file(picture, "srnet_x2", model=model)
    assert enhance.enlarge_file(picture, "srnet_x2", model=model, again=True) == out
    with pytest.raises(FileExistsError, match=r"a\.png is there already"):
        enhance.enlarge_file(picture, "srnet_x2", picture, model, again=True)
    out.unlink()

    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "predict", stop)
    with pytest.raises(KeyboardInterrupt):
        enhance.enlarge_file(picture, "srnet_x2", model=model)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"] and picture.read_bytes() == before


def save_run(folder, model, settings):
    folder.mkdir(parents=True)
    torch.save(model.state_dict(), folder / "model.pth")
    (folder / "history.csv").write_text("epoch\n1\n")
    info = {"finished": True, "settings": settings, "data": {"name": "test"}}
    (folder / "run.json").write_text(json.dumps(info))


def test_load_builds_the_network_of_its_run(tmp_path):
    model = NETWORKS["ResShuffle"]()
    save_run(tmp_path / "resshuffle_x4", model, {"scale_factor": 3, "num_channels": 8, "num_blocks": 1})
    img = random_picture(5, 6)
    assert torch.equal(enhance.enlarge(enhance.load("resshuffle_x4", tmp_path), img), enhance.enlarge(model, img))
    with pytest.raises(FileNotFoundError, match=r"run study_srgan_x4.ipynb first"):
        enhance.load("srresnet_x4", tmp_path)
    with pytest.raises(ValueError, match="choose one of srnet_x2"):
        enhance.load("vdsr", tmp_path)


def test_load_takes_the_run_that_was_trained_longer_where_it_is_finished(tmp_path):
    first, longer = NetSet.SRNet(2, 64, 0), NetSet.SRNet(2, 64, 0)
    settings = {"scale_factor": 2, "num_channels": 64, "num_blocks": 0}
    save_run(tmp_path / "task1", first, settings)
    assert torch.equal(enhance.load("srnet_x2", tmp_path).to_rgb.weight.cpu(), first.to_rgb.weight)
    save_run(tmp_path / "task1" / "longer", longer, settings)
    assert torch.equal(enhance.load("srnet_x2", tmp_path).to_rgb.weight.cpu(), longer.to_rgb.weight)


def test_load_refuses_weights_of_another_run(tmp_path):
    settings = {"scale_factor": 2, "num_channels": 64, "num_blocks": 0}
    save_run(tmp_path / "task1", NetSet.SRNet(2, 64, 0), settings)
    save_run(tmp_path / "task1" / "longer", NetSet.SRNet(2, 64, 0), settings)
    info = json.loads((tmp_path / "task1" / "run.json").read_text()) | {"weights": "of another run"}
    (tmp_path / "task1" / "longer" / "run.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match=r"longer.model\.pth is not the file that its run\.json names"):
        enhance.load("srnet_x2", tmp_path)


def test_the_command_says_what_is_wrong_in_one_line(tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for name, said in (("none.png", "no such file"), ("broken.png", "cannot be read as an image")):
        assert enhance.main([str(tmp_path / name)]) == 1
        error = capsys.readouterr().err
        assert said in error and len(error.splitlines()) == 1
    with pytest.raises(SystemExit):
        enhance.main([])
    with pytest.raises(SystemExit):
        enhance.main(["--test-sets", "--model", "colorize"])
    assert "--test-sets measures enlargers" in capsys.readouterr().err


def test_the_command_enlarges(tmp_path, capsys):
    Image.new("RGB", (7, 5), "red").save(tmp_path / "a.png")
    assert enhance.main([str(tmp_path / "a.png"), "--model", "srnet_x2"]) == 0
    assert "a_srnet_x2.png is ready" in capsys.readouterr().out
    assert datasets.read_image(tmp_path / "a_srnet_x2.png").shape == (3, 10, 14)


def test_measure_is_evaluate_picture_by_picture():
    pictures = [datasets.imresize(random_picture(8, 9, seed), 14) for seed in (0, 1)]
    test_set = datasets.SRTestSet(None, 2, images=pictures, names=["a", "b"], name="two")
    natural = metrics.NaturalScenes([datasets.to_float(pictures[0])])
    scores, seen = enhance.measure(enhance.baselines(2), [test_set], ("literature", "seed"), natural)
    lr_img, hr_img = test_set.pair(1)
    bicubic = datasets.to_float(datasets.imresize(lr_img, 2))
    row = scores.query("picture == 'b' and method == 'bicubic' and protocol == 'seed'").iloc[0]
    expected = metrics.evaluate(bicubic[None], datasets.to_float(hr_img)[None], "seed", 2)
    assert (row.psnr_db, row.ssim) == (expected["psnr_db"].item(), expected["ssim"].item())
    assert row.niqe == natural.score(bicubic)
    assert len(scores) == 2 * (2 * 2 + 1) and list(seen["a"]) == ["nearest", "bicubic", "truth"]
    assert torch.equal(seen["b"]["truth"], hr_img)


def test_natural_scenes_passes_over_photographs_too_small():
    images = [datasets.imresize(random_picture(12, 12, seed), scale) for seed, scale in ((0, 10), (1, 6), (2, 9))]
    train_set = datasets.DIV2KDataset(None, 48, 4, images=images)
    natural = enhance.natural_scenes(train_set, max_photographs=2)
    assert torch.equal(natural.mean, metrics.NaturalScenes([datasets.to_float(images[0])]).mean)


def test_bicubic_psnr_is_that_of_measure():
    hr_img = datasets.imresize(random_picture(8, 8), 5)
    test_set = datasets.SRTestSet(None, 2, images=[hr_img], names=["a"])
    scores, nothing = enhance.measure(enhance.baselines(2), [test_set], keep_pictures=False)
    lr_img, hr_img, _ = test_set[0]
    expected = scores[scores.method == "bicubic"].psnr_db.item()
    assert enhance.bicubic_psnr(lr_img[None], hr_img[None]) == expected and nothing == {}


def test_test_sets_that_are_missing_are_named(tmp_path, capsys, monkeypatch):
    (tmp_path / "Set5").mkdir()
    Image.fromarray(random_picture(40, 36).permute(1, 2, 0).numpy()).save(tmp_path / "Set5" / "a.png")
    monkeypatch.setattr(enhance, "load", lambda name: NETWORKS["SRResNet"]())
    assert enhance.main(["--test-sets", "--model", "srgan_x4", "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "PSNR (dB, Y, border 4)" in out and "Set5         srgan_x4" in out and "Set5         bicubic" in out
    assert "Urban100     is not there: python datasets.py download urban100" in out
