"""One look for every figure: a style, a colour per method, a function per kind of evidence, and `show`.

Each function returns a matplotlib Figure and draws nothing on the screen; `show` saves and displays it. A figure
carries one message, its `title`; `note` is the small print below it (data, protocol, number of runs).
An image is (3, H, W), RGB float in [0, 1] (or uint8), a torch tensor or a numpy array. A table is a pandas
DataFrame, a dict of columns or a list of dicts. Sizes of figures and cells are inches.
"""

import io
import os
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import PIL.Image
from matplotlib import patheffects
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

WIDTH = 9.6  # of a full-width figure; shown at 96 dots an inch it fills a notebook's column
DPI = 192  # of a saved figure: two dots for each that is shown
INK, MUTED, LIGHT = "#222222", "#6B7075", "#DADDE0"
GREY, ACCENT = "#B4BAC1", "#0072B2"  # what is not the point of a figure, and what is
GOOD, BAD, MARK = "#00795C", "#B8400A", "#FFC20A"

# Hues that colour-blind readers tell apart (Okabe and Ito 2008; Tol 2021) for networks, greys for references.
COLORS = {
    "truth": "#1A1A1A", "clean": "#5A5F66", "degraded": "#B3A68F", "nearest": "#B9BFC6", "bicubic": "#7A828B",
    "srnet": "#0072B2", "cascade": "#56B4E9", "control": "#CC79A7", "capacity": "#8A1C10", "frozen": "#00875F",
    "joint": "#D55E00", "task_only": "#E6A400", "distilled": "#7A1F5C", "feature_loss": "#6F8F2F", "train": "#8FB3DA",
    "valid": "#1B4B8A", "srresnet": "#44AA99", "srgan": "#AA4499", "resshuffle": "#117733",
    "mse": "#56B4E9", "perceptual": "#CC79A7", "regularised": "#00875F", "fast": "#D55E00", "slow": "#E6A400",
    "classify": "#44AA99", "restore": "#0072B2", "joint_10": "#8A1C10", "separate": "#E6A400", "chroma": "#6A51A3",
    "unet": "#5C3A1E", "grey": "#A9A9A9",
}
NAMES = {
    "truth": "Ground truth", "srnet": "SRNet", "srresnet": "SRResNet",
    "srgan": "SRGAN", "resshuffle": "ResShuffle", "unet": "RGB, our recipe", "mse": "1: MSE",
    "perceptual": "2: + perceptual", "regularised": "3, 5: + L1 and L2", "fast": "4: rate 1e-3", "slow": "6: rate 1e-5",
    "chroma": "Chroma, our recipe", "train": "training", "valid": "validation",
    "joint_10": "Joint, λ = 10",
}
LABELS = {
    "epoch": "Epoch", "loss": "Loss", "l1": "L1 loss", "cross_entropy": "Cross-entropy", "ssim": "SSIM",
    "psnr_db": "PSNR (dB)", "accuracy": "Accuracy (%)", "niqe": "NIQE (lower is better)", "mse": "Mean squared error",
    "chroma_error": "Chroma error (CIELAB)", "pooled_psnr_db": "PSNR, pooled (dB)", "gflop": "GFLOP",
    "inside": "Inside the mask (dB)", "outside": "Outside it (dB)",
}
DASHED = (0, (4, 2.5))
BLUES = LinearSegmentedColormap.from_list("blues", ["#FFFFFF", "#CFE0EF", "#6CA6CF", "#0072B2", "#083A5E"])
REDS = LinearSegmentedColormap.from_list("reds", ["#FFFFFF", "#FBE0CB", "#F0A36B", "#D55E00"])
REDS = REDS.with_extremes(bad="#ECEEF0")
DIVERGING = LinearSegmentedColormap.from_list(
    "diverging", ["#8A2F05", "#D55E00", "#F3B587", "#FFFFFF", "#8DBBDC", "#0072B2", "#083A5E"])

matplotlib.rcParams.update({
    "font.family": "DejaVu Sans", "font.size": 10, "text.color": INK, "axes.labelcolor": INK, "axes.titlesize": 10.5,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 8, "axes.labelsize": 10,
    "axes.edgecolor": "#9AA0A6", "axes.linewidth": 0.8, "axes.axisbelow": True, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "axes.grid.axis": "y", "grid.color": "#E8EAED",
    "grid.linewidth": 0.8, "xtick.labelsize": 9, "ytick.labelsize": 9, "xtick.color": "#9AA0A6",
    "ytick.color": "#9AA0A6", "xtick.labelcolor": INK, "ytick.labelcolor": INK, "xtick.major.size": 3,
    "ytick.major.size": 0, "legend.frameon": False, "legend.fontsize": 9.5, "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round", "figure.facecolor": "white", "savefig.facecolor": "white",
})


def name_of(method: str) -> str:
    """How a method is written in a figure: `task_only` -> `Task only`; any other text is left as it is."""
    return NAMES.get(method) or (method.replace("_", " ").capitalize() if method in COLORS else str(method))


# --- show and save ----------------------------------------------------------------------------------------------------
def show(fig: Figure, name: str = "", folder: str | Path = "", photo=False, alt="", quiet=False) -> None:
    """Save the figure as `folder/name.png` and display the same bytes in a notebook.
    Without a name it is displayed only, with `quiet` it is saved only. `photo`: a JPEG, several times smaller for
    photographs. `alt`: a description for those who do not see it. Of several processes (RANK) the first alone acts.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    suffix, kind, content = ("jpg", "jpeg", _jpeg(fig)) if photo else ("png", "png", _png(fig))
    if name:
        path = Path(folder) / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:  # the file appears whole or not at all
            beside.write_bytes(content)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    if in_notebook() and not quiet:
        from IPython.display import Image, display

        alt = alt or name.replace("_", " ")
        display(Image(data=content, format=kind, width=round(fig.get_figwidth() * 96), alt=alt))


def _png(fig: Figure) -> bytes:
    """Sharp and small: a figure without images is written in its 256 main colours."""
    buffer, small = io.BytesIO(), io.BytesIO()
    fig.savefig(buffer, format="png", dpi=DPI)
    page = PIL.Image.open(buffer).convert("RGB")
    if all(image.get_array().size <= 400 for image in fig.findobj(AxesImage)):  # cells, not images
        page = page.quantize(256, dither=PIL.Image.Dither.NONE)
    page.save(small, "png", optimize=True)
    return small.getvalue()


def _jpeg(fig: Figure, most: int = 220_000) -> bytes:
    """Quality 85 if that fits into `most` bytes, else the best that does."""
    for dpi, quality in ((DPI, 85), (DPI, 75), (144, 85), (144, 75), (144, 65), (144, 50), (96, 80)):
        buffer = io.BytesIO()
        fig.savefig(buffer, format="jpg", dpi=dpi, pil_kwargs={"quality": quality, "optimize": True})
        if buffer.tell() <= most:
            break
    return buffer.getvalue()


def display_markdown(text: str) -> None:
    """Markdown that a cell has computed: rendered in a notebook, printed elsewhere; by the first process alone."""
    if os.environ.get("RANK", "0") != "0":
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
                         "undo the normalisation or divide by 255 first.")
    return np.broadcast_to(image.clip(0, 1).transpose(1, 2, 0), (*image.shape[1:], 3))


def _on(fill) -> str:
    """White or ink, whichever has more contrast on a colour (WCAG 2 relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(fill)]
    return "white" if np.dot(linear, (0.2126, 0.7152, 0.0722)) < 0.213 else INK


def _signed(number: float, digits: int = 2) -> str:
    text = f"{number:+.{digits}f}".replace("-", "−")
    return text if float(text[1:]) else text[1:]


def _wrap(text: str, room: float, points: float) -> str:
    """Text in lines of one length that fit into so many inches; a Chinese character is as wide as it is high."""
    most = int(72 * room / points / (1.0 if any(ord(sign) > 0x2E80 for sign in text) else 0.63))
    return "\n".join(textwrap.fill(line, min(most, len(line) // (len(line) // most + 1) + 9))
                     for line in text.splitlines())


def _page(width: float, height: float, title: str, note: str, left: float | None = None) -> tuple[Figure, float]:
    """A figure with room for a body of that height (inches) between title and small print, and where the body begins.
    What is right of `left` (inches) lays itself out.
    """
    above, below = _wrap(title, width - 0.2, 12), _wrap(note, width - 0.2, 8.5)
    head = (0.12 + 0.2 * (above.count("\n") + 1)) * bool(above)
    foot = (0.1 + 0.16 * (below.count("\n") + 1)) * bool(below)
    fig = Figure(figsize=(round(DPI * width) / DPI, round(DPI * (height + head + foot)) / DPI))
    width, total = fig.get_size_inches()
    _write(fig, 0.08, 0.1, above, va="top", fontsize=12, weight="bold")
    _write(fig, 0.08, total - 0.07, below, va="bottom", fontsize=9, color=MUTED)
    if left is not None:
        rect = (left / width, foot / total, 1 - left / width, 1 - (head + foot) / total)
        fig.set_layout_engine("constrained", w_pad=0.08, h_pad=0.07, wspace=0.04, hspace=0.06, rect=rect)
    return fig, head


def _write(fig: Figure, x: float, y: float, text: str, **options) -> None:
    """Text at a place in inches from the upper left corner."""
    width, height = fig.get_size_inches()
    fig.text(x / width, 1 - y / height, text, **options).set_in_layout(False)


def _figure(width: float, height: float, title: str, note: str, *grid: int, **ratios):
    """A figure that lays itself out, and its axes, one or a grid of them."""
    fig, _ = _page(width, height, title, note, left=0)
    return fig, fig.subplots(*grid, **ratios)


def _legend(fig: Figure, handles: Mapping | None = None, **options) -> None:
    """One legend for the whole figure, in lines between its title and its axes."""
    engine = fig.get_layout_engine()
    left, bottom, width, height = engine.get()["rect"]
    if handles is None:
        found, texts = fig.axes[0].get_legend_handles_labels()
        handles = dict(zip(texts, found, strict=True))
    num_columns = int(np.clip(fig.get_figwidth() / (0.65 + 0.075 * max(map(len, handles))), 1, 6))
    options = {"handlelength": 1.6, "columnspacing": 1.6, "ncols": num_columns, **options}
    legend = fig.legend(handles.values(), handles, loc="upper left", bbox_to_anchor=(0, bottom + height), **options)
    legend.set_in_layout(False)
    lines = -(-len(handles) // num_columns)
    engine.set(rect=(left, bottom, width, height - (0.1 + 0.2 * lines) / fig.get_figheight()))


# --- curves -----------------------------------------------------------------------------------------------------------
def curves(history, metrics: Sequence[str] | Mapping[str, str], baselines: Mapping[str, Mapping] | None = None,
           best: int | None = None, title="", note="") -> Figure:
    """Metrics over epochs, one axes each: training and validation together, baselines as dashed lines.

    history    a table with columns such as `epoch`, `loss_train`, `loss_valid`; or a list of them (seeds: their mean,
               and a band from lowest to highest); or a dict method -> either
    metrics    columns without `_train` / `_valid`; a dict gives their axis labels. Accuracies are fractions
    baselines  {metric: {method or any label: value in the history's unit}}
    best       the chosen epoch, marked by a ring
    """
    metrics = metrics if isinstance(metrics, Mapping) else {m: LABELS.get(m, m) for m in metrics}
    methods = history if isinstance(history, Mapping) else {None: history}
    runs = {method: h if isinstance(h, list) else [h] for method, h in methods.items()}
    width, height = (WIDTH, 3.1) if len(metrics) > 1 else (6.4, 3.5)
    fig, axes = _figure(width, height, title, note, 1, len(metrics), squeeze=False)
    handles = {}
    for ax, (metric, label) in zip(axes[0], metrics.items(), strict=True):
        for method, tables in runs.items():
            scale = _draw_runs(ax, handles, metric, method, tables, best)
        ax.set(xlabel=LABELS["epoch"], ylabel=label)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        lines = {name: value * scale for name, value in (baselines or {}).get(metric, {}).items()}
        _baselines(ax, lines, 72 * (height - 1.1))
    if (num_runs := max(map(len, runs.values()))) > 1:
        handles[f"band: lowest to highest of {num_runs} runs"] = Rectangle((0, 0), 1, 1, color=MUTED, alpha=0.3)
    if handles:
        last = ("training (", "chosen", "band")
        _legend(fig, dict(sorted(handles.items(), key=lambda item: item[0].startswith(last))))
    return fig


def _draw_runs(ax, handles: dict, metric: str, method: str | None, tables: Sequence, best: int | None) -> float:
    """One method's curves of one metric, their handles for the legend, and the factor that makes it percent."""
    tables = [pd.DataFrame(table).set_index("epoch") for table in tables]
    values = {part: pd.concat([table[metric + part] for table in tables], axis=1, join="inner").dropna()
              for part in ("_train", "_valid", "") if metric + part in tables[0]}
    if not values:
        raise ValueError(f"no column {metric}, {metric}_train or {metric}_valid; it has: {', '.join(tables[0])}.")
    scale = 100 if metric.startswith("accuracy") else 1
    for part, frame in values.items():
        epochs, stack = frame.index.to_numpy(), scale * frame.to_numpy().T
        tone, thin = COLORS[method or part[1:] or "valid"], method is not None and part == "_train"
        line = ax.plot(epochs, stack.mean(0), color=tone, lw=0.9 if thin else 1.8, alpha=0.75 if thin else 1,
                       marker="o" if len(epochs) < 6 else None, ms=4)[0]
        ax.fill_between(epochs, stack.min(0), stack.max(0), color=tone, alpha=0.18, lw=0)
        if thin:
            handles["training (thin)"] = Line2D([], [], color=MUTED, lw=0.9)
        elif method or part:
            handles[name_of(method or part[1:])] = line
        if part == "_valid" and best in epochs:
            ring = ax.plot(best, stack.mean(0)[epochs == best], "o", color=tone, ms=7, mfc="white", mew=1.8)[0]
            handles[f"chosen epoch ({best})"] = ring
    return scale


def _baselines(ax, values: Mapping[str, float], points: float) -> None:
    """Dashed lines, named in the right margin of axes of about so many points' height."""
    if not values:
        return
    ax.margins(y=0.08)
    values = dict(sorted(values.items(), key=lambda item: item[1]))
    for name, value in values.items():
        ax.axhline(value, color=COLORS.get(name, MUTED), ls=DASHED, lw=1.3, zorder=1.5)
    low, high = ax.get_ylim()
    at = (np.array([*values.values()]) - low) / (high - low)
    for (name, value), y in zip(values.items(), _apart(at, 28 / points), strict=True):
        number = f"{value:.2g}" if abs(value) < 0.1 else f"{value:.3f}" if abs(value) < 1.5 else f"{value:.2f}"
        ax.annotate(f"{name_of(name)}\n{number}", (1, y), (5, 0), "axes fraction", "offset points",
                    va="center", fontsize=9, linespacing=1.05, color=MUTED)


def _apart(at: np.ndarray, size: float) -> np.ndarray:
    """The centres of labels of this size, near the places `at` (rising), without overlap."""
    for _ in range(50):
        for i in range(len(at) - 1):
            at[i : i + 2] += np.array([-0.5, 0.5]) * max(0, size - (at[i + 1] - at[i]))
    return at


# --- images -----------------------------------------------------------------------------------------------------------
def _draw(fig: Figure, place: Sequence[float], image: np.ndarray, size: tuple[int, int], text="", window=()):
    """The axes of an image over the pixel grid of `size` (H, W) at (left, top, width, height), or of its `window`.
    The place is rounded to whole dots, so that upsampled pixels are squares of one size.
    """
    width, height = fig.get_size_inches()
    x, y, wide, tall = (round(DPI * inches) / DPI for inches in place)
    ax = fig.add_axes((x / width, 1 - (y + tall) / height, wide / width, tall / height))
    top, left, h, w = window or (0, 0, *size)
    dots = wide * DPI / image.shape[1] * size[1] / w  # a pixel's side
    squares = dots >= 3 or (dots > 0.99 and abs(dots - round(dots)) < 0.01)
    filtering = "nearest" if squares else "antialiased"
    ax.imshow(image, extent=(0, size[1], size[0], 0), aspect="auto", interpolation=filtering)
    ax.set(xticks=[], yticks=[], xlim=(left, left + w), ylim=(top + h, top))
    ax.grid(False)
    tone = BAD if "✗" in text else GOOD if "✓" in text else INK
    edge, line = (MARK, 1.5) if window else (LIGHT, 0.6) if tone == INK else (tone, 1.8)
    ax.spines[:].set(visible=True, color=edge, linewidth=line)
    if text:
        ax.set_title(text, fontsize=9, weight="normal", loc="center", pad=3.5, color=tone, linespacing=1.15)
    return ax


def _cell(room: float, pixels: int) -> float:
    """The width (inches) of an image so many pixels wide: at most `room`, and small pixels on whole dots."""
    dots = int(DPI * min(room, 1.6 if pixels <= 64 else 3.1))
    step = pixels if pixels <= min(dots, 64) else 24
    return max(dots // step, 1) * step / DPI


def _caption_height(texts: Iterable[str]) -> float:
    return max((0.24 + 0.15 * text.count("\n") for text in texts if text), default=0)


def _place_of_difference(images: Sequence[np.ndarray], height: int, width: int) -> tuple[int, int]:
    """Where (top, left) a window of that size lies in which the images differ most."""
    grey = np.stack([image.mean(2) for image in images])
    total = np.pad(np.ptp(grey, axis=0), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    strips = total[height:] - total[:-height]
    sums = strips[:, width:] - strips[:, :-width]
    top, left = np.unravel_index(sums.argmax(), sums.shape)
    return int(top), int(left)


def panel(columns: Mapping[str, Iterable], titles: Mapping[str, Sequence[str]] | None = None,
          row_names: Sequence[str] = (), crops: Sequence = (), title="", note="", right=0.06) -> Figure:
    """Images compared: a row per image, a column per method, all of one size, a zoomed crop below each.

    columns    method or heading -> N images; smaller ones (the low-resolution input) are shown at the same size
    titles     the same names -> N texts such as "28.80 dB / 0.869"; with ✓ or ✗ in it, it is green or red
    crops      N rectangles (top, left, height, width) in pixels of the largest image of the row
    """
    titles, rows = titles or {}, [[_image(image) for image in row] for row in zip(*columns.values(), strict=True)]
    gap, margin, between = 0.07, 0.32 if row_names else 0.06, 0.06 if titles else 0.1
    room = (WIDTH - margin - right - gap * (len(columns) - 1)) / len(columns)
    cell = _cell(room, max(image.shape[1] for row in rows for image in row))
    sizes = [max(image.shape[:2] for image in row) for row in rows]
    captions = [_caption_height(texts[r] for texts in titles.values()) for r in range(len(rows))]
    heights = [min(cell * h / w, 1.25 * cell) for h, w in sizes]
    zooms = [gap + cell * tall / wide for _, _, tall, wide in crops] or [0] * len(rows)
    body = 0.34 + sum(captions) + sum(heights) + sum(zooms) + between * (len(rows) - 1)
    fig, y = _page(margin + right + len(columns) * (cell + gap) - gap, body, title, note)
    for c, name in enumerate(columns):
        _write(fig, margin + c * (cell + gap) + cell / 2, y + 0.23, name_of(name), ha="center", weight="bold")
    y += 0.28
    for r, (row, size, tall) in enumerate(zip(rows, sizes, heights, strict=True)):
        y += captions[r]
        if row_names:
            _write(fig, margin - 0.08, y + (tall + zooms[r]) / 2, row_names[r], rotation=90, ha="right", va="center",
                   fontsize=9.5, color=MUTED)
        for c, (name, image) in enumerate(zip(columns, row, strict=True)):
            x, wide = margin + c * (cell + gap), tall * size[1] / size[0]
            text = titles[name][r] if name in titles else ""
            ax = _draw(fig, (x + (cell - wide) / 2, y, wide, tall), image, size, text)
            if crops:
                top, left, height, width = crops[r]
                frame = Rectangle((left, top), width, height, fill=False, ec=MARK, lw=1.5)
                frame.set_path_effects([patheffects.withStroke(linewidth=2.8, foreground="black", alpha=0.55)])
                ax.add_patch(frame)
                _draw(fig, (x, y + tall + gap, cell, zooms[r] - gap), image, size, window=crops[r])
        y += tall + zooms[r] + between
    return fig


def _captions(scores, chosen: Sequence[str], methods: Sequence[str], caption: str) -> dict[str, list[str]]:
    """{method: scores of the chosen images as texts}; what has no value, such as the PSNR of the truth, is left out."""
    rows = {(row["image"], row["method"]): row for row in pd.DataFrame(scores).to_dict("records")}

    def text(key: tuple[str, str]) -> str:
        parts = caption.format(**rows[key]).split(", ") if key in rows else []
        return ", ".join(part for part in parts if "nan" not in part)

    texts = {method: [text((name, method)) for name in chosen] for method in methods}
    return {method: column for method, column in texts.items() if any(column)}


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
    return panel(columns, _captions(scores, chosen, methods, caption), list(chosen), (), title, note)


def scored_dots(scores, methods: Sequence[str], xlabel: str = LABELS["psnr_db"], title="", note="") -> Figure:
    """The PSNR of each image as a dot per method, the means of each set, and the gain of the last over the one before.
    scores: a table with columns `set`, `image`, `method`, `psnr_db`.
    """
    scores = pd.DataFrame(scores)
    sets = scores.drop_duplicates("image").set_index("image")["set"]
    values = scores.pivot(index="image", columns="method", values="psnr_db").loc[sets.index, list(methods)]
    means, num = values.groupby(sets, sort=False).mean(), len(values)
    labels = [*values.index, *(f"mean, {name}" if len(means) > 1 else "mean" for name in means.index)]
    at = np.append(np.arange(num), num + 0.4 + np.arange(len(means)))
    values = pd.concat([values, means])
    fig, ax = _figure(WIDTH, 1.15 + 0.27 * len(at), title, note)
    ax.hlines(at, values.min(axis=1), values.max(axis=1), color=LIGHT, lw=2.5, zorder=1)
    for method in methods:
        ax.plot(values[method], at, "o", ms=7.5, color=COLORS[method], mec="white", mew=0.8, label=name_of(method))
    before, last = methods[-2:]
    for y, gain in zip(at, values[last] - values[before], strict=True):
        _number_beside(ax, y, _signed(gain), 46, y >= num, fontsize=9)
    _number_beside(ax, -0.7, f"{name_of(last)} − {name_of(before)}", 46, False, va="bottom", color=MUTED, fontsize=9)
    ax.axhline(num - 0.3, color=LIGHT, lw=0.8)
    _name_rows(ax, at, labels, xlabel, at >= num)
    _legend(fig, handletextpad=0.2)
    return fig


def image_grid(images: Iterable, titles: Sequence[str] = (), num_columns: int = 8, title="", note="") -> Figure:
    """Images (3, H, W) of one shape, whatever their size, a text above each; with ✓ or ✗ in it, it is green or red."""
    images = [_image(image) for image in images]
    titles, num_columns, gap = titles or [""] * len(images), min(num_columns, len(images)), 0.1
    cell = _cell((WIDTH - 0.12 - gap * (num_columns - 1)) / num_columns, max(image.shape[1] for image in images))
    tall = cell * images[0].shape[0] / images[0].shape[1]
    rows = [slice(start, start + num_columns) for start in range(0, len(images), num_columns)]
    captions = [_caption_height(titles[row]) for row in rows]
    body = 0.1 + sum(captions) + (tall + gap) * len(rows) - gap
    fig, y = _page(0.12 + cell * num_columns + gap * (num_columns - 1), body, title, note)
    y += 0.04
    for row, caption in zip(rows, captions, strict=True):
        y += caption
        for c, (image, text) in enumerate(zip(images[row], titles[row], strict=True)):
            _draw(fig, (0.06 + c * (cell + gap), y, cell, tall), image, image.shape[:2], text)
        y += tall + gap
    return fig


def marked(predicted, labels, classes: Sequence[str], probabilities=None, separator="\n") -> list[str]:
    """Predictions as captions: "✓ cat" where right, "✗ dog" where not, or with their probability "✗ 64 %\\ndog"."""
    sure = ["" if share is None else f"{100 * share:.0f} %{separator}"
            for share in ([None] * len(labels) if probabilities is None else probabilities)]
    return [f"{'✓' if guess == truth else '✗'} {share}{classes[guess]}"
            for guess, truth, share in zip(predicted, labels, sure, strict=True)]


def diverging(images, columns: Sequence[str], label: str, row_names: Sequence[str] = (), title="", note="") -> Figure:
    """Differences of luma, in [-1, 1], in grey levels of 255: blue where it rose, orange where it fell.
    images: rows, each (C, H, W) for the C names in `columns`. label: of the colour bar.
    """
    rows = 255 * np.stack([_numpy(row) for row in images]).astype(float)
    top = max(np.percentile(abs(rows), 99.5), 0.5)  # a few outliers would leave the rest pale
    shades = ScalarMappable(Normalize(-top, top), DIVERGING)
    colored = np.moveaxis(DIVERGING(shades.norm(rows))[..., :3], -1, 2)
    fig = panel(dict(zip(columns, colored.swapaxes(0, 1), strict=True)), {}, row_names, (), title, note, right=0.9)
    boxes, width = np.array([ax.get_position().extents for ax in fig.axes]), fig.get_figwidth()
    low, right, high = boxes[:, 1].min(), boxes[:, 2].max(), boxes[:, 3].max()
    axes = fig.add_axes((right + 0.1 / width, low, 0.13 / width, high - low))
    fig.colorbar(shades, axes, label=label, extend="both").outline.set_visible(False)
    return fig


# --- ladder -----------------------------------------------------------------------------------------------------------
def ladder(paths: Mapping[str, Sequence[Mapping]], ceiling: Mapping, arms: Sequence[Mapping], headings: tuple[str, str],
           xlabel: str, title="", note="") -> Figure:
    """The way from floor to ceiling, step by step, and beside it, zoomed in, the arms at its upper end.

    paths     heading -> steps in order, each {"label": "super-resolution", "value": 88.20}: the level reached. The
              first is the floor; the others are drawn as what they add. "accent": True for the point of the figure
    ceiling   {"label": "clean images", "value": 91.5}
    arms      {"label", "value", "low", "high", "seeds": [...], "accent"}: the ends of the 95 % interval as a line,
              a small dot per seed; the first is the one compared with, marked by a dashed line
    """
    height = 0.95 + 0.3 * max(sum(len(steps) + 1 for steps in paths.values()), len(arms))
    fig, axes = _figure(WIDTH, height, title, note, 1, 2, width_ratios=(1.25, 1))
    _waterfall(axes[0], paths, ceiling, xlabel)
    _draw_arms(axes[1], arms, xlabel)
    for ax, heading in zip(axes, headings, strict=True):
        ax.set_title(heading, pad=20)
    return fig


def _waterfall(ax, paths: Mapping[str, Sequence[Mapping]], ceiling: Mapping, xlabel: str) -> None:
    low, high, labels = min(steps[0]["value"] for steps in paths.values()), ceiling["value"], []
    span = high - low or 1.0
    ax.set_xlim(low - 0.05 * span, high + 0.03 * span)
    ax.axvline(high, color=INK, ls=DASHED, lw=1.2)
    ax.annotate(f"{ceiling['label']} {high:.1f}", (high, 1), (0, 4), ax.get_xaxis_transform(), "offset points",
                ha="right", fontsize=9.5)
    for name, steps in paths.items():
        labels += [name, *(step["label"] for step in steps)]
        before = None
        for y, step in enumerate(steps, len(labels) - len(steps)):
            value, accent = step["value"], bool(step.get("accent"))
            if before is None:
                ax.plot(value, y, "o", color=MUTED, ms=7)
            else:
                added, tone = value - before, ACCENT if accent else GREY
                ax.plot([before] * 2, [y - 0.69, y - 0.31], color=MUTED, lw=0.9)
                ax.barh(y, added, 0.62, left=before, color=tone, ec=tone, lw=1.2)
                x, shift, align, ink = min(value, before), -6, "right", ACCENT if accent else MUTED
                if abs(added) > 0.2 * span:  # inside the bar
                    x, shift, align, ink = (value + before) / 2, 0, "center", _on(tone)
                ax.annotate(_signed(added, 1 if abs(added) >= 10 else 2), (x, y), (shift, 0), ha=align, color=ink,
                            textcoords="offset points", va="center_baseline", weight="bold")
            _number_beside(ax, y, f"{value:.1f}", 34, accent)
            before = value
    _name_rows(ax, range(len(labels)), labels, xlabel, [label in paths for label in labels], fontsize=9.5)


def _number_beside(ax, y: float, text: str, points: float, bold: bool, **options) -> None:
    """A number in the right margin, which ends so many points from the axes."""
    ax.annotate(text, (1, y), (points, 0), ax.get_yaxis_transform(), "offset points", ha="right",
                **{"va": "center_baseline", "weight": "bold" if bold else "normal", **options})


def _draw_arms(ax, arms: Sequence[Mapping], xlabel: str) -> None:
    ax.axvline(arms[0]["value"], color=MUTED, ls=DASHED, lw=1, zorder=1)
    for y, arm in enumerate(arms):
        accent = bool(arm.get("accent"))
        tone, seeds = ACCENT if accent else MUTED, arm["seeds"]
        ax.plot([arm["low"], arm["high"]], [y, y], color=tone, lw=2)
        ax.plot(seeds, [y + 0.27] * len(seeds), "o", color=tone, ms=3.2, alpha=0.75, mew=0)
        ax.plot(arm["value"], y, "o", color=tone, ms=8, mec="white", mew=1)
        _number_beside(ax, y, f"{arm['value']:.2f}", 38, accent)
    ax.margins(x=0.06)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    _name_rows(ax, range(len(arms)), [arm["label"] for arm in arms], xlabel, [False] * len(arms), fontsize=9.5)


def _name_rows(ax, at: Sequence[float], labels: Sequence[str], xlabel: str, bold: Sequence[bool], **options) -> None:
    """Rows from above, some of their names bold, and grid lines for values that run to the right."""
    ax.set_yticks(at, labels, **options)
    for text, is_bold in zip(ax.get_yticklabels(), bold, strict=True):
        text.set_weight("bold" if is_bold else "normal")
    ax.set(ylim=(at[-1] + 0.6, -0.6), xlabel=xlabel)
    ax.grid(False, axis="y")
    ax.grid(axis="x")
    ax.spines["left"].set_visible(False)


def hero(strips: Sequence[Mapping], columns: Sequence[str], paths: Mapping[str, Sequence[Mapping]], ceiling: Mapping,
         xlabel: str, title="", note="", font: str | None = None) -> Figure:
    """The study at a glance: left, test images as each arm sees and classifies them; right, the ladder.

    strips   {"label": what the strip shows, "images": a (3, H, W) per column, "captions": a text per column}; a caption
             with ✓ or ✗ is green or red
    columns  the headings, e.g. input, control, frozen, clean; paths and ceiling: as for `ladder`
    font     for a language that DejaVu Sans cannot write
    """
    tile, step = 192 / DPI, 192 / DPI + 0.07
    fig, head = _page(WIDTH, 0.34 + (tile + 0.46) * len(strips), title, note, left=0.3 + len(columns) * step)
    for c, name in enumerate(columns):
        x = 0.1 + c * step
        _write(fig, x + tile / 2, head + 0.2, name, ha="center", weight="bold")
        for s, strip in enumerate(strips):
            y, image = head + 0.3 + s * (tile + 0.46), _image(strip["images"][c])
            _draw(fig, (x, y + 0.4, tile, tile), image, image.shape[:2], strip["captions"][c])
            _write(fig, x, y + 0.15, "" if c else strip["label"], fontsize=9.5, color=MUTED)
    _waterfall(fig.add_subplot(), paths, ceiling, xlabel)
    for text in fig.findobj(Text) if font else ():
        text.set_family([font, "DejaVu Sans"])
    return fig


# --- classification ---------------------------------------------------------------------------------------------------
def _cells(ax, values: np.ndarray, palette, low: float, high: float, texts: np.ndarray, bold: np.ndarray):
    """A table of numbers as coloured cells with a text in each."""
    image = ax.imshow(np.ma.masked_invalid(values), cmap=palette, vmin=low, vmax=high, aspect="auto")
    fills = image.to_rgba(np.ma.masked_invalid(values))
    for (row, column), text in np.ndenumerate(texts):
        ax.text(column, row, text, ha="center", va="center", fontsize=9.5, color=_on(fills[row, column, :3]),
                weight="bold" if bold[row, column] else "normal")
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
    fig, axes = _figure(width, side * 0.9 + 1.5, title, note, 1, len(shares), squeeze=False)
    for ax, name, share in zip(axes[0], matrices, shares, strict=True):
        texts = np.where(share >= 0.5, np.char.mod("%.0f", share), "")
        _cells(ax, np.where(diagonal, np.nan, share), REDS, 0, max(top, 1e-9), texts, diagonal)
        ax.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
        ax.set(xlabel="Predicted class", title=name)
    axes[0, 0].set_yticks(range(len(classes)), classes)
    axes[0, 0].set_ylabel("True class (cells: % of its images)")
    return fig


def heatmap(table: pd.DataFrame, differences: Sequence[tuple[str, str]], title="", note="") -> Figure:
    """Accuracy (a fraction) per model (row) and degradation (column), the highest of each column bold.
    differences: pairs of row names, [("frozen", "control")]; a row for each, first minus second, is set apart below.
    """
    table = 100 * table
    values = table.to_numpy()
    gaps = np.array([table.loc[a] - table.loc[b] for a, b in differences])
    width, height = min(WIDTH, 2.6 + 1.05 * values.shape[1]), 1.2 + 0.4 * (len(values) + len(gaps))
    fig, (upper, lower) = _figure(width, height, title, note, 2, 1, height_ratios=(len(values), len(gaps)))
    low, high, top = values.min(), values.max(), max(abs(gaps).max(), 1e-9)
    span = max(high - low, 1e-9)
    texts, best = np.char.mod("%.1f", values), values == values.max(0)
    _cells(upper, values, BLUES, low - 0.15 * span, high + 0.1 * span, texts, best)
    upper.set_yticks(range(len(values)), [name_of(name) for name in table.index])
    upper.set_title("Accuracy (%), highest of each column in bold", weight="normal", fontsize=9, color=MUTED)
    texts = np.array([[_signed(gap, 1) for gap in row] for row in gaps])
    _cells(lower, gaps, DIVERGING, -1.3 * top, 1.3 * top, texts, np.ones_like(gaps, bool))
    lower.set_yticks(range(len(gaps)), [f"{name_of(a)} − {name_of(b).lower()}" for a, b in differences])
    lower.set_xticks(range(values.shape[1]), [textwrap.fill(name_of(name), 11) for name in table.columns])
    return fig
