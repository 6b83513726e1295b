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

NUM = 1_000


@pytest.fixture
def images(real_data):
    real_data("CIFAR10")
    return datasets.CIFAR10Dataset(ROOT / "DS", train=False).images


def check(found, kept, atol):
    torch.testing.assert_close(found, kept[: len(found)].to(found), rtol=0, atol=atol)


@pytest.mark.parametrize("rung", ["clean", "degraded", "control", "frozen", "joint"])
def test_weights_give_the_kept_predictions(rung, images):
    images = images[:NUM]
    if rung in ("clean", "degraded"):
        upsampler = torch.nn.Identity() if rung == "clean" else NetSet.BicubicUpsampler(2)
        model = NetSet.MultiTaskNet(upsampler, runs.load_network("classifier"))
    else:
        model = runs.load_network(rung)
    seen = datasets.to_float(images if rung == "clean" else datasets.Fuzz(2)(images))
    restored, logits = training.predict(model, seen)
    kept = files.read_tensors(ROOT / "results" / "multi" / "seed0" / rung / "test.pth")
    probability, prediction = logits.softmax(1).max(1)
    check(probability, kept["probability"], 2e-4)
    check(prediction, kept["prediction"], 0)
    if rung != "clean":
        check(metrics.psnr(restored, datasets.to_float(images)), kept["psnr_db"], 2e-3)


@pytest.mark.parametrize("model, task, method, scale", [("srnet_x2", "task1", "srnet", 2),
                                                        ("resshuffle_x4", "resshuffle_x4", "resshuffle", 4)])
def test_weights_give_the_kept_decibels(model, task, method, scale, real_data):
    test_set = datasets.SRTestSet(real_data("Set14"), scale)
    kept = json.loads((ROOT / "results" / task / "test_scores.json").read_text())[f"Set14 {method}"]["scores"]
    network = runs.load_network(model)
    for index in (1, 2):  # a photograph, and the one that is stored gray
        lr_img, hr_img = test_set.pair(index)
        truth = datasets.to_float(hr_img)[None, : 1 if sr.is_stored_gray(test_set.hr[index]) else 3]
        sr_img = datasets.to_float(upscale.upscale(network, lr_img))[None]
        found = metrics.evaluate(sr_img, truth, "literature", scale)["psnr_db"].item()
        row = kept["image"].index(test_set.names[index])
        assert found == pytest.approx(kept["psnr_db"][row], abs=1e-3)


def test_weights_give_the_kept_colors(images):
    kept = files.read_tensors(ROOT / "results" / "colorization" / "test.pth")
    images = datasets.to_float(images[:100])
    colored = (images - datasets.gray(images)).abs().amax((1, 2, 3)) > 0.5 / 255
    gray = metrics.quantize(datasets.gray(images[colored]))
    found = metrics.quantize(training.predict(runs.load_network("colorize"), gray))
    check(metrics.psnr(found, images[colored]), kept["each"]["chroma"]["psnr_db"], 2e-2)


def test_weights_give_the_kept_restored_images(images):
    kept = files.read_tensors(ROOT / "results" / "joint_restoration" / "seed0" / "joint" / "test.pth")
    images = datasets.to_float(images)
    damaged, visible = (part[:100] for part in datasets.Damage()(images, "both"))  # drawn for all test images at once
    restored, logits = training.predict(runs.load_network("joint_restoration"), damaged)
    check(logits.argmax(1), kept["predicted"], 0)
    check(metrics.restoration_scores(restored, images[:100], visible)["psnr_db"], kept["psnr_db"], 2e-2)
