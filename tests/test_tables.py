"""What results/ ships: the written answers hold, the documents show its numbers, its weights give what is kept."""
import json
import re
import subprocess

import pytest
import torch

import datasets
import ladder
import metrics
import NetSet
import training
from tools import files, notebooks, runs, settings, sr, tables, upscale

from .conftest import ROOT, write_run


def test_the_answer_on_the_ladder_holds():
    info = tables.read("multi")
    rows = {row["comparison"]: row for row in info["comparisons"]}
    gain = rows["control → frozen"]
    assert gain["low"] > 0 and min(gain["by_seed"]) > 0 and len(gain["by_seed"]) == 3, "it helps"
    for nothing in ("frozen → joint", "control → capacity"):
        assert rows[nothing]["low"] < 0 < rows[nothing]["high"], nothing
    assert info["unseen_comparisons"]["control → frozen"]["high"] < 0, "it costs on unseen degradations"


def test_the_answers_of_the_studies_hold():
    srgan = {row["method"]: row for row in tables.read("srgan_x4")["summary"] if row["set"] == "Set14"}
    assert all(srgan["srgan"][score] < srgan["srresnet"][score] for score in ("psnr_db", "niqe"))
    colors = {row["method"]: row for row in tables.read("colorization")["summary"]}
    assert colors["chroma"]["psnr_db"] > colors["gray"]["psnr_db"]
    assert colors["truth"]["accuracy"] > colors["chroma"]["accuracy"] > colors["gray"]["accuracy"]
    joint = tables.read("joint_restoration")["differences"]
    for arm in ("joint", "joint_10"):
        assert joint[arm]["accuracy"][1] < 0 and joint[arm]["psnr_db"][2] < 0, "neither task helps the other"


@pytest.mark.parametrize("name, language", tables.FILES.items())
def test_documents_show_what_results_holds(name, language):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert re.search("<!-- /", text) and tables.filled(text, language) == text, "run `python run.py table`"


@pytest.mark.parametrize("name", ["README.md", "README.zh.md", *settings.NOTEBOOKS.values()])
def test_every_number_of_an_answer_is_in_results(name):
    found = tables.answers(name)
    assert name.endswith(".ipynb") or found[0][0] == "multi"
    for task, text in found:
        assert tables.unsupported(text, tables.figures(task)) == [], (task, "none of tables.figures")


def test_a_number_is_compared_as_it_is_printed():
    known = {"accuracy": 87.2233, "gain": 0.9733, "loss": -5.656, "steps": 7000, "low": -0.09}
    right = "87.2 % and 87% (+0.97 points; −0.09), 5.7 of 7,000; CIFAR-10, Set14, ×4, `a 3`, [a](b/2.png), 约-0.1"
    assert tables.unsupported(right, known) == []
    wrong = "87.3 %, −0.97, +5.7, 7,001, 0.974, 共3个, (+0.09)"
    assert tables.unsupported(wrong, known) == ["87.3", "−0.97", "+5.7", "7,001", "0.974", "3", "+0.09"]


def test_a_setting_is_no_figure_of_an_answer(tmp_path):
    settings = {"num_epochs": 7.125}
    write_run(tmp_path / "task1", settings, identity={"settings": settings}, summary={"psnr_db": 31.5})
    assert 31.5 in tables.figures("task1", tmp_path).values()
    assert 7.125 not in tables.figures("task1", tmp_path).values()


def test_what_stands_between_markers_is_made_anew_and_nothing_else(tmp_path):
    text = "a\n<!-- stages -->\n{}\n<!-- /stages -->\n<!-- answer -->\nby hand\n<!-- /answer -->\n"
    assert tables.filled(text.format("old"), "en", tmp_path) == text.format(tables.stage_table())
    with pytest.raises(FileNotFoundError, match=r"run multi_learning\.ipynb first"):
        tables.filled("<!-- ladder -->\n<!-- /ladder -->", "en", tmp_path)
    assert set(ladder.ARMS) <= {*tables.WORDS["zh"]} and tables.word("zh", "my_arm") == "my arm"


def test_weights_load_anywhere_are_their_runs_and_small():
    listed = subprocess.run(["git", "ls-files", "-z", "results"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git repository")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name.endswith("model.pth")]
    for path in paths:
        state = torch.load(path, weights_only=True)  # no map_location: nothing in it needs a GPU
        assert all(value.isfinite().all() for value in state.values()), path
        assert runs.read_run(path.parent).info["weights"] == files.file_fingerprint(path), path
    assert len(paths) >= 10 and sum(path.stat().st_size for path in paths) < 70e6


@pytest.mark.parametrize("name", settings.NOTEBOOKS.values())
def test_a_committed_notebook_shows_the_study(name, real_data, tmp_path, capsys):
    """As a clone has it, with CIFAR-10, Set5 and Set14 and none of the training photographs: nothing in code, settings
    or degradation differs from what the runs in results/ were made by, and no answer that they keep is computed anew.
    """
    for part in ("CIFAR10", "Set5", "Set14"):
        (tmp_path / part).symlink_to(real_data(part))
    notebooks.run_cells(ROOT / name, {"data_root": str(tmp_path)}, until="training")
    said = capsys.readouterr().out
    assert "Profile study" in said and "differs from the study" not in said, said[-2000:]


NUM = 1_000  # test images for which kept answers are computed again


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
