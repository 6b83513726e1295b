"""The study's numbers come out of its weights: what is kept in results/ is computed again, for some of the images."""
import json

import pytest
import torch

import datasets
import metrics
import NetSet
import training
from tools import files, runs, sr, upscale

from .conftest import ROOT

MULTI = ROOT / "results" / "multi" / "seed0"
NUM = 500


@pytest.mark.parametrize("rung", ["clean", "degraded", "control", "frozen", "joint"])
def test_weights_give_the_kept_predictions(rung, real_data):
    real_data("CIFAR10")
    images = datasets.CIFAR10Dataset(ROOT / "DS", train=False).images[:NUM]
    if rung in ("clean", "degraded"):
        upsampler = torch.nn.Identity() if rung == "clean" else NetSet.BicubicUpsampler(2)
        model = NetSet.MultiTaskNet(upsampler, runs.load_network("classifier"))
    else:
        model = runs.load_network(rung)
    seen = datasets.to_float(images if rung == "clean" else datasets.Fuzz(2)(images))
    restored, logits = training.predict(model, seen)
    kept = files.read_tensors(MULTI / rung / "test.pth")
    probability, prediction = logits.softmax(1).max(1)
    torch.testing.assert_close(probability, kept["probability"][:NUM], rtol=0, atol=2e-4)
    assert torch.equal(prediction.to(torch.uint8), kept["prediction"][:NUM])
    if rung != "clean":
        psnr_db = metrics.psnr(restored, datasets.to_float(images))
        torch.testing.assert_close(psnr_db, kept["psnr_db"][:NUM].to(psnr_db), rtol=0, atol=2e-3)


@pytest.mark.parametrize("model, task, method, scale", [("srnet_x2", "task1", "srnet", 2),
                                                        ("resshuffle_x4", "resshuffle_x4", "resshuffle", 4)])
def test_weights_give_the_kept_decibels(model, task, method, scale, real_data):
    test_set = datasets.SRTestSet(real_data("Set14"), scale)
    kept = json.loads((ROOT / "results" / task / "test_scores.json").read_text())[f"Set14 {method}"]["scores"]
    network = runs.load_network(model)
    for index in (1, 2):  # a photograph, and the one that is stored gray
        lr_img, hr_img = test_set.pair(index)
        truth = datasets.to_float(hr_img)[None, : 1 if sr.is_stored_grey(test_set.hr[index]) else 3]
        sr_img = datasets.to_float(upscale.upscale(network, lr_img))[None]
        found = metrics.evaluate(sr_img, truth, "literature", scale)["psnr_db"].item()
        row = kept["image"].index(test_set.names[index])
        assert found == pytest.approx(kept["psnr_db"][row], abs=1e-3)


def test_weights_give_the_kept_colors(real_data):
    real_data("CIFAR10")
    kept = files.read_tensors(ROOT / "results" / "colorization" / "test.pth")
    images = datasets.to_float(datasets.CIFAR10Dataset(ROOT / "DS", train=False).images[:100])
    colored = (images - datasets.grey(images)).abs().amax((1, 2, 3)) > 0.5 / 255
    grey = metrics.quantize(datasets.grey(images[colored]))
    found = metrics.quantize(training.predict(runs.load_network("colorize"), grey))
    psnr_db = metrics.psnr(found, images[colored])
    wanted = kept["each"]["chroma"]["psnr_db"][: len(psnr_db)].to(psnr_db)
    torch.testing.assert_close(psnr_db, wanted, rtol=0, atol=2e-2)
