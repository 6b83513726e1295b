"""The tables of README.md, README.zh.md and docs/, written from results/ between their markers; a check of answers.

`python run.py table` writes the tables. An answer is written by hand, between <!-- answer --> and <!-- /answer --> in a
README or in a notebook's first cell (<!-- answer task --> where it is not the page's own task); every figure in it must
be one of its task's `figures`. Typed here are only the figures that the documents and papers report.
"""
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from metrics import signed
from tools import settings

ROOT = Path(__file__).resolve().parent.parent
FILES = {"README.md": "en", "README.zh.md": "zh", "docs/results.md": "en", "docs/reliability.md": "en",
         "docs/speed.md": "en"}  # fmt: skip

# --- what others report -----------------------------------------------------------------------------------------

COURSE = {"clean": 84.80, "degraded": 47.26, "joint": 80.95, "psnr_db": 28.80, "ssim": 0.8691}  # the course document
JOINT_DOCUMENT = {"apart": (92.1, 28.5), "joint": (93.8, 30.2)}  # accuracy (%), PSNR (dB); noise and mask not stated
PUBLISHED_X2 = {  # luma, border of 2: PSNR (dB), SSIM on Set5, Set14, B100
    "bicubic": ((33.66, 0.9299), (30.24, 0.8688), (29.56, 0.8431)),
    "SRCNN (57 K)": ((36.66, 0.9542), (32.42, 0.9063), (31.36, 0.8879)),
    "VDSR (665 K)": ((37.53, 0.9587), (33.03, 0.9124), (31.90, 0.8960)),
    "EDSR-baseline (1.37 M)": ((37.98, 0.9604), (33.57, 0.9174), (32.15, 0.8993)),
    "EDSR (40.7 M)": ((38.11, 0.9601), (33.92, 0.9195), (32.32, 0.9013)),
    "SwinIR (11.8 M)": ((38.35, 0.9620), (34.14, 0.9227), (32.44, 0.9030)),
}
PUBLISHED_X4 = {  # luma, border of 4
    "bicubic": ((28.42, 0.8104), (26.00, 0.7027), (25.96, 0.6675)),
    "SRResNet (1.5 M)": ((32.05, None), (28.49, None), (27.58, None)),
    "SRGAN (1.5 M)": ((29.40, None), (26.02, None), (25.16, None)),
    "EDSR-baseline (1.52 M)": ((32.09, 0.8936), (28.58, 0.7804), (27.56, 0.7354)),
    "SwinIR (11.9 M)": ((32.72, 0.9021), (28.94, 0.7914), (27.83, 0.7459)),
}
TEST_SETS = ("Set5", "Set14", "B100")
CITED = {  # by answers, besides results
    "task1": {"course": COURSE, "papers": PUBLISHED_X2}, "resshuffle_x4": {"papers": PUBLISHED_X4},
    "srgan_x4": {"papers": PUBLISHED_X4, "steps in the paper": 200_000}, "joint_restoration": {"λ": (0.1, 10)},
}  # fmt: skip

# --- figures of the answers -------------------------------------------------------------------------------------

DIFFERENCES = (  # which answers state: the task, and two names of its `figures`
    ("task2", "summary clean", "summary degraded"),
    ("srgan_x4", "summary literature Set14 srgan psnr_db", "summary literature Set14 srresnet psnr_db"),
    ("resshuffle_x4", "summary literature Set14 resshuffle psnr_db", "papers EDSR-baseline (1.52 M) 1 0"),
    ("resshuffle_x4", "summary literature B100 resshuffle psnr_db", "papers EDSR-baseline (1.52 M) 2 0"),
    ("resshuffle_x4", "summary literature Set14 bicubic psnr_db", "papers bicubic 1 0"),  # the gray image, read as RGB
    ("colorization", "summary perceptual psnr_db", "summary mse psnr_db"),
    ("colorization", "summary regularized psnr_db", "summary perceptual psnr_db"),
)


def read(task: str, results: str | Path = ROOT / "results") -> dict:
    """The run.json of a study run. Raises FileNotFoundError where it has no results."""
    path = Path(results) / task / "run.json"
    run = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if "summary" not in run:
        raise FileNotFoundError(f"No results are in {path}: run {settings.NOTEBOOKS.get(task, task)} first.")
    return run


def figures(task: str, results: str | Path = ROOT / "results") -> dict[str, float]:
    """Every number that an answer on the task may state: what its run.json reports, named by the way to it ("summary
    frozen accuracy"; fractions in percent), what is `CITED`, and `DIFFERENCES`.
    """
    run, found = read(task, results), {"side of an image": 32, "downsampled": 16, "level of intervals, %": 95}

    def collect(part, name: str) -> None:
        if isinstance(part, Mapping):
            name = " ".join([name, *(text for text in part.values() if isinstance(text, str))])
            for key, value in part.items():
                collect(value, f"{name} {key}")
        elif isinstance(part, (list, tuple)):
            for k, value in enumerate(part):
                collect(value, name if isinstance(value, Mapping) else f"{name} {k}")
        elif isinstance(part, (int, float)):
            is_fraction = abs(part) <= 1 and re.search("accuracy$|share$|^unseen |^summary (clean|degraded)", name)
            found[name] = 100 * part if is_fraction else part

    for key in run.keys() - {"settings", "identity", "environment", "data", "validation", "sweep", "finished"}:
        collect(run[key], key)
    for key, part in CITED.get(task, {}).items():
        collect(part, key)
    if task == "srgan_x4":
        s = run["settings"]
        found["steps of the generator"] = (s["num_epochs"] - s["discriminator_epochs"]) * s["steps_per_epoch"]
    return found | {f"{one} − {other}": found[one] - found[other] for owner, one, other in DIFFERENCES if owner == task}


def unsupported(text: str, known: Mapping[str, float]) -> list[str]:
    """The numbers in a text that are none of the known ones, rounded as printed. A sign must agree where there is one.
    Left out: parts of names (CIFAR-10, Set14, L1), factors (×4), code and links.
    """
    text = re.sub(r"`[^`]*`|\]\([^)]*\)|<[^>]*>|[×x]\d+", " ", text)
    found = re.findall(r"(?<![A-Za-z0-9.,-])([+−-]?)(\d+(?:,\d{3})*(?:\.\d+)?)(?![A-Za-z0-9])", text)
    missing = []
    for sign, digits in found:
        places = len(digits.partition(".")[2])
        printed = {f"{value:+.{places}f}" if sign else f"{abs(value):.{places}f}" for value in known.values()}
        if sign.replace("−", "-") + digits.replace(",", "") not in printed:
            missing.append(sign + digits)
    return missing


def answers(name: str) -> Iterable[tuple[str, str]]:
    """(task, text) of each answer in a README or in a notebook's first cell."""
    text, own = (ROOT / name).read_text(encoding="utf-8"), "multi"
    if name.endswith(".ipynb"):
        text = "".join(json.loads(text)["cells"][0]["source"])
        own = next(task for task, notebook in settings.NOTEBOOKS.items() if notebook == name)
    return [(task or own, body) for task, body in re.findall(r"<!-- answer ?(\w*) -->(.*?)<!-- /answer", text, re.S)]


# --- tables -----------------------------------------------------------------------------------------------------

WORDS = {  # what is not its own name with spaces; Chinese falls back on English
    "en": {
        "clean": "clean (ceiling)", "degraded": "degraded (floor)", "control": "**control**", "frozen": "**frozen**",
        "control_distilled": "control, distilled", "frozen_distilled": "frozen, distilled",
        "srnet": "**SRNet**", "srresnet": "SRResNet", "resshuffle": "**ResShuffle**", "srgan": "SRGAN",
        "truth": "originals", "course": "course document", "sees": "the classifier sees", "accuracy": "accuracy (%)",
        "over": "over the control (points)", "luma": "{}, luma", "reference": "Set14, RGB",
        "optimizer": "optimizer, rate", "super-resolution": "1a super-resolution", "method": "PSNR (dB) / SSIM",
        "classification": "1b classification", "adaptation": "2 adaptation (ours alone)",
        "joint stage": "3 joint fine-tuning", "downsampled": "CIFAR-10 at 16×16", "32×32, clean": "32×32",
        "upsampled": "CIFAR-10 at 16×16, upsampled",
        "16×16 → SRNet's layers, fine-tuned": "16×16 → SRNet's layers, no photographs",
    },
    "zh": {
        "clean": "清晰（上限）", "degraded": "退化（下限）", "cascade": "级联", "control": "**对照组**",
        "capacity": "等容量组", "frozen": "**冻结组**", "joint": "联合组", "task_only": "仅任务损失",
        "distilled": "蒸馏", "feature_loss": "特征损失", "control_distilled": "对照组，蒸馏", "scratch": "从头训练",
        "frozen_distilled": "冻结组，蒸馏", "nearest": "最近邻", "bicubic": "双三次", "truth": "原图",
        "course": "课题原文", "rung": "组别", "sees": "分类器的输入", "accuracy": "准确率（%）", "luma": "{}，亮度",
        "over": "与对照组之差（百分点）", "reference": "Set14，RGB", "stage": "阶段", "data": "数据", "loss": "损失",
        "optimizer": "优化器，学习率", "epochs": "轮数", "batch": "批大小", "ours": "本项目", "photographs": "照片",
        "super-resolution": "1a 超分辨率", "classification": "1b 分类", "adaptation": "2 适应（本项目新增）",
        "joint stage": "3 联合微调", "downsampled": "16×16 的 CIFAR-10", "upsampled": "16×16 的 CIFAR-10，上采样后",
        "CE + smoothing": "CE + 标签平滑", "L1 + CE + smoothing": "L1 + CE + 标签平滑",
        "16×16 → bicubic": "16×16 → 双三次", "16×16 → SRNet, fine-tuned": "16×16 → SRNet，微调",
        "16×16 → SRNet's layers, fine-tuned": "16×16 → 与 SRNet 同结构，未用照片训练",
    },
}  # fmt: skip


def word(language: str, name: str) -> str:
    """What a table calls it; a name that WORDS lacks, such as that of a new arm, stands for itself."""
    return WORDS[language].get(name) or WORDS["en"].get(name, name.replace("_", " "))


def markdown(heads: list[str], rows: list[list[str]], num_text: int = 1) -> str:
    """A Markdown table, its first `num_text` columns left aligned and the others right."""
    lines = [heads, [":--"] * num_text + ["--:"] * (len(heads) - num_text), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def fixed(value: float | None, digits: int = 2) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def pair(row: Mapping | tuple | None) -> str:
    """"32.42 / 0.9063" on one line, a dash for what has no value."""
    psnr_db, ssim = (row["psnr_db"], row["ssim"]) if isinstance(row, Mapping) else row or (None, None)
    return "–" if psnr_db is None else f"{psnr_db:.2f}\u00a0/\u00a0{fixed(ssim, 4)}"


def spread(row: Mapping) -> str:
    """A difference in points with its interval: "+0.97 (+0.56, +1.38)"."""
    return "{} ({},\u00a0{})".format(*(signed(row[end]) for end in ("points", "low", "high")))


def ladder_table(language: str = "en", results: str | Path = ROOT / "results") -> str:
    """The rungs: accuracy, difference to the control with its interval, cost, PSNR, the course document's figures."""
    run = read("multi", results)
    over = {row["rung"]: spread(row) for row in run["over_control"]}
    rows = [[word(language, row["rung"]), word(language, row["image"]), f"{100 * row['accuracy']:.2f}", row["seeds"],
             over.get(row["rung"], "–"), fixed(row["gflop"]), fixed(row["psnr_db"]), fixed(COURSE.get(row["rung"]))]
            for row in run["summary"]]  # fmt: skip
    heads = [word(language, name) for name in ("rung", "sees", "accuracy", "n", "over", "GFLOP", "PSNR (dB)", "course")]
    return markdown(heads, rows, num_text=2)


def sr_table(summary: list[dict], published: Mapping, language: str = "en", course: bool = False) -> str:
    """Methods by test sets: PSNR / SSIM on luma (and NIQE of Set14 and B100 where it was measured), then the published
    rows; Set14 in RGB, by the course document's protocol, where that was measured. course: with the document's row.
    """
    luma, other = ({(row["set"], row["method"]): row for row in summary if row.get("protocol", "literature") == kind}
                   for kind in ("literature", "reference"))  # fmt: skip
    sets = list(dict.fromkeys(name for name, _ in luma))
    reference = ("Set14", "bicubic") in other
    with_niqe = [name for name in ("Set14", "B100") if luma.get((name, "bicubic"), {}).get("niqe")]
    heads = [word(language, "method"), *(word(language, "luma").format(name) for name in sets)]
    heads += [word(language, "reference")] * reference + [f"{' / '.join(with_niqe)} NIQE"] * bool(with_niqe)
    rows = []
    for method in dict.fromkeys(row["method"] for row in summary):
        row = [word(language, method), *(pair(luma.get((name, method))) for name in sets)]
        row += [pair(other.get(("Set14", method)))] * reference
        niqe = [fixed(luma[name, method]["niqe"]) for name in with_niqe if luma.get((name, method), {}).get("niqe")]
        rows.append([*row, *["\u00a0/\u00a0".join(niqe) or "–"] * bool(with_niqe)])
    empty = ["–"] * (reference + bool(with_niqe))
    for name, values in published.items():
        known = dict(zip(TEST_SETS, values, strict=True))
        rows.append([f"*{name}*", *("–" if one not in known else f"*{pair(known[one])}*" for one in sets), *empty])
    if course and reference:
        rows.append([word(language, "course"), *["–"] * len(sets), pair((COURSE["psnr_db"], COURSE["ssim"]))])
    return markdown(heads, rows)


def x4_table(language: str = "en", results: str | Path = ROOT / "results") -> str:
    """SRGAN's run and ResShuffle's in one table, methods in order."""
    srgan, resshuffle = (read(task, results)["summary"] for task in ("srgan_x4", "resshuffle_x4"))
    order = ("nearest", "bicubic", "srresnet", "resshuffle", "srgan", "truth")
    rows = {(row["set"], row["method"]): row for row in resshuffle + srgan if row["protocol"] == "literature"}
    summary = sorted(rows.values(), key=lambda row: (TEST_SETS.index(row["set"]), order.index(row["method"])))
    return sr_table(summary, PUBLISHED_X4, language)


def stage_table(language: str = "en", results: str | Path = ROOT / "results") -> str:
    """The three stages, the course document's settings and ours: data, loss, optimizer, rate, epochs, batch."""
    reference, study = ({task: settings.choose(task, profile) for task in ("task1", "task2", "multi")}
                        for profile in ("reference", "study"))  # fmt: skip
    rate = study["task2"].learning_rate * study["multi"].adapt_rate
    adapt = settings.choose("task2", "study", {"num_epochs": study["multi"].adapt_epochs, "learning_rate": rate})
    stages = [("super-resolution", "course", "photographs", "L1", reference["task1"]),
              ("super-resolution", "ours", "photographs", "L1 + 0.1 (1 − SSIM)", study["task1"]),
              ("classification", "course", "CIFAR-10", "CE", reference["task2"]),
              ("classification", "ours", "CIFAR-10", "CE + smoothing", study["task2"]),
              ("adaptation", "ours", "upsampled", "CE + smoothing", adapt),
              ("joint stage", "course", "downsampled", "L1 + CE", reference["multi"]),
              ("joint stage", "ours", "downsampled", "L1 + CE + smoothing", study["multi"])]  # fmt: skip
    names, rows = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD", "muon": "Muon"}, []
    for *texts, s in stages:
        schedule = {"constant": "", "step": "\u00a0↓", "one_cycle": "\u00a0↑↓"}[s.schedule]  # kept on one line
        rows.append([*(word(language, text) for text in texts), f"{names[s.optimizer]} {s.learning_rate:g}{schedule}",
                     f"{s.num_epochs}\u00a0×\u00a0{s.steps_per_epoch}", s.batch_size])  # fmt: skip
    stage, *others = (word(language, name) for name in ("stage", "data", "loss", "optimizer", "epochs", "batch"))
    return markdown([stage, "", *others], rows, num_text=5)


def views_table(language: str = "en", results: str | Path = ROOT / "results") -> str:
    """Accuracy and cost by the number of views, then differences at equal views and at equal cost."""
    run = read("multi", results)
    cells = {(row["arm"], row["views"]): f"{100 * row['accuracy']:.2f} ({row['gflop']:.2f})" for row in run["views"]}
    arms, views = (list(dict.fromkeys(part)) for part in zip(*cells, strict=True))
    rows = [[arm, *(cells[arm, number] for number in views)] for arm in arms]
    rows += [[f"frozen − control: {name}", spread(row), *[""] * (len(views) - 1)]
             for name, row in run["views_compared"].items()]  # fmt: skip
    return markdown(["accuracy in % (GFLOP per image)", *(f"views: {number}" for number in views)], rows)


def labels_table(language: str = "en", results: str | Path = ROOT / "results") -> str:
    ways = ("degraded", "cascade", "control", "frozen", "clean")
    rows = [[f"{row['labels']:,}", len(row["by_seed"]), *(f"{row[way]:.2f}" for way in ways), spread(row),
             row["covers"], f"{row['regained']:.0f}"]
            for row in read("multi", results)["labels"].values()]  # fmt: skip
    return markdown(["labels", "n", *ways, "frozen − control (points)", "interval over", "regained (%)"], rows)


def lengths_table(language: str = "en", results: str | Path = ROOT / "results") -> str:
    rows = [[epochs, " / ".join(map(signed, gaps)), signed(sum(gaps) / len(gaps))]
            for epochs, gaps in read("multi", results)["gaps"].items()]  # fmt: skip
    return markdown(["epochs of adaptation", "frozen − control by seed (points, validation)", "mean"], rows)


def angles_table(language: str = "en", results: str | Path = ROOT / "results") -> str:
    rows = []
    for rung, parts in read("multi", results)["angles"].items():
        for part, found in parts.items():
            means = [sum(found[name]) / len(found[name]) for name in ("l1", "cross_entropy", "cosine")]
            rows.append([rung, part, f"{means[0]:.2f}", f"{means[1]:.1f}", signed(means[2]),
                         f"{signed(min(found['cosine']))} to {signed(max(found['cosine']))}",
                         signed(found["mean_cosine"][0])])  # fmt: skip
    heads = ["norm of L1's", "norm of cross-entropy's", "cosine by batch", "its range", "cosine of the means"]
    return markdown(["gradients at SRNet of", "images", *heads], rows, num_text=2)


def joint_table(language: str = "en", results: str | Path = ROOT / "results") -> str:
    names = {"classify": "classification alone, image untouched", "restore": "restoration alone",
             "joint": "joint, λ = 0.1", "joint_10": "joint, λ = 10", "separate": "nothing shared, λ = 0.1 (n = 1)"}
    scores = {(row["damage"], row["arm"]): row for row in read("joint_restoration", results)["summary"]}
    rows = []
    for arm in [arm for arm in names if ("both", arm) in scores]:
        both, noise = scores["both", arm], scores["noise", arm]
        percent = None if both["accuracy"] is None else 100 * both["accuracy"]
        rows.append([names[arm], *map(fixed, (percent, both["psnr_db"], both["inside"], noise["psnr_db"]))])
    rows += [[f"*the document, {name}*", *(f"*{value}*" for value in values), "–", "–"]
             for name, values in JOINT_DOCUMENT.items()]  # fmt: skip
    return markdown(["noise and mask", "accuracy (%)", "PSNR (dB)", "in the mask (dB)", "noise alone (dB)"], rows)


def colorization_table(language: str = "en", results: str | Path = ROOT / "results") -> str:
    names = {"gray": "gray copy", "mse": "1: MSE", "perceptual": "2: + perceptual", "regularized": "3, 5: + L1 and L2",
             "fast": "4: rate 1e-3", "slow": "6: rate 1e-5", "unet": "three colors, our recipe",
             "chroma": "**chroma alone, our recipe**", "truth": "true colors"}  # fmt: skip
    digits = {"psnr_db": 2, "ssim": 4, "chroma_error": 1, "colorfulness": 1, "accuracy": 1}
    found = {row["method"]: row for row in read("colorization", results)["summary"]}
    rows = [[name, *(fixed(found[key][score], digits[score]) for score in digits)] for key, name in names.items()]
    return markdown(["method", "PSNR (dB)", "SSIM", "chroma error", "colorfulness", "accuracy (%)"], rows)


FAULTS = {
    "kills": "training killed at a random moment, resumed to the same bits",
    "damaged files": "a byte changed or the end cut off in a file of a run: an error in one sentence, or the same run",
    "fuzzed images": "broken image files: an image, or an error in one sentence",
}


def faults_table(language: str = "en", results: str | Path = ROOT / "results") -> str:
    faults = json.loads((Path(results) / "faults.json").read_text(encoding="utf-8"))["faults"]
    return markdown(["fault", "tried", "survived"],
                    [[FAULTS[name], f"{count['tried']:,}", f"{count['survived']:,}"]
                     for name, count in faults.items()])  # fmt: skip


def bench_table(language: str = "en", results: str | Path = ROOT / "results") -> str:
    rows = []
    for row in json.loads((Path(results) / "bench.json").read_text(encoding="utf-8"))["rows"]:
        missed = " (missed)" if row["target"] is not None and row["ratio"] < row["target"] else ""
        memory = " against ".join(f"{value:.1f} GB" for value in row.get("peak memory (GB)", {}).values())
        target = "–" if row["target"] is None else f"{row['target']:g}{missed}"
        what = row["what"] + (f" (peak memory {memory})" if memory else "")
        rows.append([what, row["against"], fixed(row["ratio"]), target])
    return markdown(["what", "against", "times as fast", "target"], rows, num_text=2)


SECTIONS = {  # by the name of their markers, <!-- name --> ... <!-- /name -->
    "x2": lambda language, results: sr_table(read("task1", results)["summary"], PUBLISHED_X2, language, course=True),
    "ladder": ladder_table, "views": views_table, "labels": labels_table, "lengths": lengths_table,
    "angles": angles_table, "x4": x4_table, "stages": stage_table, "joint restoration": joint_table,
    "colorization": colorization_table, "faults": faults_table, "bench": bench_table,
}  # fmt: skip


def filled(text: str, language: str, results: str | Path = ROOT / "results") -> str:
    """A document with the tables between its markers made anew."""
    for name in re.findall(r"<!-- /(.+?) -->", text):
        if not name.startswith("answer"):
            made = SECTIONS[name](language, results)
            markers = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.S)
            text = markers.sub(lambda match, made=made: f"{match[1]}{made}\n{match[2]}", text)
    return text


def main(_args: list[str]) -> int:
    for name, language in FILES.items():
        path = ROOT / name
        path.write_text(filled(path.read_text(encoding="utf-8"), language), encoding="utf-8")
        print(f"{name}: tables written")
    return 0
