"""The answers and tables of README.md, README.zh.md and docs/, written between their markers from results/.

`python run.py table` writes them. An answer is a text by hand whose figures are filled in here; typed are only the
figures that the documents and papers report.
"""
import json
import re
from collections.abc import Mapping
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

# --- answers ----------------------------------------------------------------------------------------------------

ANSWERS = {
    "multi": {
        "en": "**It helps, by about one point.** CIFAR-10 at 16×16: a classifier that has adapted to such images "
              "reaches {control:.1f} %; behind a super-resolution network it reaches {frozen:.1f} % ({gain} points), "
              "and training both networks together adds nothing measurable ({joint:.1f} %). Size alone does not bring "
              "the point: the same layers, fine-tuned as long but never trained for super-resolution, reach "
              "{capacity:.1f} %. Most of the way "
              "from {degraded:.1f} % back to the {clean:.1f} % of clean images is adaptation, and on eight "
              "degradations that no network saw in training, super-resolution costs {loss:.1f} points.",
        "zh": "**有帮助，约一个百分点**。CIFAR-10 图像下采样到 16×16 后，只让分类器适应这样的图像（对照组），准确率为 "
              "{control:.1f}%；在分类器之前接入超分辨率网络（冻结组），准确率为 {frozen:.1f}%（{gain} 个百分点）；"
              "再对两个网络做联合微调（联合组），没有可测的提高（{joint:.1f}%）。单靠更多的参数得不到这一提高："
              "结构相同、微调同样久、但未经超分辨率训练的网络（等容量组）为 {capacity:.1f}%。"
              "从退化图像的 {degraded:.1f}% 到清晰图像的 {clean:.1f}%，大部分差距由分类器的适应弥补；"
              "而在八种训练中从未见过的退化上，超分辨率反而使准确率下降 {loss:.1f} 个百分点。",
    },
    "task1": {
        "en": "On Set14, SRNet reaches **{srnet:.2f} dB** (luma) where bicubic interpolation reaches {bicubic:.2f} dB; "
              "VDSR, a network of a quarter of its size trained longer on other photographs, is at {vdsr:.2f} dB. "
              "The two are level: our reading of one grey image lifts our figure by a tenth of a decibel. By the "
              "course document's protocol SRNet reaches {ours:.2f} dB against the document's {course:.2f} dB.",
    },
    "task2": {
        "en": "ClassifyNet classifies **{clean:.1f} %** of the clean CIFAR-10 test images correctly, and "
              "**{degraded:.1f} %** of the same images downsampled to 16×16 and upsampled by bicubic interpolation. "
              "These {lost:.1f} points are the most that restoration and adaptation can win back.",
    },
    "srgan_x4": {
        "en": "Trained against a discriminator, SRResNet loses {cost:.2f} dB on Set14 ({srresnet:.2f} to "
              "**{srgan:.2f} dB**) and gains texture: NIQE falls from {niqe_srresnet:.2f} to **{niqe_srgan:.2f}**, "
              "below that of the originals ({niqe_truth:.2f}), so NIQE alone cannot rank them. The texture is "
              "plausible, not the original's. The stage is short: {steps:,} steps of the generator, where the paper "
              "takes 200,000.",
        "zh": "加入判别器训练后，SRResNet 在 Set14 上的 PSNR 下降 {cost:.2f} dB（从 {srresnet:.2f} 降至 "
              "**{srgan:.2f} dB**），纹理更丰富：NIQE 从 {niqe_srresnet:.2f} 降至 **{niqe_srgan:.2f}**"
              "（越低越好，原图为 {niqe_truth:.2f}）。低于原图并不表示更自然：NIQE 偏好细碎的纹理，"
              "而生成的纹理看似合理，但并非原图的细节。"
              "生成器的对抗训练只有 {steps:,} 步，论文为 200,000 步。",
    },
    "resshuffle_x4": {
        "en": "Without batch norm, ResShuffle reaches **{ours:.2f} dB** on Set14 (luma, ×4), {gap:.2f} dB below "
              "EDSR-baseline, which has the same size, and **{b100:.2f} dB** on B100 ({gap_b100:.2f} dB below). "
              "Bicubic interpolation reaches {bicubic:.2f} dB on Set14. Our reading of one grey image there lifts both "
              "our figures by a tenth of a decibel.",
        "zh": "不用批归一化的 ResShuffle 在 Set14 上达到 **{ours:.2f} dB**（亮度，×4），比同等规模的 EDSR-baseline 低 "
              "{gap:.2f} dB（若像论文那样读取其中的灰度图像，还要再低约 0.1 dB）；"
              "在 B100 上达到 **{b100:.2f} dB**（低 {gap_b100:.2f} dB）。"
              "双三次插值在 Set14 上为 {bicubic:.2f} dB。",
    },
    "joint_restoration": {
        "en": "**Sharing a network costs restoration and brings no measurable gain in accuracy.** At λ = 0.1, where L1 "
              "is {share:.1%} of the loss, restoring with the same network changes PSNR by **{decibels} dB** and "
              "accuracy by **{points} points** ({range}), against networks of the same architecture for one task; at "
              "λ = 10 by **{decibels_10} dB** and **{points_10} points** ({range_10}). Noise and mask; n = {seeds}; "
              "95 % intervals over test images, not over training.",
        "zh": "**共享网络降低复原质量，准确率没有可测的提升。** 与结构相同的单任务网络相比，"
              "λ = 0.1 时（L1 占总损失的 {share:.1%}），"
              "用同一个网络完成两个任务，复原的 PSNR 变化 **{decibels} dB**，"
              "准确率变化 **{points} 个百分点**（{range}）；"
              "λ = 10 时，分别变化 **{decibels_10} dB** 和 **{points_10} 个百分点**（{range_10}）。"
              "噪声加遮挡，n = {seeds}；括号内为测试图像上的 95% 置信区间，不含训练的随机性。",
    },
    "colorization": {
        "en": "Colorizing chroma alone reaches **{chroma:.2f} dB** against {grey:.2f} dB of the grey copy, and lifts a "
              "classifier trained on colour images from {grey_accuracy:.1f} % to **{chroma_accuracy:.1f} %** "
              "({truth_accuracy:.1f} % on the true colours). Of the document's five different runs, {better} beat the "
              "grey copy in PSNR; in SSIM the best reaches {best_ssim:.3f}, the copy {grey_ssim:.3f}. Its perceptual "
              "loss changes PSNR by {perceptual} dB and its regularisation by {regularised} dB, which one random seed "
              "cannot tell from chance.",
        "zh": "只预测色度的网络达到 **{chroma:.2f} dB**（灰度图像直接复制到三个通道为 {grey:.2f} dB）；"
              "用彩色图像训练的分类器，准确率由灰度图像上的 {grey_accuracy:.1f}% 升至 **{chroma_accuracy:.1f}%**"
              "（真实颜色下为 {truth_accuracy:.1f}%）。所依据文档的五种方案中，PSNR 优于灰度图像的有 {better} 种，"
              "SSIM 最高为 {best_ssim:.3f}，而灰度图像为 {grey_ssim:.3f}；感知损失使 PSNR 变化 {perceptual} dB，"
              "正则化使其变化 {regularised} dB，仅凭一个随机种子，无法与偶然波动区分。",
    },
}  # fmt: skip


def read(task: str, results: str | Path = ROOT / "results") -> dict:
    """The run.json of a study run. Raises FileNotFoundError where it has no results."""
    path = Path(results) / task / "run.json"
    run = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if "summary" not in run:
        raise FileNotFoundError(f"No results are in {path}: run {settings.NOTEBOOKS.get(task, task)} first.")
    return run


def answer(task: str, results: str | Path = ROOT / "results", language: str = "en") -> str:
    """A study's answer in two or three sentences, its figures filled in from results/."""
    texts = ANSWERS[task]
    text = texts.get(language, texts["en"]).replace("λ = ", "λ\u00a0=\u00a0")  # kept on one line
    return text.format(**FIGURES[task](read(task, results)))


def _scores(run: dict, protocol: str = "literature") -> dict[tuple[str, str], dict]:
    """{(test set, method): row} of a super-resolution run's summary."""
    return {(row["set"], row["method"]): row for row in run["summary"] if row.get("protocol", "literature") == protocol}


def _multi(run: dict) -> dict:
    percent = {row["rung"]: 100 * row["accuracy"] for row in run["summary"]}
    gain = next(row for row in run["comparisons"] if row["comparison"] == "control → frozen")
    unseen = run["unseen_comparisons"]["control → frozen"]
    return percent | {"gain": signed(gain["points"]), "loss": -unseen["points"]}


def _task1(run: dict) -> dict:
    luma, reference = _scores(run), _scores(run, "reference")
    return {"srnet": luma["Set14", "srnet"]["psnr_db"], "bicubic": luma["Set14", "bicubic"]["psnr_db"],
            "vdsr": PUBLISHED_X2["VDSR (665 K)"][1][0], "ours": reference["Set14", "srnet"]["psnr_db"],
            "course": COURSE["psnr_db"]}  # fmt: skip


def _task2(run: dict) -> dict:
    clean, degraded = (100 * run["summary"][name] for name in ("clean", "degraded"))
    return {"clean": clean, "degraded": degraded, "lost": clean - degraded}


def _srgan(run: dict) -> dict:
    rows, s = {method: row for (name, method), row in _scores(run).items() if name == "Set14"}, run["settings"]
    return {"srresnet": rows["srresnet"]["psnr_db"], "srgan": rows["srgan"]["psnr_db"],
            "steps": (s["num_epochs"] - s["discriminator_epochs"]) * s["steps_per_epoch"],
            "cost": rows["srresnet"]["psnr_db"] - rows["srgan"]["psnr_db"],
            **{f"niqe_{name}": rows[name]["niqe"] for name in ("srresnet", "srgan", "truth")}}  # fmt: skip


def _resshuffle(run: dict) -> dict:
    rows, edsr = _scores(run), PUBLISHED_X4["EDSR-baseline (1.52 M)"]
    ours, b100 = (rows[name, "resshuffle"]["psnr_db"] for name in ("Set14", "B100"))
    return {"ours": ours, "b100": b100, "gap": edsr[1][0] - ours, "gap_b100": edsr[2][0] - b100,
            "bicubic": rows["Set14", "bicubic"]["psnr_db"]}  # fmt: skip


def _joint(run: dict) -> dict:
    figures = {"share": run["l1_share"], "seeds": run["seeds"]}
    for arm, end in (("joint", ""), ("joint_10", "_10")):
        points, low, high = map(signed, run["differences"][arm]["accuracy"])
        figures |= {f"points{end}": points, f"range{end}": f"{low}, {high}",
                    f"decibels{end}": signed(run["differences"][arm]["psnr_db"][0])}  # fmt: skip
    return figures


def _colorization(run: dict) -> dict:
    rows = {row["method"]: row for row in run["summary"]}
    document = ("mse", "perceptual", "regularised", "fast", "slow")
    return {"chroma": rows["chroma"]["psnr_db"], "grey": rows["grey"]["psnr_db"],
            "perceptual": signed(rows["perceptual"]["psnr_db"] - rows["mse"]["psnr_db"]),
            "regularised": signed(rows["regularised"]["psnr_db"] - rows["perceptual"]["psnr_db"]),
            "better": sum(rows[name]["psnr_db"] > rows["grey"]["psnr_db"] for name in document),
            "best_ssim": max(rows[name]["ssim"] for name in document), "grey_ssim": rows["grey"]["ssim"],
            **{f"{name}_accuracy": rows[name]["accuracy"] for name in ("grey", "chroma", "truth")}}  # fmt: skip


FIGURES = {"multi": _multi, "task1": _task1, "task2": _task2, "srgan_x4": _srgan, "resshuffle_x4": _resshuffle,
           "joint_restoration": _joint, "colorization": _colorization}  # fmt: skip


# --- tables -----------------------------------------------------------------------------------------------------

WORDS = {
    "en": {
        "clean": "clean (ceiling)", "degraded": "degraded (floor)", "cascade": "cascade", "control": "**control**",
        "capacity": "capacity", "frozen": "**frozen**", "joint": "joint", "task_only": "task only",
        "distilled": "distilled", "feature_loss": "feature loss", "nearest": "nearest", "bicubic": "bicubic",
        "srnet": "**SRNet**", "srresnet": "SRResNet", "resshuffle": "**ResShuffle**", "srgan": "SRGAN",
        "truth": "originals", "course": "course document",
        "rung": "rung", "sees": "the classifier sees", "accuracy": "accuracy (%)", "over": "over the control (points)",
        "luma": "{}, luma", "reference": "Set14, RGB", "stage": "stage", "data": "data", "loss": "loss",
        "optimizer": "optimiser, rate", "epochs": "epochs", "batch": "batch", "ours": "ours",
        "super-resolution": "1a super-resolution", "classification": "1b classification",
        "adaptation": "2 adaptation (ours alone)", "joint stage": "3 joint fine-tuning", "method": "PSNR (dB) / SSIM",
        "photographs": "photographs", "downsampled": "CIFAR-10 at 16×16", "upsampled": "CIFAR-10 at 16×16, upsampled",
    },
    "zh": {
        "clean": "清晰（上限）", "degraded": "退化（下限）", "cascade": "级联", "control": "**对照组**",
        "capacity": "等容量组", "frozen": "**冻结组**", "joint": "联合组", "task_only": "仅任务损失",
        "distilled": "蒸馏", "feature_loss": "特征损失", "nearest": "最近邻", "bicubic": "双三次",
        "srnet": "**SRNet**", "srresnet": "SRResNet", "resshuffle": "**ResShuffle**", "srgan": "SRGAN",
        "truth": "原图", "course": "课题原文",
        "rung": "组别", "sees": "分类器的输入", "accuracy": "准确率（%）", "over": "与对照组之差（百分点）",
        "luma": "{}，亮度", "reference": "Set14，RGB", "stage": "阶段", "data": "数据", "loss": "损失",
        "optimizer": "优化器，学习率", "epochs": "轮数", "batch": "批大小", "ours": "本项目",
        "super-resolution": "1a 超分辨率", "classification": "1b 分类", "adaptation": "2 适应（本项目新增）",
        "joint stage": "3 联合微调", "method": "PSNR (dB) / SSIM",
        "photographs": "照片", "downsampled": "16×16 的 CIFAR-10", "upsampled": "16×16 的 CIFAR-10，上采样后",
        "CE + smoothing": "CE + 标签平滑", "L1 + CE + smoothing": "L1 + CE + 标签平滑",
    },
}  # fmt: skip
SEEN = {  # what the ladder's table says otherwise
    "en": {"32×32, clean": "32×32", "16×16 → SRNet's layers, fine-tuned": "16×16 → SRNet's layers, no photographs"},
    "zh": {"16×16 → bicubic": "16×16 → 双三次", "16×16 → SRNet": "16×16 → SRNet",
           "16×16 → SRNet, fine-tuned": "16×16 → SRNet，微调", "32×32, clean": "32×32",
           "16×16 → SRNet's layers, fine-tuned": "16×16 → 与 SRNet 同结构，未用照片训练"},
}  # fmt: skip
OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD", "muon": "Muon"}


def markdown(heads: list[str], rows: list[list[str]], num_text: int = 1) -> str:
    """A Markdown table, its first `num_text` columns left aligned and the others right."""
    lines = [heads, [":--"] * num_text + ["--:"] * (len(heads) - num_text), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def pair(row: Mapping | tuple | None) -> str:
    """"32.42 / 0.9063" on one line, a dash for what has no value."""
    psnr_db, ssim = (row["psnr_db"], row["ssim"]) if isinstance(row, Mapping) else row or (None, None)
    if psnr_db is None:
        return "–"
    return f"{psnr_db:.2f}\u00a0/\u00a0{'–' if ssim is None else f'{ssim:.4f}'}"


def ladder_table(language: str = "en", results: str | Path = ROOT / "results") -> str:
    """The rungs: accuracy, difference to the control with its 95 % interval, PSNR, the course document's figures."""
    run, words = read("multi", results), WORDS[language]
    over = {row["rung"]: row for row in run["over_control"]}
    rows = []
    for row in run["summary"]:
        gain = over.get(row["rung"])
        text = "–" if gain is None else f"{signed(gain['points'])} ({signed(gain['low'])},\u00a0{signed(gain['high'])})"
        course = f"{COURSE[row['rung']]:.2f}" if row["rung"] in COURSE else "–"
        seen = SEEN[language].get(row["image"], row["image"])
        psnr_db = "–" if row["psnr_db"] is None else f"{row['psnr_db']:.2f}"
        rows.append([words[row["rung"]], seen, f"{100 * row['accuracy']:.2f}", row["seeds"], text, psnr_db, course])
    return markdown([words["rung"], words["sees"], words["accuracy"], "n", words["over"], "PSNR (dB)", words["course"]],
                    rows, num_text=2)  # fmt: skip


def sr_table(summary: list[dict], published: Mapping, language: str = "en", reference: bool = False) -> str:
    """Methods by test sets: PSNR / SSIM on luma (and NIQE of Set14 and B100 where it was measured), then the published
    rows. reference: one more column, Set14 by the course document's protocol, and the document's row.
    """
    words, run = WORDS[language], {"summary": summary}
    luma, other = _scores(run), _scores(run, "reference")
    sets = list(dict.fromkeys(name for name, _ in luma))
    niqe = {(row["set"], row["method"]): f"{row['niqe']:.2f}" for row in summary if row.get("niqe")}
    with_niqe = [name for name in ("Set14", "B100") if (name, "bicubic") in niqe]
    heads = [words["method"], *(words["luma"].format(name) for name in sets)]
    heads += [words["reference"]] * reference + [f"{' / '.join(with_niqe)} NIQE"] * bool(with_niqe)
    rows = []
    for method in dict.fromkeys(row["method"] for row in summary):
        row = [words[method], *(pair(luma.get((name, method))) for name in sets)]
        row += [pair(other.get(("Set14", method)))] * reference
        found = [niqe[name, method] for name in with_niqe if (name, method) in niqe]
        row += ["\u00a0/\u00a0".join(found) or "–"] * bool(with_niqe)
        rows.append(row)
    empty = ["–"] * (reference + bool(with_niqe))
    for name, values in published.items():
        known = dict(zip(TEST_SETS, values, strict=True))
        rows.append([f"*{name}*", *("–" if one not in known else f"*{pair(known[one])}*" for one in sets), *empty])
    if reference:
        rows.append([words["course"], *["–"] * len(sets), pair((COURSE["psnr_db"], COURSE["ssim"]))])
    return markdown(heads, rows)


def x4_table(language: str = "en", results: str | Path = ROOT / "results") -> str:
    """SRGAN's run and ResShuffle's in one table, methods in order."""
    srgan, resshuffle = (read(task, results)["summary"] for task in ("srgan_x4", "resshuffle_x4"))
    order = ("nearest", "bicubic", "srresnet", "resshuffle", "srgan", "truth")
    rows = {(row["set"], row["method"]): row for row in resshuffle + srgan}
    summary = sorted(rows.values(), key=lambda row: (TEST_SETS.index(row["set"]), order.index(row["method"])))
    return sr_table(summary, PUBLISHED_X4, language)


def stage_table(language: str = "en", results: str | Path = ROOT / "results") -> str:
    """The three stages, the course document's settings and ours: data, loss, optimiser, rate, epochs, batch."""
    words, rows = WORDS[language], []
    stages = [("super-resolution", "task1", "photographs", ("L1", "L1 + 0.1 (1 − SSIM)")),
              ("classification", "task2", "CIFAR-10", ("CE", "CE + smoothing")),
              ("adaptation", "adapt", "upsampled", (None, "CE + smoothing")),
              ("joint stage", "multi", "downsampled", ("L1 + CE", "L1 + CE + smoothing"))]  # fmt: skip
    for stage, task, data, losses in stages:
        for who, profile, loss in zip(("course", "ours"), ("reference", "study"), losses, strict=True):
            if loss is None:
                continue
            s = settings.choose("task2" if task == "adapt" else task, profile)
            if task == "adapt":
                multi = settings.choose("multi", profile)
                s |= {"num_epochs": multi.adapt_epochs, "learning_rate": s.learning_rate * multi.adapt_rate}
            schedule = {"constant": "", "step": "\u00a0↓", "one_cycle": "\u00a0↑↓"}[s.schedule]  # kept on one line
            rows.append([words[stage], words[who], words.get(data, data), words.get(loss, loss),
                         f"{OPTIMIZERS[s.optimizer]} {s.learning_rate:g}{schedule}",
                         f"{s.num_epochs}\u00a0×\u00a0{s.steps_per_epoch}", s.batch_size])  # fmt: skip
    heads = [words[name] for name in ("stage", "ours", "data", "loss", "optimizer", "epochs", "batch")]
    return markdown(["" if head == words["ours"] else head for head in heads], rows, num_text=5)


def joint_table(language: str = "en", results: str | Path = ROOT / "results") -> str:
    run, rows = read("joint_restoration", results), []
    names = {"classify": "classification alone, image untouched", "restore": "restoration alone",
             "joint": "joint, λ = 0.1", "joint_10": "joint, λ = 10", "separate": "nothing shared, λ = 0.1 (n = 1)"}
    scores = {(row["damage"], row["arm"]): row for row in run["summary"]}
    for arm, name in names.items():
        if ("both", arm) not in scores:
            continue
        both, noise = scores["both", arm], scores["noise", arm]
        values = ((both["accuracy"], 100), (both["psnr_db"], 1), (both["inside"], 1), (noise["psnr_db"], 1))
        rows.append([name, *("–" if value is None else f"{factor * value:.2f}" for value, factor in values)])
    rows += [[f"*the document, {name}*", *(f"*{value}*" for value in values), "–", "–"]
             for name, values in JOINT_DOCUMENT.items()]  # fmt: skip
    return markdown(["noise and mask", "accuracy (%)", "PSNR (dB)", "in the mask (dB)", "noise alone (dB)"], rows)


def colorization_table(language: str = "en", results: str | Path = ROOT / "results") -> str:
    names = {"grey": "grey copy", "mse": "1: MSE", "perceptual": "2: + perceptual", "regularised": "3, 5: + L1 and L2",
             "fast": "4: rate 1e-3", "slow": "6: rate 1e-5", "unet": "three colours, our recipe",
             "chroma": "**chroma alone, our recipe**", "truth": "true colours"}  # fmt: skip
    rows = {row["method"]: row for row in read("colorization", results)["summary"]}
    return markdown(
        ["method", "PSNR (dB)", "SSIM", "chroma error", "colourfulness", "accuracy (%)"],
        [[name, "–" if rows[key]["psnr_db"] is None else f"{rows[key]['psnr_db']:.2f}", f"{rows[key]['ssim']:.4f}",
          f"{rows[key]['chroma_error']:.1f}", f"{rows[key]['colourfulness']:.1f}", f"{rows[key]['accuracy']:.1f}"]
         for key, name in names.items()],
    )  # fmt: skip


FAULTS = {
    "kills": "training killed at a random moment, resumed to the same bits",
    "damaged files": "a byte changed or the end cut off in a file of a run: an error in one sentence, or the same run",
    "full disk": "the disk full while saving: the last checkpoint stays",
    "two processes": "a second process in the same folder: waits, takes the first one's result",
    "fuzzed images": "broken image files: an image, or an error in one sentence",
}


def faults_table(language: str = "en", results: str | Path = ROOT / "results") -> str:
    faults = json.loads((Path(results) / "faults.json").read_text(encoding="utf-8"))["faults"]
    return markdown(["fault", "tried", "survived"],
                    [[FAULTS.get(name, name), f"{count['tried']:,}", f"{count['survived']:,}"]
                     for name, count in faults.items()])  # fmt: skip


def bench_table(language: str = "en", results: str | Path = ROOT / "results") -> str:
    bench, rows = json.loads((Path(results) / "bench.json").read_text(encoding="utf-8")), []
    for row in bench["rows"]:
        missed = " (missed)" if row["target"] is not None and row["ratio"] < row["target"] else ""
        memory = " against ".join(f"{value:.1f} GB" for value in row.get("peak memory (GB)", {}).values())
        what = row["what"] + (f" (peak memory {memory})" if memory else "")
        rows.append([what, row["against"], f"{row['ratio']:.2f}",
                     "–" if row["target"] is None else f"{row['target']:g}{missed}"])  # fmt: skip
    return markdown(["what", "against", "times as fast", "target"], rows, num_text=2)


SECTIONS = {  # by the name of their markers, <!-- name --> ... <!-- /name -->
    "answer": lambda language, results: answer("multi", results, language),
    **{f"answer {task}": lambda language, results, task=task: answer(task, results, language) for task in ANSWERS},
    "x2": lambda language, results: sr_table(read("task1", results)["summary"], PUBLISHED_X2, language, reference=True),
    "ladder": ladder_table, "x4": x4_table, "stages": stage_table, "joint restoration": joint_table,
    "colorization": colorization_table, "faults": faults_table, "bench": bench_table,
}


def filled(text: str, language: str, results: str | Path = ROOT / "results") -> str:
    """A document with what stands between its markers made anew."""
    for name in re.findall(r"<!-- /(.+?) -->", text):
        made = SECTIONS[name](language, results)
        markers = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.S)
        text = markers.sub(lambda match, made=made: f"{match[1]}{made}\n{match[2]}", text)
    return text


def main() -> int:
    for name, language in FILES.items():
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        path.write_text(filled(text, language), encoding="utf-8")
        print(f"{name}: figures written")
    return 0
