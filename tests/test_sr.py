"""tools/sr.py: scores of test sets, computed once; the data of a notebook by its settings."""
import pytest
import torch

import datasets
import metrics
import NetSet
import training
from tools import runs, sr
from tools import settings as settings_tables

from .conftest import random_image, save, write_run


def sr_test_set(*hr_images, name="two"):
    names = [f"img_{k}" for k in range(len(hr_images))]
    return datasets.SRTestSet(None, 2, images=list(hr_images), names=names, name=name)


SMOOTH = datasets.imresize(random_image(8, 9), 13)


def test_measure_is_evaluate_image_by_image():
    test_sets = [sr_test_set(random_image(20, 20), SMOOTH, name="Set5"), sr_test_set(SMOOTH, name="DIV2K/valid")]
    lr_img, hr_img = (datasets.to_float(img) for img in test_sets[0].pair(1))
    niqe, methods = metrics.NIQE(), sr.baselines(2)
    scores = sr.measure(methods, test_sets, ("literature", "reference"), niqe)
    assert len(scores) == 3 * (2 * 2 + 1) + 2  # two methods by two protocols, the truth, and RGB for DIV2K
    assert scores.ssim[scores.method == "truth"].isna().all()
    assert set(scores[scores.set == "DIV2K/valid"].protocol) == {"literature", "reference", "rgb"}
    shown = sr.upscaled_images(methods, test_sets, ["Set5 img_1"])["Set5 img_1"]
    assert list(shown) == ["nearest", "bicubic", "truth"] and torch.equal(datasets.to_float(shown["truth"]), hr_img)
    bicubic = datasets.to_float(shown["bicubic"])
    for protocol in ("reference", "literature"):
        row = scores.query("image == 'Set5 img_1' and method == 'bicubic' and protocol == @protocol").iloc[0]
        expected = metrics.evaluate(bicubic[None], hr_img[None], protocol, 2) | {"niqe": niqe.score(bicubic)}
        assert dict(row[expected.keys()]) == expected
    assert sr.bicubic_psnr(lr_img[None], hr_img[None]) == row.psnr_db


def test_what_was_not_measured_is_not_accepted_as_the_result_of_rewritten_code(tmp_path, monkeypatch):
    monkeypatch.setenv(runs.ACCEPT, "1")
    test_set, methods = sr_test_set(SMOOTH), {"bicubic": sr.baselines(2)["bicubic"]}

    def kept(key, *options):
        return sr.measure(methods, [test_set], *options, path=tmp_path / "scores.json", keys={"bicubic": key})

    assert kept("a").equals(kept("b"))
    for options in ((("literature", "reference"),), (("literature",), metrics.NIQE())):
        assert kept("c", *options).equals(sr.measure(methods, [test_set], *options))


def test_cached_scores_are_those_of_measure_and_are_computed_once(tmp_path):
    white, tiny = torch.full((3, 100, 100), 255, dtype=torch.uint8), random_image(12, 12)
    test_set, calls = sr_test_set(SMOOTH, white, tiny), []
    bicubic = sr.baselines(2)["bicubic"]
    methods = {"net": lambda img: calls.append(1) or bicubic(img), "bicubic": bicubic}
    niqe, other = metrics.NIQE(), metrics.NIQE()
    other.mean = 2 * niqe.mean

    def cached(weights="w", test_set=test_set, protocols=("literature",), niqe=None):
        calls.clear()
        keys = {"net": [weights, niqe and niqe.mean.tolist()]}
        return sr.measure(methods, [test_set], protocols, niqe, tmp_path / "test_scores.json", keys)

    expected = sr.measure(methods, [test_set])
    for num_calls in (3, 0):
        assert cached().equals(expected) and len(calls) == num_calls
    assert "NaN" not in (tmp_path / "test_scores.json").read_text()
    scores = cached(niqe=niqe)
    assert len(calls) == 3 and scores.equals(sr.measure(methods, [test_set], niqe=niqe))
    scores = scores[scores.method == "net"]  # nan: the PSNR of identical images, and what is too small or flat
    assert scores[["psnr_db", "ssim", "niqe"]].isna().to_numpy().tolist() == [[0, 0, 0], [1, 0, 1], [1, 1, 1]]
    cached(niqe=other)
    assert calls, "other statistics are other scores"
    for change in ({"weights": "v"}, {"protocols": ("rgb",)}, {"test_set": sr_test_set(random_image(40, 40))}):
        cached()
        cached(**change)
        assert calls


def test_data_validation_and_means_of_the_notebooks(tmp_path, capsys):
    for folder, side in (("photographs/train", 40), ("photographs/valid", 36), ("Set5", 30), ("Set14", 32)):
        for seed in range(2):
            save(tmp_path / folder / f"{seed}.png", random_image(side, side, seed))
    save(tmp_path / "Set14" / "1.png", random_image(32, 32, 1), "L")
    chosen = settings_tables.choose("task1", "quick", {"crop_size": 24, "valid_size": 28})
    task = runs.Task("task1", "quick", chosen, torch.device("cpu"), tmp_path, tmp_path)
    data = sr.SRData(task, datasets.Fuzz(2))
    assert [part.shape for part in data.valid_crops] == [(2, 3, 14, 14), (2, 3, 28, 28)]
    assert data.tested_on == ["Set5 (2 images)", "Set14 (2 images)"] and data.tested_on[0] in capsys.readouterr().out
    assert data.identity["name"] == "photographs/train" and data.identity["photographs"]
    before = data.train_set
    assert data.train_set is before
    task.settings.become(chosen | {"crop_size": 12})
    assert data.train_set.crop_size == 12, "made anew where the settings have changed"

    model = NetSet.SRNet(2, 64, 0)
    lr_img, hr_img = data.valid_crops
    expected = metrics.evaluate(training.predict(model, lr_img), hr_img, "literature", 2)["psnr_db"].mean().item()
    l1 = (training.predict(model, lr_img) - hr_img).abs().mean()
    assert sr.validation_scores(model, data) == pytest.approx({"psnr_db": expected, "l1": l1.item()}, abs=1e-4)

    expected = {"bicubic (dB)": sr.bicubic_psnr(lr_img, hr_img), "network (dB)": expected}
    found = sr.gains(model, data).loc["validation", [*expected]].to_dict()
    assert found == pytest.approx(expected, abs=1e-4)
    save(tmp_path / "photographs/train/2.png", random_image(27, 40))  # smaller than the crops: left out
    data, psnr = sr.SRData(task, datasets.Fuzz(2)), []
    for k in range(2):
        hr_img = data.train_set.image(k)
        lr_img = datasets.to_float(datasets.imresize(hr_img, 0.5)[None, :, 3:17, 3:17])
        hr_img = datasets.to_float(hr_img)[None, :, 6:34, 6:34]
        restored = metrics.evaluate(training.predict(model, lr_img), hr_img, "literature", 2)["psnr_db"].item()
        psnr += [restored - sr.bicubic_psnr(lr_img, hr_img)]
    expected = {"photographs": 2, "gain (dB)": sum(psnr) / 2, "standard error": abs(psnr[0] - psnr[1]) / 2}
    assert sr.gains(model, data).loc["training", [*expected]].to_dict() == pytest.approx(expected, abs=1e-4)
    run = write_run(tmp_path / "run", {}, model=model)
    run.network = model.eval()
    for _ in range(2):  # the second time they are read
        scores = sr.sr_scores({"srnet": run}, data.test_sets)
        row, of_set = sr.means(scores)[-1], scores[(scores.set == "Set14") & (scores.method == "srnet")]
        assert (row["protocol"], row["set"], row["method"]) == ("literature", "Set14", "srnet")
        assert len(of_set) == 2 and row["psnr_db"] == round(of_set.psnr_db.mean(), 4)
        model.to_rgb.weight.data.zero_()  # seen if it were measured again
    lr_img, hr_img = data.test_sets[1].pair(1)  # stored gray: scored as it is, not as Y of 16 to 235
    bicubic = datasets.to_float(datasets.imresize(lr_img, 2))[None]
    expected = metrics.evaluate(bicubic, datasets.to_float(hr_img)[None, :1], "literature", 2)["psnr_db"].item()
    found = scores[(scores.set == "Set14") & (scores.method == "bicubic")].psnr_db.tolist()
    assert found[1] == pytest.approx(expected, abs=1e-6)
