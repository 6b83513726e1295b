"""tables.py: the verdict follows the numbers, and both READMEs hold what results/ holds."""
import json
import re
import string
from pathlib import Path

import pytest

import tables

ROOT = Path(__file__).resolve().parent.parent
RUNGS = ["degraded", "cascade", "control", "frozen", "joint", "task_only", "distilled", "feature_loss", "clean"]
ARMS = ("task_only", "distilled", "feature_loss")


def study(vision=(2.0, 1.0, 3.0), whole=30.0, spread=None):
    """A study whose steps are chosen, in points."""
    points = {"degraded → joint": whole, "degraded → control": whole - vision[0], "degraded → cascade": 17.5,
              "control → frozen": 0.5, "frozen → joint": vision[0] - 0.5, "task_only → distilled": 0.33}  # fmt: skip
    points |= {f"joint → {arm}": 0.25 for arm in ARMS}
    steps = [{"step": step, "points": p, "low": p - 1, "high": p + 1, "lowest": p, "highest": p, "seed 0": p,
              "seeds": 1}
             for step, p in points.items()]  # fmt: skip
    vision = dict(zip(("points", "low", "high", "lowest", "highest"), (*vision, *(spread or vision[1:])), strict=True))
    steps.append({"step": "control → joint", **vision})
    summary = [
        {"rung": rung, "accuracy": 0.5 + k / 100, "seeds": 1 + 2 * (rung == "joint"), "lowest": 0.53, "highest": 0.55,
         "psnr_db": None if rung == "clean" else 26.0 + k, "ssim": 0.9}
        for k, rung in enumerate(RUNGS)
    ]  # fmt: skip
    return {"summary": summary, "differences": steps, "test_data": "CIFAR-10", "num_test": 10_000,
            "settings": {"num_epochs": 2, "steps_per_epoch": 40, "seeds": [0, 1, 2]}, "precision": {"joint": "bbb"}}


@pytest.mark.parametrize(
    "vision, verdict",
    [((2.0, 1.0, 3.0), "little"), ((9.0, 8.0, 10.0), "yes"), ((0.2, -0.3, 0.7), "unclear"), ((-2.0, -3.0, -1.0), "no")],
)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_verdict_follows_the_interval(vision, verdict, language):
    text = tables.finding(study(vision), language)
    assert text.startswith("**" + tables.WORDS[language][verdict])
    assert "54.0 %" in text and f" {30 - vision[0]:.1f}" in text and "**+0.50**" in text and "10,000" in text
    assert "**+17.50**" in text and " 80 " in text and "**" + tables.signed(vision[0] - 0.5) + "**" in text


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_finding_names_the_best_weight_of_the_pixel_loss(language):
    accuracies = {0.0: 0.841, 1.0: 0.842, 100.0: 0.85}
    tried = [{"lambda_sr": weight, "accuracy": accuracy} for weight, accuracy in accuracies.items()]
    with_sweep = study() | {"sweep": {"joint": tried, "frozen": {"accuracy": 0.845}}}
    with_sweep["settings"] |= {"lambda_sr": 1.0, "lambda_cls": 0.3, "num_valid": 5_000}
    text = tables.finding(with_sweep, language)
    best, ours, frozen = (text.index(number) for number in ("85.00 %", "84.20 %", "84.50 %"))
    assert text.index("λ = 100") < best < ours < frozen and text.count("\n\n") == 1
    assert len(re.findall(r"λ = 1\b", text)) == 2 and " 0.3" in text and "5,000" in text
    assert "λ" not in tables.finding(study(), language)


def test_both_editions_speak_of_the_same_values():
    def fields(words):
        if isinstance(words, dict):
            return {name: fields(text) for name, text in words.items()}
        return {name for _, name, _, _ in string.Formatter().parse(words) if name}

    assert fields(tables.CHINESE) == fields(tables.ENGLISH)


@pytest.mark.parametrize("gain, said", [
    ((0.5, 0.1, 0.9), "adds to that: **+0.50**"), ((-0.5, -0.9, -0.1), "takes from that, as SR4IR"),
    ((-0.5, -1.1, 0.1), "adds nothing measurable to that (on other data SR4IR"),
])  # fmt: skip
def test_joint_training_is_set_against_the_frozen_arm(gain, said):
    run = study((7.5, 6.5, 8.5))
    step = next(step for step in run["differences"] if step["step"] == "frozen → joint")
    step.update(zip(("points", "low", "high", "lowest", "highest"), (*gain, gain[0], gain[0]), strict=True))
    text = tables.finding(run)
    assert f"for 80 steps {said}" in text and "makes 25 % of the way" in text


def test_the_finding_says_with_how_many_seeds_the_further_arms_were_run():
    run = study()
    next(step for step in run["differences"] if step["step"] == "joint → distilled")["seed 0"] = -0.4
    for step in run["differences"]:
        step["seeds"] = 3
    assert "(n = 3 for each; at training seed 0 alone +0.25 / −0.40 / +0.25)" in tables.finding(run)
    assert "（均为 n = 3；只看训练种子 0，依次为 +0.25 / −0.40 / +0.25）" in tables.finding(run, "zh")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_finding_warns_where_the_further_arms_differ_in_precision(language):
    even, odd = ({"joint": "bbb"} | dict.fromkeys(ARMS, kinds) for kinds in ("bbb", "bff"))
    texts = [tables.finding(study() | {"precision": precision | {"control": "bbb", "frozen": "bbb"}}, language)
             for precision in (even, odd)]  # fmt: skip
    assert ["**+0.33**" in text for text in texts] == [False, True]
    assert "1, 2" in texts[1] or "1、2" in texts[1]


@pytest.mark.parametrize("kinds, said", [
    ({"joint": "bbb", "distilled": "b"}, ()), ({"joint": "ff", "distilled": "ff"}, ()),
    ({"joint": "bbb", "task_only": "bff", "distilled": "bff"}, ("1, 2", "task only, distilled (ours)", "f", "b")),
    ({"control": "fff", "joint": "fff", "task_only": "ffb"}, ("2", "task only", "b", "f")),
    ({"control": "f", "frozen": "b", "joint": "b"}, ("0", "**control**", "f", "b")),
])  # fmt: skip
def test_runs_of_another_precision_are_named(kinds, said):
    run = {"settings": {"seeds": [0, 1, 2]}, "precision": {arm: list(row) for arm, row in kinds.items()}}
    english, chinese = (tables.other_precision(run, language) for language in ("en", "zh"))
    assert bool(english) == bool(chinese) == bool(said)
    if said:
        seeds, arms, other, usual = said
        assert english.startswith(f" Training seeds {seeds} of {arms} ran in {other}, after an adaptation trained anew")
        assert f"all other training for the ladder was in {usual}." in english and f"其余训练均为 {usual}。" in chinese


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_finding_says_what_a_better_network_brings(language):
    better = {"points": 0.93, "low": 0.5, "high": 1.25, "psnr_db": 0.094}
    text = tables.finding(study() | {"cascade_longer": better}, language)
    assert text.index("**+0.50**") < text.index("**+0.93**") < text.index("+0.09 dB")
    assert " dB" not in tables.finding(study() | {"cascade_longer": {}}, language)


def test_what_was_trained_longer_has_rows_of_its_own():
    networks = ("srnet", "srnet_longer")
    columns = [("Set5", "literature"), ("Set14", "literature"), ("Set14", "seed")]
    summary = [{"set": name, "protocol": protocol, "method": method, "psnr_db": 30 + k, "ssim": 0.9}
               for k, method in enumerate((*networks, *(f"{n}, self-ensemble" for n in networks)))
               for name, protocol in columns]  # fmt: skip
    rows = tables.enlargement({"summary": summary}, "en").splitlines()[2:6]
    assert [row.split(" | ")[:2] for row in rows] == [
        ["| SRNet", "30.00 / 0.9000"], ["| SRNet, trained longer", "31.00 / 0.9000"],
        ["| SRNet, averaged over 8 flips and turns", "32.00 / 0.9000"],
        ["| SRNet, trained longer, averaged over 8 flips and turns", "33.00 / 0.9000"],
    ]  # fmt: skip


def test_no_way_has_no_shares():
    assert "of the way" in tables.finding(study()) and "of the way" not in tables.finding(study(whole=0.0))


def test_seeds_that_disagree_make_it_unclear():
    assert tables.finding(study((2.0, 1.0, 3.0), spread=(-0.1, 3.0))).startswith("**Not measurably")


@pytest.mark.parametrize("gain, said", [
    ((-15.0, -18.0, -12.0), "\n\n**Once the classifier has adapted, the gain turns into a loss elsewhere.** On 2"),
    ((15.0, 12.0, 18.0), "\n\n**The gain carries over.** On 2"), ((0.5, -1.0, 2.0), "\n\nOn 2 other"),
])  # fmt: skip
def test_other_degradations_are_counted_without_the_trained_one(gain, said):
    names = ["bicubic", "area", "blur"]
    other = {"control": dict(zip(names, [0.1, 0.7, 0.3], strict=True)), "frozen": dict.fromkeys(names, 0.5)}
    keys = ("points", "low", "high")
    gains = {"adapted": dict(zip(keys, gain, strict=True)), "untouched": dict(zip(keys, (8, 7, 9), strict=True))}
    text = tables.finding(study() | {"elsewhere": other, "elsewhere_gains": gains, "num_elsewhere": 500})
    assert said in text and "behind it in 1 of 2" in text and "500 pictures each" in text
    assert f"**{tables.signed(gain[0])}** (" in text and "**+8.00** (+7.00 to +9.00)" in text
    assert ("The gain carries over" in text, "turns into a loss" in text) == (gain[0] > 1, gain[0] < -1)


@pytest.mark.parametrize("value, text", [(0.504, "+0.50"), (-0.25, "−0.25"), (-0.004, "0.00"), (0.0, "0.00")])
def test_signs(value, text):
    assert tables.signed(value) == text


def test_an_interval_in_points():
    points = tables.in_points((0.015, -0.0025, 0.03))
    assert points == {"points": 1.5, "low": -0.25, "high": 3.0}
    assert tables.interval(points, "en") == "**+1.50** (−0.25 to +3.00)"


def test_the_ladder_by_hand():
    rows = tables.ladder(study(), "en").splitlines()
    assert len(rows) == 2 + len(RUNGS)
    assert rows[0].startswith("| rung | accuracy, 10,000 of CIFAR-10 (%) | n |")
    assert rows[6] == "| joint | 54.00 | 3 | 53.00 – 55.00 | 30.00 | 0.9000 | 80.95 |"
    assert rows[4] == "| **control** | 52.00 | 1 | – | 28.00 | 0.9000 | – |"
    assert rows[-1] == "| clean (ceiling) | 58.00 | 1 | – | – | 0.9000 | 84.80 |"


def test_the_table_at_x4_by_hand():
    scores = {"psnr_db": 27.126, "ssim": 0.75, "niqe": 6.0}
    methods = ("nearest", "bicubic", "srresnet", "srgan")
    srgan = [{"set": name, "method": method, **scores} for name in ("Set5", "Set14") for method in methods]
    truth = {"method": "truth", "psnr_db": None, "ssim": None, "niqe": 3.0}
    srgan += [{"set": name, **truth} for name in ("Set5", "Set14")]
    others = [{"protocol": protocol, "set": name, "method": "resshuffle", "psnr_db": 20 + k, "ssim": 0.8}
              for k, protocol in enumerate(("literature", "rgb")) for name in ("Set5", "Set14")]  # fmt: skip
    rows = tables.enlargement_x4({"summary": srgan}, {"summary": others}, "en").splitlines()
    assert rows[5] == "| ResShuffle | 20.00 / 0.8000 / – | 20.00 / 0.8000 / – |"
    assert rows[6] == "| SRGAN | 27.13 / 0.7500 / 6.00 | 27.13 / 0.7500 / 6.00 |"
    assert rows[7] == "| the originals | – / – / 3.00 | – / – / 3.00 |"
    assert rows[-1] == "| *EDSR-baseline (1.5 M)* | *32.09 / 0.8936 / –* | *28.58 / 0.7804 / –* |"


@pytest.mark.parametrize("low, high, by_seed, said", [
    (0.1, 0.9, [0.2, 0.8], "helps"), (-0.9, -0.1, [-0.5], "harms"), (-0.1, 0.9, [0.2, 0.8], "neither"),
    (0.1, 0.9, [-0.1, 1.1], "neither"), (-0.9, -0.1, [0.0, -1.0], "neither"),
])  # fmt: skip
def test_a_direction_needs_the_interval_and_every_seed(low, high, by_seed, said):
    assert tables.direction(low, high, by_seed, difference=0.5) == said


def joint_run(by_seed=((0.25, 0.75), (-2.5, -3.25))):
    arms = {"untouched": (None, 16.0), "classify": (0.75, None), "restore": (None, 26.0), "joint": (0.755, 23.126),
            "separate": (0.75, 25.5)}  # fmt: skip
    summary = [
        {"damage": damage, "arm": arm, "accuracy": accuracy, "psnr_db": psnr_db and psnr_db + 2 * (damage == "noise"),
         "inside": psnr_db and psnr_db - 5}
        for damage in ("both", "noise") for arm, (accuracy, psnr_db) in arms.items()
    ]  # fmt: skip
    differences = {"accuracy": {"difference": 0.5, "low": -0.25, "high": 1.25, "by_seed": by_seed[0]},
                   "psnr_db": {"difference": -2.876, "low": -2.95, "high": -2.75, "by_seed": by_seed[1]}}  # fmt: skip
    settings = {"sigma": 0.1, "hole": 8, "seeds": [0, 1][: len(by_seed[0])], "num_epochs": 8, "steps_per_epoch": 175,
                "batch_size": 100, "lambda_restore": 0.1, "num_valid": 5_000}  # fmt: skip
    return {"summary": summary, "differences": differences, "settings": settings, "test_data": "CIFAR-10",
            "num_test": 10_000, "precision": ["bfloat16", "float32"][: len(by_seed[0])]}  # fmt: skip


TRIED = {name: {"psnr_db_valid": psnr_db, "accuracy_valid": accuracy} for name, psnr_db, accuracy in (
    ("classify", 16.0, 0.74), ("restore", 26.5, 0.1), ("separate", 26.4, 0.74), (0.1, 23.0, 0.75), (10.0, 25.0, 0.745)
)}  # fmt: skip


@pytest.mark.parametrize("language", ["en", "zh"])
def test_joint_restoration_by_hand(language):
    text, table, note = tables.joint_restoration(joint_run(), language, TRIED).split("\n\n")
    words, rows = tables.WORDS[language], table.splitlines()
    assert 0 < text.index(words["neither"]) < text.index(words["harms"])  # accuracy first
    assert "+0.25, +0.75" in text and "**−2.88**" in text and "λ = 0.1" in text
    assert " 2 " in text and "λ = 10 " in text and "25.00 dB" in text and "74.5 %" in text and "74.0 %" in text
    assert "±1.2" in text  # 1.96 √(0.74 · 0.26 / 5000)
    assert rows[2].endswith(" | – | 16.00 | 11.00 | 18.00 |") and rows[3].endswith(" | 75.00 | – | – | – |")
    assert rows[5].endswith(" | 75.50 | 23.13 | 18.13 | 25.13 |")
    assert rows[-2].endswith(" | 92.1 | 28.5 | – | – |") and rows[-1].endswith(" | 93.8 | 30.2 | – | – |")
    assert "1,400" in note and "n = 2" in note


def test_the_sweep_is_read_by_its_folders(tmp_path):
    for k, name in enumerate(("classify", "joint", "lambda_0.01", "lambda_10")):
        folder = tmp_path / "joint_restoration" / "seed0" / name
        folder.mkdir(parents=True)
        content = {"settings": {"lambda_restore": 0.1}, "validation": {"psnr_db_valid": k}}  # the setting is the arms'
        (folder / "run.json").write_text(json.dumps(content | {"finished": True}))
    unfinished = tmp_path / "joint_restoration" / "seed0" / "lambda_1"
    unfinished.mkdir()
    (unfinished / "run.json").write_text(json.dumps({"settings": {"lambda_restore": 0.1}, "finished": False}))
    found = {name: scores["psnr_db_valid"] for name, scores in tables.sweep(tmp_path).items()}
    assert found == {"classify": 0, 0.1: 1, 0.01: 2, 10: 3}


def test_one_seed_is_not_listed():
    gain = {"difference": 0.5, "low": -0.25, "high": 1.25}
    assert tables.amount(gain | {"by_seed": [0.5]}) == "**+0.50** (−0.25 to +1.25)"
    assert tables.amount(gain | {"by_seed": [0.2, 0.8]}) == "**+0.50** (−0.25 to +1.25; seed by seed +0.20, +0.80)"
    assert "n = 1 (in bfloat16)," in tables.joint_restoration(joint_run(((0.5,), (-2.876,))), "en", TRIED)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_colorization_by_hand(language):
    methods = {"grey": 24.25, "mse": 23.0, "perceptual": 24.5, "regularised": 24.0, "fast": 25.0, "slow": 10.0,
               "unet": 26.0, "chroma": 26.126, "truth": None}  # fmt: skip
    pooled = dict.fromkeys(methods, 20.0) | {"grey": 22.12, "slow": 22.2}
    summary = [{"method": method, "PSNR (dB)": psnr_db, "pooled PSNR (dB)": pooled[method], "SSIM": 0.9,
                "chroma error": 15.26, "accuracy (%)": 83.0 + k}
               for k, (method, psnr_db) in enumerate(methods.items())]  # fmt: skip
    run = {"summary": summary, "num_test": 9_894, "test_data": "CIFAR-10", "data": {"features": "ClassifyNet, phi"},
           "settings": {"num_epochs": 10, "steps_per_epoch": 80}}  # fmt: skip
    text, table, note = tables.colorization(run, language).split("\n\n")
    assert " 2 " in text and "24.25 dB" in text and "**26.13 dB**" in text and "**90.0 %**" in text
    assert re.search(r"22\.12 dB\D*1\b", text)
    rows = table.splitlines()
    assert len(rows) == 2 + len(methods) and rows[2].endswith(" | 24.25 | 0.9000 | 15.3 | 83.0 |")
    assert rows[-1].endswith(" | – | 0.9000 | 15.3 | 91.0 |")
    assert "800" in note and "9,894" in note and "ClassifyNet" in note and "phi" not in note


def test_a_missing_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="the notebook of multi"):
        tables.section("en", tmp_path)


def test_faults_and_speed_by_hand(tmp_path):
    (tmp_path / "faults.json").write_text(json.dumps({"faults": {"kills": {"tried": 20, "survived": 19}}}))
    assert tables.reliability("en", tmp_path).splitlines()[2].endswith("the same bits | 20 | 19 |")
    rows = [{"what": "ssim", "against": "piq", "ratio": 3.14159, "target": 2.0},
            {"what": "psnr", "against": "skimage", "ratio": 0.5, "target": 1.0},
            {"what": "enlarge", "against": "whole", "ratio": 0.9, "target": None}]  # fmt: skip
    epochs = [{"name": "clean", "accuracy": 84.8, "epochs": {"ours": 7.04, "seed 000": 100}}]
    bench = {"environment": {"device": "CPU, 2 threads", "torch": "2.15"}, "epochs": epochs, "rows": rows}
    (tmp_path / "bench.json").write_text(json.dumps(bench))
    lines = tables.speed("en", tmp_path).splitlines()
    assert lines[2:5] == [
        "| ssim | piq | 3.14 | 2 |", "| psnr | skimage | 0.50 | 1 (missed) |", "| enlarge | whole | 0.90 | – |"
    ]  # fmt: skip
    assert "84.80 % clean after 7.0 (the seed document: at the end of 100)" in lines[-1]


@pytest.mark.parametrize("edition, language", tables.EDITIONS.items())
@pytest.mark.parametrize("mark", tables.SECTIONS)
def test_readme_holds_the_results_of_results(edition, language, mark):
    text = (ROOT / edition).read_text(encoding="utf-8")
    between = re.search(tables.MARKERS.format(mark).replace(".*?", "(.*)"), text, re.S)
    if between is None:
        kept = {"reliability": "faults.json", "speed": "bench.json"}[mark]
        assert not (ROOT / "results" / kept).exists(), f"README has no section for results/{kept}"
        return
    assert between[2] == tables.SECTIONS[mark](language), "run `python run.py table`"
