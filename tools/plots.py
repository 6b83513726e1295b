"""One look for every figure: a style, a color per method, a function per kind of evidence, and `show`.

Each function returns a matplotlib Figure and draws nothing on the screen; `show` saves and displays it. A figure
carries one message, its `title`; `note` is the small print below it (data, protocol, number of runs).
An image is (3, H, W), RGB float in [0, 1] (or uint8), a torch tensor or a numpy array. A table is a pandas
DataFrame, a dict of columns or a list of dicts. Sizes of figures and cells are inches.
"""

import copy
import io
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import PIL.Image
import torch
from matplotlib import patheffects
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, NullLocator
from torch.utils.flop_counter import FlopCounterMode

from metrics import signed
from tools.files import process_rank, said_only, write_whole

WIDTH = 9.6  # of a full-width figure; shown at 96 dots per inch it fills a notebook's column
DPI = 192  # of a saved figure: two dots for each that is shown
INK, MUTED, LIGHT = "#222222", "#6B7075", "#DADDE0"
GREY, ACCENT = "#B4BAC1", "#0072B2"  # what is not the point of a figure, and what is: super-resolution
GOOD, BAD, MARK = "#00795C", "#B8400A", "#FFC20A"

# One color per method, the same in every figure: grays are references and controls, blues SRNet as it is, orange joint
# training. Methods of different studies may share one. Those drawn together are told apart by color-blind readers, too
# (after Okabe and Ito 2008 and Tol 2021).
COLORS = {
    "truth": "#1A1A1A", "clean": "#1A1A1A", "degraded": "#B3A68F", "nearest": "#B9BFC6", "bicubic": "#7A828B",
    "gray": "#A9A9A9", "train": "#8FB3DA", "valid": "#1B4B8A",
    "control": "#6B7075", "control_distilled": "#44AA99", "scratch": "#E78AC3", "capacity": "#8A1C10",
    "srnet": ACCENT, "frozen": ACCENT, "cascade": "#56B4E9", "frozen_distilled": "#332288", "joint": "#D55E00",
    "task_only": "#E6A400", "distilled": "#7A1F5C", "feature_loss": "#6F8F2F",
    "srresnet": "#44AA99", "srgan": "#AA4499", "resshuffle": "#117733",
    "classify": "#6B7075", "restore": ACCENT, "joint_10": "#8A1C10", "separate": "#E6A400",
    "mse": "#56B4E9", "perceptual": "#CC79A7", "regularized": "#00875F", "fast": "#D55E00", "slow": "#E6A400",
    "chroma": "#6A51A3", "unet": "#5C3A1E",
}  # fmt: skip
OTHERS = ("#44AA99", "#882255", "#DDAA33", "#004488", "#BB5566", "#5C7A29", "#7A5195", "#00A6D6")
NAMES = {
    "truth": "Ground truth", "srnet": "SRNet", "srresnet": "SRResNet", "srgan": "SRGAN", "resshuffle": "ResShuffle",
    "mse": "1: MSE", "perceptual": "2: + perceptual", "regularized": "3, 5: + L1 and L2", "fast": "4: rate 1e-3",
    "slow": "6: rate 1e-5", "unet": "RGB, our recipe", "chroma": "Chroma, our recipe", "joint_10": "Joint, λ = 10",
    "control_distilled": "Control, distilled", "frozen_distilled": "Frozen, distilled",
}  # fmt: skip
LABELS = {
    "epoch": "Epoch", "loss": "Loss", "l1": "L1 loss", "cross_entropy": "Cross-entropy", "ssim": "SSIM",
    "psnr_db": "PSNR (dB)", "accuracy": "Accuracy (%)", "niqe": "NIQE (lower is better)", "mse": "Mean squared error",
    "chroma_error": "Chroma error (CIELAB)", "pooled_psnr_db": "PSNR, pooled (dB)", "gflop": "GFLOP",
    "inside": "Inside the mask (dB)", "outside": "Outside it (dB)",
}  # fmt: skip
DASHED = (0, (4, 2.5))
DIVERGING = LinearSegmentedColormap.from_list(
    "diverging", ["#8A2F05", "#D55E00", "#F3B587", "#FFFFFF", "#8DBBDC", "#0072B2", "#083A5E"])
# Cells bear dark text, so their colors end where it would become hard to read.
BLUES = LinearSegmentedColormap.from_list("blues", ["#FFFFFF", "#8DBBDC"])
REDS = LinearSegmentedColormap.from_list("reds", ["#FFFFFF", "#FBE0CB", "#F0A36B"]).with_extremes(bad="#ECEEF0")

matplotlib.rcdefaults()  # a matplotlibrc of the user's (other fonts, text.usetex) changes no figure
matplotlib.rcParams.update({
    "text.color": INK, "axes.labelcolor": INK, "axes.titlesize": 10.5, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.titlepad": 8, "axes.edgecolor": "#9AA0A6", "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.grid.axis": "y",
    "grid.color": "#E8EAED", "xtick.labelsize": 9, "ytick.labelsize": 9, "xtick.color": "#9AA0A6",
    "ytick.color": "#9AA0A6", "xtick.labelcolor": INK, "ytick.labelcolor": INK, "xtick.major.size": 3,
    "ytick.major.size": 0, "legend.frameon": False, "legend.fontsize": 9.5, "lines.linewidth": 1.8,
})  # fmt: skip


def name_of(method: str) -> str:
    """How a method is written in a figure: `task_only` -> `Task only`; any text but an identifier is left as it is."""
    words = method.replace("_", " ").capitalize() if re.fullmatch("[a-z][a-z0-9_]*", str(method)) else str(method)
    return NAMES.get(method, words)


def color_of(method: str) -> str:
    """Its color in every figure; a name that COLORS lacks gets one that no other has, while there are such."""
    free = [color for color in OTHERS if color not in COLORS.values()]
    return COLORS.setdefault(method, free[0] if free else OTHERS[len(COLORS) % len(OTHERS)])


# --- show and save ----------------------------------------------------------------------------------------------------
def show(fig: Figure, name="", folder: str | Path = "", photo=False, alt="", quiet=False, top=False) -> None:
    """Save the figure as `folder/name.png` and display the same bytes in a notebook.
    Without a name it is displayed only, with `quiet` it is saved only. `photo`: a JPEG, several times smaller for
    photographs. `alt`: a description for those who do not see it. `top`: the study's stands at the top of the page, and
    is not shown twice. Of several processes the first alone acts.
    """
    if process_rank():
        return
    kind, content = "jpeg" if photo else "png", _content(fig, photo)
    if name:
        path = Path(folder) / f"{name}.{'jpg' if photo else 'png'}"
        with said_only():
            write_whole(path, lambda beside: beside.write_bytes(content))
    if top and "lab" not in Path(folder).parts:
        print("The figure stands at the top of the page.")
    elif in_notebook() and not quiet:
        from IPython.display import Image, display

        alt = alt or name.replace("_", " ")
        display(Image(data=content, format=kind, width=round(fig.get_figwidth() * 96), alt=alt))


def _content(fig: Figure, photo: bool) -> bytes:
    """The file: a JPEG as good as fits into 220 kB, or a PNG, of 256 colors where no image is in it."""
    drawn, file = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, format="png", dpi=DPI)
    page = PIL.Image.open(drawn).convert("RGB")
    if not photo:
        if all(image.get_array().size <= 400 for image in fig.findobj(AxesImage)):  # cells of a table
            page = page.quantize(256, PIL.Image.Quantize.MAXCOVERAGE, dither=PIL.Image.Dither.NONE)
        page.save(file, "png", optimize=True)
        return file.getvalue()
    for share, quality in ((1, 85), (1, 75), (0.75, 80), (0.75, 65), (0.5, 80)):
        file = io.BytesIO()
        page.resize([round(share * side) for side in page.size]).save(file, "jpeg", quality=quality, optimize=True)
        if file.tell() <= 220_000:
            break
    return file.getvalue()


def display_markdown(text: str) -> None:
    """Markdown that a cell has computed: rendered in a notebook, printed elsewhere; by the first process alone."""
    if process_rank():
        return
    if not in_notebook():
        return print(text)
    from IPython.display import Markdown, display

    display(Markdown(text))


def table(frame: pd.DataFrame, formats="{:.2f}", **by_column: str):
    """A table for a notebook: numbers in one format, or one for a column (`ssim="{:.4f}"`), and text to the left."""
    frame, left = frame.infer_objects().rename_axis(columns=None), "text-align: left"
    numbers = frame.select_dtypes("number").columns
    text = [name for name in frame if name not in numbers]
    heads = ["th.row_heading", *(f".col{frame.columns.get_loc(name)}" for name in text)]
    style = frame.style.format(dict.fromkeys(numbers, formats) | by_column, na_rep="–").hide(names=True)
    style = style.format_index(lambda name: LABELS.get(name, str(name).replace("_", " ")), axis=1)
    return style.set_table_styles([{"selector": selector, "props": left} for selector in heads])


def layers(model, input_size: Sequence[int], depth: int = 1):
    """A network's parts in the order in which they run, as a `table`: output (channels × height × width), parameters,
    millions of multiply-adds per image. input_size: (1, 3, H, W). depth=2 lists the parts of the parts.
    """
    model, outputs = copy.deepcopy(model).eval(), {}
    parts = dict(model.named_modules())
    for name, part in parts.items():
        part.register_forward_hook(lambda _part, _input, output, name=name: outputs.update({name: output}))
    like = next(iter(model.state_dict().values()), torch.zeros(()))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(tuple(input_size), device=like.device))
    rows, counts = {}, counter.get_flop_counts()
    for name, output in outputs.items():
        level = 1 + sum(name.startswith(f"{other}.") for other in outputs)
        is_whole = any(other.startswith(f"{name}.") for other in outputs)  # it has parts of its own
        if not name or level == depth or (level < depth and not is_whole):
            tensors = [output] if isinstance(output, torch.Tensor) else output
            rows[name or "total"] = {
                "layer": type(parts[name]).__name__,
                "output": ", ".join(" × ".join(map(str, tensor.shape[1:])) or "1" for tensor in tensors),
                "parameters": sum(tensor.numel() for tensor in parts[name].parameters()),
                "mult-adds (M)": sum(counts.get(f"{type(model).__name__}.{name}".rstrip("."), {}).values()) / 2e6,
            }  # fmt: skip
    return table(pd.DataFrame(rows).T.infer_objects(), "{:,.1f}", parameters="{:,}")


def in_notebook() -> bool:
    """Is there a Jupyter kernel to display in? A terminal would print an object's name instead."""
    return "IPython" in sys.modules and hasattr(sys.modules["IPython"].get_ipython(), "kernel")


def _numpy(values) -> np.ndarray:
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _image(image) -> np.ndarray:
    """(3, H, W) or (1, H, W), float in [0, 1] or uint8 -> (H, W, 3) float."""
    image = _numpy(image)
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"an image is (3, H, W), found {tuple(image.shape)}; channels come first.")
    image = image / 255.0 if image.dtype == np.uint8 else image.astype(np.float64)
    if not np.isfinite(image).all() or image.min() < -0.5 or image.max() > 1.5:
        raise ValueError(f"an image lies in [0, 1], found {image.min():.3g} to {image.max():.3g}; "
                         "undo the normalization or divide by 255 first.")
    return np.broadcast_to(image.clip(0, 1).transpose(1, 2, 0), (*image.shape[1:], 3))


def _page(width: float, height: float, title: str, note: str) -> Figure:
    """A figure that lays itself out between its title and its small print."""
    fig = Figure((width, height), layout="constrained")
    fig.get_layout_engine().set(w_pad=0.08, h_pad=0.07, wspace=0.03, hspace=0.05)
    if title:
        fig.suptitle(title, x=0.08 / width, ha="left", wrap=True, fontsize=12, weight="bold")
    if note:
        fig.supxlabel(note, x=0.08 / width, ha="left", wrap=True, fontsize=9, color=MUTED)
    return fig


def _figure(width: float, height: float, title: str, note: str, *grid: int, **ratios):
    """A page and its axes, one or a grid; they lie in a subfigure, so that a legend has its place above them."""
    fig = _page(width, height, title, note)
    return fig, fig.subfigures().subplots(*grid, **ratios)


def _legend(fig: Figure, handles: Mapping[str, Line2D | Patch]) -> None:
    """One legend for the whole figure, in lines between its title and its axes."""
    num_columns = int(np.clip(fig.get_figwidth() / (0.65 + 0.075 * max(map(len, handles))), 1, 6))
    fig.subfigs[0].legend(handles.values(), handles, loc="outside upper left", ncols=num_columns, handlelength=1.6,
                          columnspacing=1.6)


# --- curves -----------------------------------------------------------------------------------------------------------
def curves(history, metrics: Sequence[str] | Mapping[str, str], baselines: Mapping[str, Mapping] | None = None,
           best: int | None = None, title="", note="", small: bool | None = None,
           limits: Mapping[str, tuple[float, float]] | None = None) -> Figure:
    """Metrics over epochs, one axes each: training thin, validation thick, baselines as dashed lines.

    history    a table with columns such as `epoch`, `loss_train`, `loss_valid`; or a list of them (seeds: their mean,
               and a band from lowest to highest); or a dict of either by the runs' names, whatever these are
    metrics    columns without `_train` / `_valid`; a dict gives their axis labels. Accuracies are fractions
    baselines  {metric: {method or any label: value in the history's unit}}
    best       the chosen epoch, marked by a ring
    small      small axes, one for each run, the other runs in gray behind it; by itself for more than four runs
    limits     {metric: (lowest, highest)}, as drawn, where an outlier would set the scale
    """
    metrics = metrics if isinstance(metrics, Mapping) else {metric: LABELS.get(metric, metric) for metric in metrics}
    named = history if isinstance(history, Mapping) and "epoch" not in history else {"": history}
    runs = {name: [pd.DataFrame(table).set_index("epoch") for table in (of if isinstance(of, list) else [of])]
            for name, of in named.items()}  # fmt: skip
    small = len(runs) > 4 if small is None else small
    shape = (len(metrics), len(runs)) if small else (1, len(metrics))
    height = 1.0 + 1.5 * shape[0] if small else 3.5
    fig, axes = _figure(6.4 if shape == (1, 1) else WIDTH, height, title, note, *shape, squeeze=False)
    drawn = {}
    for (metric, label), cells in zip(metrics.items(), axes.reshape(len(metrics), -1), strict=True):
        scale = 100 if metric.startswith("accuracy") else 1
        parts = {name: _parts(tables, metric, scale) for name, tables in runs.items()}
        if not any(parts.values()):
            known = ", ".join(next(iter(runs.values()))[0])
            raise ValueError(f"no column {metric}, {metric}_train or {metric}_valid; it has: {known}.")
        for ax, own in zip(cells, [[name] for name in runs] if small else [[*runs]], strict=True):
            for name in runs:
                drawn |= _draw_run(ax, name, parts[name], best, behind=name not in own)
            ax.set(xlabel=LABELS["epoch"], ylabel=label)
            ax.xaxis.set_major_locator(MaxNLocator(2 if small else 5, integer=True))
            if small:
                ax.sharey(cells[0])
                ax.label_outer()
                head = textwrap.fill(name_of(own[0]), 100 // shape[1]) if metric == next(iter(metrics)) else ""
                ax.set_title(head, fontsize=9.5, color=color_of(own[0]))
            if metric in (limits or {}):
                ax.set_ylim(limits[metric])
            for name, value in (baselines or {}).get(metric, {}).items():
                _baseline(ax, name, scale * value, named=not small or ax.get_subplotspec().is_last_col())
    legend = {name_of(name): Line2D([], [], color=color_of(name)) for name in runs if name and not small}
    if (num_runs := max(map(len, runs.values()))) > 1:
        drawn[f"band: lowest to highest of {num_runs} runs"] = Patch(color=MUTED, alpha=0.3)
    if legend or len(drawn) > 1:
        _legend(fig, legend | drawn)
    return fig


def _parts(tables: Sequence[pd.DataFrame], metric: str, scale: float) -> dict[str, pd.DataFrame]:
    """{"train", "valid" or "": epochs x runs} of one metric, as far as every run has it."""
    columns = {"train": f"{metric}_train", "valid": f"{metric}_valid", "": metric}
    return {part: scale * pd.concat([table[column] for table in tables], axis=1, join="inner").dropna()
            for part, column in columns.items() if all(column in table for table in tables)}  # fmt: skip


def _draw_run(ax, name: str, parts: Mapping[str, pd.DataFrame], chosen: int | None, behind: bool) -> dict[str, Line2D]:
    """A run's curves of one metric, the last in gray where it stands `behind` another's; what the legend says of it."""
    legend = {}
    for part, frame in [*parts.items()][-1 if behind else 0 :]:
        epochs, values = frame.index.to_numpy(), frame.to_numpy()
        look = {"color": color_of(name or part or "valid"), "lw": 1.0 if part == "train" else 1.8}
        if behind:
            ax.plot(epochs, values.mean(1), color=LIGHT, lw=1.0, zorder=1)
            legend["the other runs"] = Line2D([], [], color=LIGHT)
            continue
        ax.plot(epochs, values.mean(1), marker="o" if len(epochs) < 6 else None, ms=2.5 * look["lw"], **look)
        ax.fill_between(epochs, values.min(1), values.max(1), color=look["color"], alpha=0.18, lw=0)
        if part:
            word = {"train": "training", "valid": "validation"}[part]
            legend[word] = Line2D([], [], **look | ({"color": INK} if name else {}))
        if part != "train" and chosen in epochs:
            ring = {"marker": "o", "ms": 7, "mfc": "white", "mew": 1.8}
            ax.plot(chosen, frame.loc[chosen].mean(), color=look["color"], **ring)
            legend[f"chosen epoch ({chosen})"] = Line2D([], [], color=MUTED, ls="", **ring)
    return legend


def _baseline(ax, name: str, value: float, named: bool) -> None:
    """A dashed line, named in the right margin."""
    ax.axhline(value, color=COLORS.get(name, MUTED), ls=DASHED, lw=1.3, zorder=1.5)
    number = f"{value:.2g}" if abs(value) < 0.1 else f"{value:.3f}" if abs(value) < 1.5 else f"{value:.2f}"
    if named and min(ax.get_ylim()) <= value <= max(ax.get_ylim()):
        ax.annotate(f"{name_of(name)}\n{number}", (1, value), (5, 0), ax.get_yaxis_transform(), "offset points",
                    va="center", fontsize=9, linespacing=1.05, color=MUTED)  # fmt: skip


# --- images -----------------------------------------------------------------------------------------------------------
def _mosaic(rows: Sequence[Sequence[np.ndarray]], texts: Sequence[Sequence[str]], title="", note="",
            headings: Sequence[str] = (), names: Sequence[str] = (), above: Sequence[str] = (), right=0.06):
    """Rows of images (H, W, 3) in cells of one width, a text above each, and `right` of them free room.
    headings stand above the columns, names to the left of the rows, texts `above` the rows.
    Also returns where the images end: right, top and bottom, in inches from the left and the upper edge.
    """
    num, gap, names = len(rows[0]), 0.08, [textwrap.fill(name, 13) for name in names]
    left = 0.18 + 0.075 * max(map(len, "\n".join(names).split("\n"))) if names else 0.06
    pixels = max(image.shape[1] for row in rows for image in row)
    dots = int(DPI * min((WIDTH - left - right) / num - gap, 1.6 if pixels <= 64 else 3.1))
    cell = (dots // pixels * pixels if 2 * pixels <= dots else dots) / DPI  # small pixels are squares of whole dots
    sizes = [max(image.shape[:2] for image in row) for row in rows]
    heights = [min(cell * h / w, 1.25 * cell) for h, w in sizes]
    captions = [max((0.24 + 0.15 * text.count("\n") for text in row if text), default=0.02) for row in texts]
    fig = _page(max(left + num * (cell + gap) - gap + right, 5.0 * bool(title)), 1, title, note)
    room = {text.get_va(): text.get_window_extent().height / fig.dpi + 0.14 for text in fig.texts}
    top = y = room.get("top", 0.03)
    bottom = y + 0.27 * bool(headings) + sum(heights) + sum(captions) + 0.24 * len(above) + gap * len(rows)
    width, height = np.round(DPI * np.array([fig.get_figwidth(), bottom + room.get("bottom", 0)])) / DPI
    fig.set_layout_engine("none")
    fig.set_size_inches(width, height)
    for text in fig.texts:
        text.set_in_layout(False)
        text.set_y(1 - 0.1 / height if text.get_va() == "top" else 0.07 / height)
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), autoscale_on=False)  # in inches from above
    ax.set_axis_off()
    for c, heading in enumerate(headings):
        ax.text(left + c * (cell + gap) + cell / 2, y + 0.2, heading, ha="center", weight="bold")
    y += 0.27 * bool(headings)
    small = {"fontsize": 9.5, "color": MUTED}
    for r, (row, tall) in enumerate(zip(rows, heights, strict=True)):
        ax.text(left, y + 0.19, above[r] if above else "", **small)
        y += captions[r] + 0.24 * bool(above)
        ax.text(left - 0.08, y + tall / 2, names[r] if names else "", ha="right", va="center", **small)
        wide = tall * sizes[r][1] / sizes[r][0]
        for c, (image, text) in enumerate(zip(row, texts[r], strict=True)):
            _draw(ax, (left + c * (cell + gap) + (cell - wide) / 2, y, wide, tall), image, text)
        y += tall + gap
    return fig, (left + num * (cell + gap) - gap, top, bottom)


def _draw(ax, place: Sequence[float], image: np.ndarray, text: str) -> None:
    """An image at (left, top, width, height), rounded to whole dots, and a text above it."""
    x, y, wide, tall = np.round(DPI * np.array(place)) / DPI
    dots = wide * DPI / image.shape[1]  # a pixel's side
    filtering = "nearest" if dots >= 3 or (dots > 0.99 and abs(dots - round(dots)) < 0.01) else "antialiased"
    ax.imshow(image, extent=(x, x + wide, y + tall, y), aspect="auto", interpolation=filtering)
    tone, line = (BAD, 1.8) if "✗" in text else (GOOD, 1.8) if "✓" in text else (INK, 0.6)
    ax.add_patch(Rectangle((x, y), wide, tall, fill=False, ec=LIGHT if tone == INK else tone, lw=line))
    ax.text(x + wide / 2, y - 0.05, text, ha="center", va="bottom", fontsize=9, color=tone, linespacing=1.15)


def panel(columns: Mapping[str, Iterable], titles: Mapping[str, Sequence[str]] | None = None,
          row_names: Sequence[str] = (), title="", note="") -> Figure:
    """Images compared: a row per image, a column per method, all shown at one size, the low-resolution input too.
    columns: method or heading -> N images. titles: the same names -> N texts; with ✓ or ✗ in it, one is green or red.
    """
    rows = [[_image(image) for image in row] for row in zip(*columns.values(), strict=True)]
    texts = [[titles[name][r] if name in (titles or {}) else "" for name in columns] for r in range(len(rows))]
    return _mosaic(rows, texts, title, note, [name_of(name) for name in columns], row_names)[0]


def image_grid(images: Iterable, titles: Sequence[str] = (), num_columns: int = 8, title="", note="",
               row_names: Sequence[str] = ()) -> Figure:
    """Images (3, H, W) row by row; a text above each, green or red with ✓ or ✗ in it; a name left of each row."""
    images = [_image(image) for image in images]
    titles, starts = titles or [""] * len(images), range(0, len(images), num_columns)
    rows, texts = ([part[start : start + num_columns] for start in starts] for part in (images, titles))
    return _mosaic(rows, texts, title, note, names=row_names)[0]


def square(image: torch.Tensor) -> torch.Tensor:
    """A uint8 image (3, H, W) in the middle of a white square."""
    (height, width), side = image.shape[1:], max(image.shape[1:])
    left, top = (side - width) // 2, (side - height) // 2
    return torch.nn.functional.pad(image, (left, side - width - left, top, side - height - top), value=255)


def zoom_panel(scores, images: Mapping[str, Mapping], chosen: Sequence[str], methods: Sequence[str],
               windows: Mapping[str, tuple] | None = None, caption="{psnr_db:.2f} dB / {ssim:.4f}", title="", note="",
               ) -> Figure:
    """`panel` of the images `chosen`, their scores above each: the original with a window marked in it, and of each
    method that window alone, a quarter of the image's sides. windows: {name: (top, left)}; else where the methods
    differ most. scores: a table with columns `image` and `method` and those that `caption` names.
    images: {name: {method: image, "truth": image}}.
    """
    columns = {name: [] for name in ("Whole image", *methods)}
    for name in chosen:
        shown, whole = [_image(images[name][method]) for method in methods], _image(images[name]["truth"]).copy()
        height, width = (side // 4 for side in whole.shape[:2])
        top, left = (windows or {}).get(name) or _place_of_difference(shown, height, width)
        window, edge = np.s_[top : top + height, left : left + width], max(2, whole.shape[1] // 120)
        inside = whole[window].copy()
        whole[max(0, top - edge) : top + height + edge, max(0, left - edge) : left + width + edge] = to_rgb(MARK)
        whole[window] = inside
        for column, image in zip(columns.values(), [whole, *(image[window] for image in shown)], strict=True):
            column.append(image.transpose(2, 0, 1))
    texts = {method: [""] * len(chosen) for method in methods}
    for row in pd.DataFrame(scores).to_dict("records"):
        if row["image"] in chosen and row["method"] in methods:  # what has no value, as the truth's PSNR, is left out
            parts = [part for part in caption.format(**row).split(", ") if "nan" not in part]
            texts[row["method"]][chosen.index(row["image"])] = ", ".join(parts)
    return panel(columns, texts, chosen, title, note)


def _place_of_difference(images: Sequence[np.ndarray], height: int, width: int) -> tuple[int, int]:
    """Where (top, left) a window of that size lies in which the images differ most."""
    spread = np.ptp(np.stack([image.mean(2) for image in images]), axis=0)
    sums = np.pad(spread, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    inside = sums[height:, width:] - sums[height:, :-width] - sums[:-height, width:] + sums[:-height, :-width]
    return tuple(int(at) for at in np.unravel_index(inside.argmax(), inside.shape))


def marked(predicted, labels, classes: Sequence[str], probabilities=None, separator="\n") -> list[str]:
    """Predictions as captions: "✓ cat" where right, "✗ dog" where not, or with their probability "✗ 64 %\\ndog"."""
    sure = ["" if share is None else f"{100 * share:.0f} %{separator}"
            for share in ([None] * len(labels) if probabilities is None else probabilities)]  # fmt: skip
    return [f"{'✓' if guess == truth else '✗'} {share}{classes[guess]}"
            for guess, truth, share in zip(predicted, labels, sure, strict=True)]  # fmt: skip


def diverging(images, columns: Sequence[str], label: str, row_names: Sequence[str] = (), title="", note="") -> Figure:
    """Differences of luma, in [-1, 1], in gray levels of 255: blue where it rose, orange where it fell.
    images: rows, each (C, H, W) for the C names in `columns`. label: of the color bar.
    """
    rows = 255 * np.stack([_numpy(row) for row in images]).astype(float)
    top = max(np.percentile(abs(rows), 99.5), 0.5)  # a few outliers would leave the rest pale
    shades = ScalarMappable(Normalize(-top, top), DIVERGING)
    tiles, no_texts = DIVERGING(shades.norm(rows))[..., :3], [[""] * len(columns)] * len(rows)
    fig, (right, above, below) = _mosaic(tiles, no_texts, title, note, columns, row_names, right=0.9)
    width, height = fig.get_size_inches()
    place = (right + 0.1) / width, 1 - (below - 0.08) / height, 0.13 / width, (below - above - 0.37) / height
    fig.colorbar(shades, fig.add_axes(place), label=label, extend="both").outline.set_visible(False)
    return fig


# --- numbers ----------------------------------------------------------------------------------------------------------
def _number_beside(ax, y: float, text: str, points: float, **options) -> None:
    """A number in the right margin, which ends so many points from the axes."""
    ax.annotate(text, (1, y), (points, 0), ax.get_yaxis_transform(), "offset points", ha="right",
                **{"va": "center_baseline", **options})  # fmt: skip


def _name_rows(ax, at: Sequence[float], labels: Sequence[str], xlabel: str, bold: Sequence[bool] = ()) -> None:
    """Rows from above, some of their names bold, and grid lines for values that run to the right."""
    ax.set_yticks(at, labels, fontsize=9.5)
    for text, is_bold in zip(ax.get_yticklabels(), bold, strict=False):
        text.set_weight("bold" if is_bold else "normal")
    ax.set(ylim=(at[-1] + 0.6, -0.6), xlabel=xlabel)
    ax.grid(False, axis="y")
    ax.grid(axis="x")
    ax.spines["left"].set_visible(False)


def scored_dots(scores, methods: Sequence[str], xlabel: str, title="", note="") -> Figure:
    """The PSNR of each image as a dot per method, the means of each set, and the gain of the last over the one before.
    scores: a table with columns `set`, `image`, `method`, `psnr_db`.
    """
    table = pd.DataFrame(scores).pivot_table("psnr_db", ["set", "image"], "method", sort=False)[list(methods)]
    means, num = table.groupby("set", sort=False).mean(), len(table)
    labels = [*table.index.get_level_values("image"), *(f"mean, {name}" for name in means.index)]
    at = np.append(np.arange(num), num + 0.4 + np.arange(len(means)))
    values = pd.concat([table, means])
    fig, ax = _figure(WIDTH, 1.5 + 0.27 * len(at), title, note)
    ax.hlines(at, values.min(axis=1), values.max(axis=1), color=LIGHT, lw=2.5, zorder=1)
    for method in methods:
        ax.plot(values[method], at, "o", ms=7.5, color=color_of(method), mec="white", mew=0.8)
    before, last = methods[-2:]
    for y, gain in zip(at, values[last] - values[before], strict=True):
        _number_beside(ax, y, signed(gain), 46, fontsize=9, weight="bold" if y >= num else "normal")
    _number_beside(ax, -0.7, f"{name_of(last)} − {name_of(before)}", 46, va="bottom", color=MUTED, fontsize=9)
    ax.axhline(num - 0.3, color=LIGHT, lw=0.8)
    _name_rows(ax, at, labels, xlabel, at >= num)
    _legend(fig, {name_of(method): Line2D([], [], color=color_of(method), ls="", marker="o") for method in methods})
    return fig


def differences(rows: Mapping[str, Mapping], xlabel: str, title="", note="", zero="") -> Figure:
    """Paired differences with their intervals, a small dot for each seed, and a line at zero, named `zero`.
    rows: name -> {"points", "low", "high", "by_seed"}, as `metrics.compare` returns.
    """
    fig, ax = _figure(7.6, 1.4 + 0.34 * len(rows), title, note)
    ax.axvline(0, color=INK, ls=DASHED, lw=1.2)
    ax.annotate(zero, (0, 1), (0, 4), ax.get_xaxis_transform(), "offset points", ha="center", fontsize=9.5)
    for y, (name, row) in enumerate(rows.items()):
        tone, seeds = color_of(name), row["by_seed"]
        ax.plot([row["low"], row["high"]], [y, y], color=tone, lw=2)
        ax.plot(seeds, [y + 0.28] * len(seeds), "o", color=tone, ms=3.2, alpha=0.75, mew=0)
        ax.plot(row["points"], y, "o", color=tone, ms=8, mec="white", mew=1)
        _number_beside(ax, y, signed(row["points"]), 38)
    ax.margins(x=0.08)
    _name_rows(ax, range(len(rows)), [name_of(name) for name in rows], xlabel)
    return fig


def _log_axis(ax, ticks: Sequence[float]) -> None:
    ax.set_xscale("log")
    ax.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.margins(x=0.12)


def gap_curve(gaps: Mapping[float, Mapping | Sequence[float]], xlabel: str, ylabel: str, title="", note="") -> Figure:
    """Frozen less control against a quantity (epochs, labels) on a log axis, with a small dot for each seed.
    gaps: the quantity -> the differences in points by seed, or {"points", "low", "high", "by_seed"}.
    """
    rows = {x: gaps[x] if isinstance(gaps[x], Mapping) else {"points": np.mean(gaps[x]), "by_seed": gaps[x]}
            for x in sorted(gaps)}  # fmt: skip
    fig, ax = _figure(6.4, 3.7, title, note)
    tone, shift = color_of("frozen"), (max(rows) / min(rows)) ** 0.015
    ax.axhline(0, color=INK, ls=DASHED, lw=1.2)
    ax.plot([*rows], [row["points"] for row in rows.values()], "-o", color=tone, ms=8, mec="white", mew=1)
    heights = [-np.inf, *(row["points"] for row in rows.values()), -np.inf]
    for (x, row), before, after in zip(rows.items(), heights, heights[2:], strict=False):
        ax.plot([x, x], [row.get("low", np.nan), row.get("high", np.nan)], color=tone, lw=2)
        ax.plot([x * shift] * len(row["by_seed"]), row["by_seed"], "o", color=tone, ms=3.2, alpha=0.6, mew=0)
        side, place = ("left", (12, 6)) if after <= row["points"] else ("right", (-8, 6))  # clear of the line
        side, place = ("center", (0, -18)) if min(before, after) > row["points"] else (side, place)
        ax.annotate(signed(row["points"]), (x, row["points"]), place, textcoords="offset points", color=tone, ha=side)
    _log_axis(ax, [*rows])
    ax.margins(x=0.18)  # room for a number left of the first point
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return fig


def cost_curve(scores, title="", note="") -> Figure:
    """Accuracy against cost on a log axis: a line for each arm over its numbers of test-time views, written beside it.
    scores: a table with columns `arm`, `views`, `gflop` and `accuracy` (a fraction).
    """
    arms = dict(iter(scores.groupby("arm", sort=False)))
    fig, ax = _figure(7.6, 4.2, title, note)
    for k, (arm, rows) in enumerate(arms.items()):
        ax.plot(rows.gflop, 100 * rows.accuracy, "-o", color=color_of(arm), ms=8, mec="white", mew=1)
        # apart where lines meet
        place = {"xytext": (8, -12)} if k % 2 else {"xytext": (-8 if k else -16, 5), "ha": "right"}
        for row in rows.itertuples():
            views = f"{row.views} view" + "s" * (row.views > 1) if k == 0 else str(row.views)
            ax.annotate(views, (row.gflop, 100 * row.accuracy), textcoords="offset points", color=color_of(arm),
                        fontsize=9, **place)  # fmt: skip
    steps = np.array([first * 10.0**power for power in range(-4, 6) for first in (1, 2, 5)])
    _log_axis(ax, steps[(steps > 0.6 * scores.gflop.min()) & (steps < 1.7 * scores.gflop.max())])
    ax.set(xlabel="GFLOP per image", ylabel="Test accuracy (%)")
    _legend(fig, {name_of(arm): Line2D([], [], color=color_of(arm), marker="o") for arm in arms})
    return fig


# --- ladder -----------------------------------------------------------------------------------------------------------
def waterfall(paths: Mapping[str, Sequence[Mapping]], ceiling: Mapping, xlabel: str, title="", note="", ax=None):
    """The ways from floor to ceiling, step by step; in axes of another figure where they are given.
    paths: heading -> steps in order, each {"label": "super-resolution", "value": 88.20}, the level reached. The first
    is the floor; the others are drawn as what they add. "accent": True for the figure's point. ceiling: like a step.
    """
    fig = None
    if ax is None:
        fig, ax = _figure(7.6, 1.4 + 0.3 * sum(len(steps) + 1 for steps in paths.values()), title, note)
    high, labels = ceiling["value"], []
    low = min((steps[0]["value"] for steps in paths.values()), default=high - 1)
    span = high - low or 1.0
    ax.set_xlim(low - 0.05 * span, high + 0.03 * span)
    ax.axvline(high, color=INK, ls=DASHED, lw=1.2)
    ax.annotate(f"{ceiling['label']} {high:.1f}", (high, 1), (0, 4), ax.get_xaxis_transform(), "offset points",
                ha="right", fontsize=9.5)  # fmt: skip
    for name, steps in paths.items():
        labels += [name, *(step["label"] for step in steps)]
        before = None
        for y, step in enumerate(steps, len(labels) - len(steps)):
            value, tone = step["value"], ACCENT if step.get("accent") else GREY
            _number_beside(ax, y, f"{value:.1f}", 34)
            if before is None:
                ax.plot(value, y, "o", color=MUTED, ms=7)
            else:
                added, is_wide = value - before, abs(value - before) > 0.2 * span
                ax.plot([before] * 2, [y - 0.69, y - 0.31], color=MUTED, lw=0.9)
                ax.barh(y, added, 0.62, left=before, color=tone, ec=tone, lw=1.2)
                x = (value + before) / 2 if is_wide else min(value, before)  # inside the bar, or left of it
                ink = ("white" if is_wide else ACCENT) if tone == ACCENT else INK if is_wide else MUTED
                ax.annotate(signed(added, 1 if abs(added) >= 10 else 2), (x, y), (0 if is_wide else -6, 0), color=ink,
                            ha="center" if is_wide else "right", textcoords="offset points", va="center_baseline",
                            weight="bold")  # fmt: skip
            before = value
    _name_rows(ax, range(len(labels) or 1), labels or [""], xlabel, [label in paths for label in labels])
    return fig


def hero(strips: Sequence[Mapping], columns: Sequence[str], paths: Mapping[str, Sequence[Mapping]], ceiling: Mapping,
         xlabel: str, title="", note="", font: str | None = None) -> Figure:
    """The study at a glance: left, test images as each arm sees and classifies them; right, a `waterfall`.
    strips: {"label": what the strip shows, "images": a (3, H, W) per column, "captions": a text per column}.
    font: for a language that DejaVu Sans cannot write; where it has no bold face, its strokes are thickened.
    """
    rows = [[_image(image) for image in strip["images"]] for strip in strips]
    texts, above = [strip["captions"] for strip in strips], [strip["label"] for strip in strips]
    with matplotlib.rc_context({"font.family": [font, "DejaVu Sans"]} if font else {}):
        fig, (x, top, bottom) = _mosaic(rows, texts, title, note, columns, above=above,
                                        right=WIDTH - 0.08 - 1.09 * len(columns))  # fmt: skip
        (width, height), x = fig.get_size_inches(), x + 0.15
        rect = (x / width, 1 - bottom / height, 1 - x / width, (bottom - top) / height)
        fig.set_layout_engine("constrained", w_pad=0.08, h_pad=0.07, rect=rect)
        waterfall(paths, ceiling, xlabel, ax=fig.add_subplot())
        fig.draw_without_rendering()
    if len({findfont(FontProperties(family=font, weight=weight)) for weight in ("normal", "bold")}) == 1:
        for text in fig.findobj(lambda part: isinstance(part, Text) and part.get_weight() == "bold"):
            text.set_path_effects([patheffects.withStroke(linewidth=0.7, foreground=text.get_color())])
    return fig


# --- classification ---------------------------------------------------------------------------------------------------
def _cells(ax, values: np.ndarray, palette, low: float, high: float, texts: np.ndarray, bold: np.ndarray):
    """A table of numbers as colored cells with a text in each."""
    ax.imshow(np.ma.masked_invalid(values), cmap=palette, vmin=low, vmax=high, aspect="auto")
    for (row, column), text in np.ndenumerate(texts):
        ax.text(column, row, text, ha="center", va="center", fontsize=9.5,
                weight="bold" if bold[row, column] else "normal")  # fmt: skip
    ax.set(xticks=[], yticks=[])
    ax.set_xticks(np.arange(1, values.shape[1]) - 0.5, minor=True)
    ax.set_yticks(np.arange(1, values.shape[0]) - 0.5, minor=True)
    ax.grid(False)
    ax.grid(which="minor", axis="both", color="white", lw=1.5)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)


def confusion(matrices: Mapping, classes: Sequence[str], title="", note="") -> Figure:
    """Which class (row) is taken for which (column), in percent of the row; {name: matrix of counts}."""
    shares = [100 * counts / np.maximum(counts.sum(1, keepdims=True), 1) for counts in map(_numpy, matrices.values())]
    diagonal = np.eye(len(classes), dtype=bool)
    top, side = max(share[~diagonal].max() for share in shares), 0.42 * len(classes)
    width = min(WIDTH, 1.2 + (side + 0.2) * len(shares))
    fig, axes = _figure(width, side * 0.9 + 1.8, title, note, 1, len(shares), squeeze=False)
    for ax, name, share in zip(axes[0], matrices, shares, strict=True):
        texts = np.where(share > 0.5, np.char.mod("%.0f", share), "")  # 0.5 is printed as 0
        _cells(ax, np.where(diagonal, np.nan, share), REDS, 0, max(top, 1e-9), texts, diagonal)
        ax.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
        ax.set(xlabel="Predicted class", title=name)
    axes[0, 0].set_yticks(range(len(classes)), classes)
    axes[0, 0].set_ylabel("True class\n% of its images,\nempty below 0.5")
    return fig


def heatmap(table: pd.DataFrame, differences: Mapping[str, pd.DataFrame], title="", note="") -> Figure:
    """Accuracy (a fraction) per model (row) and degradation (column), the highest of each column bold. differences: a
    row for each, set apart below; its name, and of each degradation the `points` and their interval, `low` to `high`,
    which lies around them.
    """
    table, rows = 100 * table, [frame.loc[table.columns] for frame in differences.values()]
    values, columns = table.to_numpy(), [textwrap.fill(name_of(name), 12) for name in table.columns]
    gaps = np.array([row.points for row in rows], float)
    width, height = float(np.clip(2.6 + 1.05 * len(columns), 4.6, WIDTH)), 1.6 + 0.4 * (len(values) + len(gaps))
    fig, (upper, lower) = _figure(width, height, title, note, 2, 1, height_ratios=[len(values), len(gaps)])
    _cells(upper, values, BLUES, values.min(), values.max(), np.char.mod("%.1f", values), values == values.max(0))
    upper.set_yticks(range(len(values)), [name_of(name) for name in table.index])
    upper.set_title("Accuracy (%), highest of each column in bold", weight="normal", fontsize=9, color=MUTED)
    top = 3 * max(abs(gaps).max(), 1e-9)  # the palette's pale middle
    texts = np.array([[f"{signed(cell.points, 1)} ± {(cell.high - cell.low) / 2:.1f}" for cell in row.itertuples()]
                      for row in rows])  # fmt: skip
    _cells(lower, gaps, DIVERGING, -top, top, texts, np.ones_like(gaps, bool))
    lower.set_yticks(range(len(gaps)), [*differences])
    lower.set_xticks(range(len(columns)), columns)
    return fig
