"""The figures of the ladder: README's picture, the way from degraded to clean, images as the rungs see them."""
import logging
from collections.abc import Mapping

import pandas as pd
import torch
from matplotlib import font_manager
from matplotlib.figure import Figure
from torch import Tensor

import training
from ladder import ARMS
from tools import plots

WORDS = {
    "en": {"one": "Adaptation first", "two": "Super-resolution first", "degraded": "degraded", "adapt": "+ adaptation",
           "sr": "+ super-resolution", "joint": "+ joint training", "clean": "clean images",
           "accuracy": "Test accuracy (%)",
           "hero": "Super-resolution adds one point to an adapted classifier, at ten times the cost",
           "hero note": "{data}, {num:,} test images, mean of {seeds} seeds. The images: seed {seed}.",
           "columns": ["16×16 input", "control", "frozen", "clean"],
           "helps": "super-resolution helps: {share:.1f} % of test images",
           "harms": "super-resolution harms: {share:.1f} % of test images"},
    "zh": {"one": "先适应", "two": "先超分辨率", "degraded": "退化", "adapt": "+ 适应", "sr": "+ 超分辨率",
           "joint": "+ 联合训练", "clean": "清晰图像", "accuracy": "测试准确率（%）",
           "hero": "分类器适应低分辨率图像之后，超分辨率再加一个百分点，计算量为十倍",
           "hero note": "{data}，{num:,} 张测试图像，{seeds} 个随机种子的均值；图像取自种子 {seed}。",
           "columns": ["16×16 输入", "对照组", "冻结组", "清晰图像"],
           "helps": "超分辨率有帮助：{share:.1f} % 的测试图像",
           "harms": "超分辨率有害：{share:.1f} % 的测试图像"},
}  # fmt: skip


def waterfall_paths(table: pd.DataFrame, words: Mapping) -> tuple[dict, dict]:
    """`plots.waterfall`'s paths and ceiling, from a ladder's table."""
    percent = 100 * table.accuracy
    first = [("degraded", "degraded"), ("adapt", "control"), ("sr", "frozen"), ("joint", "joint")]
    second = [("degraded", "degraded"), ("sr", "cascade"), ("adapt", "frozen")]
    paths = {
        words[name]: [{"label": words[label], "value": percent[rung], "accent": label == "sr"} for label, rung in steps]
        for name, steps in (("one", first), ("two", second)) if {rung for _, rung in steps} <= set(table.index)
    }  # fmt: skip
    return paths, {"label": words["clean"], "value": percent["clean"]}


def waterfall(scores, table: pd.DataFrame) -> Figure:
    """The way from degraded to clean, step by step."""
    words, title = WORDS["en"], "Adaptation brings most; super-resolution adds one point, at ten times the cost"
    num, seeds = len(scores.ladder.test_lr), max(table.seeds)
    note = f"{scores.test_set.name}, {num:,} test images, mean of {seeds} seeds"
    return plots.waterfall(*waterfall_paths(table, words), words["accuracy"], title=title, note=note)


def over_control(scores) -> Figure:
    """Every fine-tuned arm against the control, as paired differences; scratch, far below, would hide the others."""
    arms = [rung for rung in scores.rungs if rung in ARMS and rung != "control"]
    arms = [rung for rung in arms if not ARMS[rung].scratch] or arms
    rows = {rung: scores.compare(rung, "control") for rung in arms}
    note = (f"{scores.test_set.name}, {len(scores.ladder.test_lr):,} test images; small dots: seeds; lines: 95 % "
            "confidence intervals over images and, where there are several, seeds")
    return plots.differences(rows, "Accuracy over the control (points)", note=note, zero="control",
                             title="Frozen has the whole gain: no other loss, and no teacher, "
                                   "is measurably ahead of it")


def angles(found: Mapping[str, Mapping[str, Mapping]]) -> Figure:
    """Norms and cosines of two losses' gradients at SRNet, a dot per batch. found: {rung: `ladder.angles`}."""
    title = "Where fine-tuning begins the label's gradient dwarfs the pixels'; at its end they agree more"
    note = "Batches of 64 images, a dot each; first seed"
    fig, (norms, cosines) = plots._figure(plots.WIDTH, 3.6, title, note, 1, 2)
    columns = [(rung, part) for rung in found for part in found[rung]]
    for x, (rung, part) in enumerate(columns):
        values = found[rung][part]
        for name, marker, fill in (("l1", "s", "none"), ("cross_entropy", "o", plots.color_of(rung))):
            norms.plot([x] * len(values[name]), values[name], marker, mec=plots.color_of(rung), mfc=fill, alpha=0.6)
        cosines.plot([x] * len(values["cosine"]), values["cosine"], "o", color=plots.color_of(rung), alpha=0.6, mew=0)
        cosines.plot(x, values["mean_cosine"][0], "_", color=plots.INK, ms=22, mew=2)
    norms.set(yscale="log", ylabel="Norm (square: L1, dot: cross-entropy)")
    cosines.set(ylim=(-1, 1), ylabel="Cosine (line: of the mean gradients)")
    cosines.axhline(0, color=plots.INK, ls=plots.DASHED, lw=1)
    for ax in (norms, cosines):
        ax.set_xticks(range(len(columns)), [f"{plots.name_of(rung)}\n{part}" for rung, part in columns])
        ax.margins(x=0.15)
    return fig


def disagreements(scores, above: str, below: str, num: int) -> Tensor:
    """Indices of `num` test images on which two rungs disagree: first those that `above` alone classifies correctly,
    then those that `below` alone does, in the share in which they occur; of each, the ones with the surest predictions.
    Where too few are found, further images follow.
    """
    right, wrong = (scores.correct(rung, [scores.first])[0] for rung in (above, below))
    sure = scores.test(above)["probability"] + scores.test(below)["probability"]
    parts = [(right & ~wrong).nonzero()[:, 0], (wrong & ~right).nonzero()[:, 0]]
    share = round(num * len(parts[0]) / max(1, len(parts[0]) + len(parts[1])))
    share = min(max(share, 1), num - 1)
    chosen = torch.cat([part[sure[part].argsort(descending=True)[:count]]
                        for part, count in zip(parts, (share, num - share), strict=True)])  # fmt: skip
    rank = (sure + 3 * (right != wrong)).index_fill(0, chosen, -1)
    return torch.cat([chosen, rank.argsort(descending=True)[: num - len(chosen)]])


def predictions(scores, rung: str, index: Tensor) -> tuple[Tensor, list[str]]:
    """What the classifier of a rung sees of some test images, and its predictions as captions with ✓ or ✗."""
    images = (scores.ladder.test_hr if rung == "clean" else scores.ladder.test_lr)[index]
    sr_img, logits = training.predict(scores.ladder.network(rung, scores.first), images)
    return sr_img, plots.marked(logits.argmax(1), scores.ladder.test_labels[index], scores.ladder.classes)


def stages_panel(scores, stages: list[str], index: Tensor) -> Figure:
    """Some test images as each rung's classifier sees them, with its predictions."""
    columns, titles = {"16×16": scores.ladder.test_lr[index]}, {}
    for stage in stages:
        columns[stage], titles[stage] = predictions(scores, stage, index)
    names = [scores.ladder.classes[k] for k in scores.ladder.test_labels[index]]
    return plots.panel(columns, titles, names, title="What each classifier sees, and what it takes it for")


def hero(scores, table: pd.DataFrame, language: str = "en", font: str | None = None) -> Figure:
    """README's figure: an image that super-resolution helps, one that it harms, and the waterfall."""
    words, strips = WORDS[language], []
    seeds = [seed for seed in scores.ladder.seeds("control") if seed in scores.ladder.seeds("frozen")]
    clean = scores.correct("clean", [scores.first])[0]
    frozen, control = (scores.correct(rung, seeds) for rung in ("frozen", "control"))
    for label, alone in (("helps", frozen & ~control), ("harms", control & ~frozen)):
        sure = sum(scores.test(rung)["probability"] for rung in ("frozen", "control")) * clean
        index = (sure + 3 * alone[0]).argmax()[None]
        seen = {rung: predictions(scores, rung, index) for rung in ("control", "frozen", "clean")}
        strips.append({
            "label": words[label].format(share=100 * alone.double().mean().item()),
            "images": [scores.ladder.test_lr[index][0], *(img[0] for img, _ in seen.values())],
            "captions": ["", *(captions[0] for _, captions in seen.values())],
        })  # fmt: skip
    num = len(scores.ladder.test_lr)
    note = words["hero note"].format(data=scores.test_set.name, num=num, seed=seeds[0], seeds=len(seeds))
    return plots.hero(strips, words["columns"], *waterfall_paths(table, words), words["accuracy"], words["hero"], note,
                      font)  # fmt: skip


def save_heroes(scores, table: pd.DataFrame) -> None:
    """hero.png, and hero_zh.png where a Chinese font is installed; only where every rung of them is there."""
    if not {"control", "frozen", "joint"} <= set(table.index):
        return
    plots.show(hero(scores, table), "hero", scores.folder, quiet=True)
    known = {font.name for font in font_manager.fontManager.ttflist}
    fonts = ("Noto Sans CJK SC", "Source Han Sans SC", "Microsoft YaHei", "PingFang SC", "WenQuanYi Micro Hei")
    if font := next((name for name in fonts if name in known), None):
        logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # some of them have no bold weight
        plots.show(hero(scores, table, "zh", font), "hero_zh", scores.folder, quiet=True)
