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
from matplotlib import font_manager, patheffects, pyplot
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
    "joint": "#D55E00", "task_only": "#E6A400", "distilled": "#7A1F5C", "feature_loss": "#6F8F2F",
    "train": "#8FB3DA", "valid": "#1B4B8A",
    "srresnet": "#44AA99", "srgan": "#AA4499", "resshuffle": "#117733", "single": "#44AA99",
    "mse": "#56B4E9", "perceptual": "#CC79A7", "regularised": "#00875F", "fast": "#D55E00", "slow": "#E6A400",
    "classify": "#44AA99", "restore": "#56B4E9", "separate": "#E6A400",
    "flip_averaged": "#CC6677", "chroma": "#6A51A3", "unet": "#5C3A1E", "grey": "#A9A9A9", "reference": "#A6761D",
}
NAMES = {
    "truth": "Ground truth", "srnet": "SRNet", "srnet, self-ensemble": "SRNet, self-ensemble",
    "srresnet": "SRResNet", "srgan": "SRGAN", "resshuffle": "ResShuffle", "unet": "RGB, our recipe",
    "mse": "1: MSE", "perceptual": "2: + perceptual", "regularised": "3, 5: + L1 and L2", "fast": "4: rate 1e-3",
    "slow": "6: rate 1e-5", "chroma": "Chroma, our recipe", "train": "training", "valid": "validation",
    "capacity": "Capacity control", "flip_averaged": "Clean, flip averaged",
    "reference": "The course document's recipe",
}
LABELS = {
    "epoch": "Epoch", "loss": "Loss", "l1": "L1 loss", "cross_entropy": "Cross-entropy", "ssim": "SSIM",
    "psnr_db": "PSNR (dB)", "accuracy": "Accuracy (%)", "learning_rate": "Learning rate",
    "time_seconds": "Time (s)", "niqe": "NIQE (lower is better)", "features": "Feature loss",
    "mse": "Mean squared error", "adversarial": "Adversarial loss", "discriminator": "Discriminator's loss",
    "chroma_error": "Chroma error (CIELAB)",
}
DASHED = (0, (4, 2.5))
BLUES = LinearSegmentedColormap.from_list("blues", ["#FFFFFF", "#CFE0EF", "#6CA6CF", "#0072B2", "#083A5E"])
REDS = LinearSegmentedColormap.from_list("reds", ["#FFFFFF", "#FBE0CB", "#F0A36B", "#D55E00"])
REDS = REDS.with_extremes(bad="#ECEEF0")
DIVERGING = LinearSegmentedColormap.from_list(
    "diverging", ["#8A2F05", "#D55E00", "#F3B587", "#FFFFFF", "#8DBBDC", "#0072B2", "#083A5E"])


def use_style() -> None:
    """Set matplotlib's defaults to the look of this project; importing the module does it once."""
    matplotlib.rcParams.update({
        "font.family": "DejaVu Sans", "font.size": 10, "text.color": INK, "axes.labelcolor": INK,
        "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 8,
        "axes.labelsize": 10, "axes.edgecolor": "#9AA0A6", "axes.linewidth": 0.8, "axes.axisbelow": True,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.grid.axis": "y",
        "grid.color": "#E8EAED", "grid.linewidth": 0.8, "xtick.labelsize": 9, "ytick.labelsize": 9,
        "xtick.color": "#9AA0A6", "ytick.color": "#9AA0A6", "xtick.labelcolor": INK, "ytick.labelcolor": INK,
        "xtick.major.size": 3, "ytick.major.size": 0, "legend.frameon": False, "legend.fontsize": 9.5,
        "lines.linewidth": 1.8, "lines.solid_capstyle": "round", "figure.titlesize": 12,
        "figure.titleweight": "bold", "figure.facecolor": "white", "savefig.facecolor": "white",
    })


use_style()


def color(method: str) -> str:
    """The colour of a method, the same in every figure."""
    if method not in COLORS:
        raise ValueError(f"no colour for the method {method!r}; use one of {', '.join(COLORS)}, or add it to COLORS.")
    return COLORS[method]


def name_of(method: str) -> str:
    """How a method is written in a figure: `task_only` -> `Task only`; any other text is left as it is."""
    return NAMES.get(method) or (method.replace("_", " ").capitalize() if method in COLORS else str(method))


# ---------------------------------------------------------------------------------------------- show and save


def show(fig: Figure, name: str | None = None, folder: str | Path | None = None, photo: bool = False, alt: str = "",
         quiet: bool = False) -> None:
    """Save the figure as `folder/name.png`, display the same bytes in a notebook, and close it.

    `photo=True` writes a JPEG instead, several times smaller for photographs. Without a name the figure is only
    displayed; outside a notebook, or with `quiet=True`, it is only saved. `alt` is read to those who do not see it.
    In a process of a group other than the first (RANK set and not 0) nothing is written or displayed.
    """
    if (name is None) != (folder is None):
        raise ValueError(f"show needs a name and a folder to save (found name={name!r}, folder={folder!r}); "
                         "give both, or neither to display only.")
    pyplot.close(fig)
    if os.environ.get("RANK", "0") != "0":
        return
    content = _jpeg(fig) if photo else _png(fig)
    if name is not None:
        path = Path(folder) / f"{name}.{'jpg' if photo else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:  # the file appears whole or not at all
            beside.write_bytes(content)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    if in_notebook() and not quiet:
        from IPython.display import Image, display

        display(Image(data=content, format="jpeg" if photo else "png", width=round(fig.get_figwidth() * 96),
                      alt=alt or (name or "figure").replace("_", " ")))


def _png(fig: Figure) -> bytes:
    """Sharp and small: a figure without images is written in its 256 main colours."""
    buffer, small = io.BytesIO(), io.BytesIO()
    fig.savefig(buffer, format="png", dpi=DPI)
    page = PIL.Image.open(buffer).convert("RGB")
    if all(image.get_array().size <= 400 for image in fig.findobj(AxesImage)):  # cells, not images
        page = page.quantize(256, dither=PIL.Image.Dither.NONE)
    page.save(small, "png", optimize=True)
    return small.getvalue()


def _jpeg(fig: Figure, most: int = 300_000) -> bytes:
    """Quality 85 if that fits into `most` bytes, else the best that does."""
    for dpi, quality in ((DPI, 85), (DPI, 75), (144, 80), (144, 65), (144, 50), (96, 80)):
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


def _percent(values, known_by=None) -> np.ndarray:
    """Accuracies as percent: numbers that never pass 1 (of these, or of `known_by`) are read as fractions."""
    values = np.asarray(values, float)
    return values * (100 if np.nanmax(values if known_by is None else known_by) <= 1 else 1)


def _same_length(**lists) -> None:
    lengths = {name: len(values) for name, values in lists.items() if values is not None}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise ValueError(f"expected the same number of entries, at least one, in each; found {lengths}.")


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


def _page(width: float, height: float, title: str, note: str) -> tuple[Figure, float, float]:
    """A figure with room for a body of that height, and the heights (inches) of its title and of its small print."""
    above, below = _wrap(title, width - 0.2, 12), _wrap(note, width - 0.2, 8.5)
    head = (0.12 + 0.2 * (above.count("\n") + 1)) * bool(above)
    foot = (0.1 + 0.16 * (below.count("\n") + 1)) * bool(below)
    fig = Figure(figsize=(round(DPI * width) / DPI, round(DPI * (height + head + foot)) / DPI))
    _write(fig, 0.08, 0.1, above, va="top", fontsize=12, weight="bold")
    _write(fig, 0.08, fig.get_figheight() - 0.07, below, va="bottom", fontsize=9, color=MUTED)
    return fig, head, foot


def _write(fig: Figure, x: float, y: float, text: str, **options) -> None:
    """Text at a place in inches from the upper left corner."""
    if text:
        width, height = fig.get_size_inches()
        fig.text(x / width, 1 - y / height, text, **options).set_in_layout(False)


def _figure(width: float, height: float, title: str = "", note: str = "") -> Figure:
    """A figure that lays itself out between its title and its small print."""
    fig, head, foot = _page(width, height, title, note)
    total = fig.get_figheight()
    fig.set_layout_engine("constrained", w_pad=0.08, h_pad=0.07, wspace=0.04, hspace=0.06,
                          rect=(0, foot / total, 1, 1 - (head + foot) / total))
    return fig


def _legend(fig: Figure, handles: Mapping | None = None, **options) -> None:
    """One legend for the whole figure, in lines between its title and its axes."""
    engine = fig.get_layout_engine()
    left, bottom, width, height = engine.get()["rect"]
    if handles is None:
        found, texts = fig.axes[0].get_legend_handles_labels()
        handles = dict(zip(texts, found, strict=True))
    num_columns = int(np.clip(fig.get_figwidth() / (0.65 + 0.075 * max(map(len, handles))), 1, 6))
    legend = fig.legend(list(handles.values()), list(handles), loc="upper left", bbox_to_anchor=(0, bottom + height),
                        ncols=num_columns, columnspacing=1.6, **{"handlelength": 1.6, **options})
    legend.set_in_layout(False)
    lines = -(-len(handles) // num_columns)
    engine.set(rect=(left, bottom, width, height - (0.1 + 0.2 * lines) / fig.get_figheight()))


def _in_font(fig: Figure, font: str | None) -> Figure:
    """The words of a figure in a font, its name or its file, for a language that DejaVu Sans cannot write."""
    if font and Path(font).is_file():
        font_manager.fontManager.addfont(font)
        font = font_manager.FontProperties(fname=font).get_name()
    for text in fig.findobj(Text) if font else ():
        text.set_family([font, "DejaVu Sans"])
    return fig


# ----------------------------------------------------------------------------------------------------- curves


def curves(history, metrics: Sequence[str] | Mapping[str, str], baselines: Mapping | None = None,
           best: int | Mapping[str, int] | None = None, log: Sequence[str] = (), title: str = "",
           note: str = "") -> Figure:
    """Metrics over epochs, one axes each: training and validation together, baselines as dashed lines.

    history    a table with columns such as `epoch`, `loss_train`, `loss_valid`, `learning_rate`; or a list of them
               (seeds: their mean, and a band from lowest to highest); or a dict method -> either
    metrics    columns without `_train` / `_valid`; a dict gives their axis labels. Accuracies are shown in percent
    baselines  {metric: {method or any label: value in the history's unit}}
    best       the chosen epoch, marked by a ring; a dict method -> epoch for several methods
    log        the metrics whose axis is logarithmic
    """
    metrics = dict(metrics) if isinstance(metrics, Mapping) else {m: LABELS.get(m, m) for m in metrics}
    one = hasattr(history, "columns") or not isinstance(history, Mapping) or "epoch" in history
    methods = {None: history} if one else history
    runs = {m: [pd.DataFrame(t) for t in (h if isinstance(h, list | tuple) else [h])] for m, h in methods.items()}
    if not metrics or not runs or not all(runs.values()):
        raise ValueError("curves needs at least one metric and one history, found none.")
    best = best if isinstance(best, Mapping) else dict.fromkeys(runs, best)
    num_columns = len(metrics) if len(metrics) < 4 else 2 if len(metrics) == 4 else 3
    num_rows = -(-len(metrics) // num_columns)
    width, height = min(WIDTH, 1.6 + 4.8 * num_columns), 3.1 if num_columns > 1 else 3.5
    fig, handles = _figure(width, height * num_rows, title, note), {}
    for index, (metric, label) in enumerate(metrics.items()):
        ax = fig.add_subplot(num_rows, num_columns, index + 1)
        for method, tables in runs.items():
            scale = _draw_runs(ax, handles, metric, method, tables, best.get(method))
        ax.set(xlabel=LABELS["epoch"], ylabel=label, yscale="log" if metric in log else "linear")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        lines = {name: value * scale for name, value in (baselines or {}).get(metric, {}).items()}
        _baselines(ax, lines, 72 * (height - 1.1))
    if (num_runs := max(map(len, runs.values()))) > 1:
        band = Rectangle((0, 0), 1, 1, color=MUTED, alpha=0.3)
        handles[f"band: lowest to highest of {num_runs} runs"] = band
    if handles:
        order = sorted(handles, key=lambda text: text.startswith(("training (", "chosen", "band")))
        _legend(fig, {text: handles[text] for text in order})
    return fig


def _draw_runs(ax, handles: dict, metric: str, method: str | None, tables: Sequence[dict], best: int | None) -> float:
    """One method's curves of one metric, their handles for the legend, and the factor that makes it percent."""
    tables = [table.set_index("epoch") for table in tables]
    values = {part: pd.concat([table[metric + part] for table in tables], axis=1, join="inner").dropna()
              for part in ("_train", "_valid", "") if metric + part in tables[0]}
    if not values:
        raise ValueError(f"the history has no column {metric}, {metric}_train or {metric}_valid; "
                         f"it has: {', '.join(tables[0])}.")
    if best is not None and best not in tables[0].index:
        raise ValueError(f"the chosen epoch {best} is not in the history, whose last is {tables[0].index.max()}.")
    fractions = metric.startswith("accuracy") and max(frame.to_numpy().max() for frame in values.values()) <= 1
    scale = 100.0 if fractions else 1.0
    for part, frame in values.items():
        epochs, stack = frame.index.to_numpy(), scale * frame.to_numpy().T
        thin = method is not None and part == "_train"
        tone = color(method or part[1:] or "valid")
        line = ax.plot(epochs, stack.mean(0), color=tone, lw=0.9 if thin else 1.8, alpha=0.75 if thin else 1,
                       marker="o" if len(epochs) < 6 else None, ms=4)[0]
        ax.fill_between(epochs, stack.min(0), stack.max(0), color=tone, alpha=0.18, lw=0)
        if thin:
            handles["training (thin)"] = Line2D([], [], color=MUTED, lw=0.9)
        elif method or part:
            handles[name_of(method or part[1:])] = line
        if part == "_valid" and best in epochs:
            at = stack.mean(0)[epochs == best]
            ring = ax.plot(best, at, "o", color=tone, ms=7, mfc="white", mew=1.8)[0]
            handles["chosen epoch" if method else f"chosen epoch ({best})"] = ring
    return scale


def _baselines(ax, values: Mapping[str, float], points: float) -> None:
    """Dashed lines, named in the right margin of axes of about so many points' height; names keep apart."""
    if not values:
        return
    ax.margins(y=0.08)
    values = dict(sorted(values.items(), key=lambda item: item[1]))
    for name, value in values.items():
        ax.axhline(value, color=COLORS.get(name, MUTED), ls=DASHED, lw=1.3, zorder=1.5)
    low, high = ax.transScale.transform([(1, limit) for limit in ax.get_ylim()])[:, 1]
    at = (ax.transScale.transform([(1, value) for value in values.values()])[:, 1] - low) / (high - low)
    for i in [*range(len(at) - 1)] * 50:  # names that would overlap push each other apart
        at[i : i + 2] += np.array([-0.5, 0.5]) * max(0, 28 / points - (at[i + 1] - at[i]))
    for (name, value), y in zip(values.items(), at, strict=True):
        number = f"{value:.2g}" if abs(value) < 0.1 else f"{value:.3f}" if abs(value) < 1.5 else f"{value:.2f}"
        ax.annotate(f"{name_of(name)}\n{number}", (1, y), (5, 0), "axes fraction", "offset points",
                    va="center", fontsize=9, linespacing=1.05, color=MUTED)


# ----------------------------------------------------------------------------------------------------- images


def _draw(fig: Figure, place: Sequence[float], image: np.ndarray, size: tuple[int, int], text: str = "",
          window: Sequence[int] | None = None) -> matplotlib.axes.Axes:
    """An image over the pixel grid of `size` (H, W) at (left, top, width, height), or a window of that grid.

    The place is rounded to whole dots, so that upsampled pixels are squares of one size.
    """
    width, height = fig.get_size_inches()
    x, y, wide, tall = (round(DPI * inches) / DPI for inches in place)
    ax = fig.add_axes((x / width, 1 - (y + tall) / height, wide / width, tall / height))
    dots = wide * DPI / image.shape[1] * (1 if window is None else size[1] / window[3])  # a pixel's side
    squares = dots >= 3 or (dots > 0.99 and abs(dots - round(dots)) < 0.01)
    ax.imshow(image, extent=(0, size[1], size[0], 0), aspect="auto",
              interpolation="nearest" if squares else "antialiased")
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    tone = BAD if "✗" in text else GOOD if "✓" in text else INK
    edge, line = (LIGHT, 0.6) if tone == INK else (tone, 1.8)
    if window is not None:
        edge, line = MARK, 1.5
        ax.set(xlim=(window[1], window[1] + window[3]), ylim=(window[0] + window[2], window[0]))
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
    lines = max((text.count("\n") + 1 for text in texts if text), default=0)
    return 0.15 * lines + 0.09 * bool(lines)


def _most_different(images: Sequence[np.ndarray], dots: int) -> tuple[int, int, int, int]:
    """The window (top, left, height, width) where images (H, W, 3) differ most, or one varies most.

    About a fifth of the width, such that each of its pixels fills a whole number of `dots`.
    """
    h, w = images[0].shape[:2]
    wanted = min(5 * dots / w, dots / 12)
    zoom = min((k for k in range(1, dots + 1) if dots % k == 0), key=lambda k: abs(k - wanted))
    width = min(w, dots // zoom)
    height = min(h, max(1, round(0.62 * width)))
    grey = np.stack([image.mean(2) for image in images])
    spread = np.hypot(*np.gradient(grey[0])) if len(grey) == 1 else grey.max(0) - grey.min(0)
    total = np.pad(spread, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    strips = total[height:] - total[:-height]
    sums = strips[:, width:] - strips[:, :-width]
    top, left = np.unravel_index(sums.argmax(), sums.shape)
    return int(top), int(left), height, width


def _window(row: Sequence[np.ndarray], index: int, crops, dots: int) -> tuple[tuple[int, int], Sequence | None]:
    """The pixel grid (H, W) that the images of a row share, and the crop to show of it, checked."""
    h, w = max(image.shape[:2] for image in row)
    if any(abs(image.shape[0] / h - image.shape[1] / w) > 0.05 for image in row):
        found = [image.shape[:2] for image in row]
        raise ValueError(f"a row shows one scene in one shape, found {found} (H, W) in row {index}.")
    if crops is None:
        return (h, w), None
    if isinstance(crops, str):
        return (h, w), _most_different([image for image in row if image.shape[:2] == (h, w)], dots)
    top, left, tall, wide = crops[index]
    if min(top, left) < 0 or min(tall, wide) < 1 or top + tall > h or left + wide > w:
        raise ValueError(f"crop {index}, (top, left, height, width) = {tuple(crops[index])}, does not lie within "
                         f"the image of {h} x {w} pixels (H x W).")
    return (h, w), crops[index]


def panel(columns: Mapping[str, Iterable], titles: Mapping[str, Sequence[str]] | None = None,
          row_names: Sequence[str] | None = None, crops: str | Sequence | None = None, title: str = "",
          note: str = "", right: float = 0.06) -> Figure:
    """Images compared: a row per image, a column per method, all of one size, a zoomed crop below each.

    columns    method or heading -> N images (3, H, W); smaller ones (the low-resolution input) keep their
               square pixels at the same displayed size
    titles     the same names -> N texts such as "28.80 dB / 0.869"; with ✓ or ✗ in it, it is green or red
    row_names  N texts
    crops      "auto" (where the methods differ most) or N rectangles (top, left, height, width) in pixels of
               the largest image of the row
    right      the margin at the right (inches)
    """
    columns = {name: [_image(image) for image in images] for name, images in columns.items()}
    titles = titles or {}
    if not columns or set(titles) - set(columns):
        raise ValueError(f"panel needs columns, and titles for these alone; found the columns {list(columns)} and "
                         f"titles for {list(titles)}.")
    titled = {f"titles of {name}": texts for name, texts in titles.items()}
    _same_length(**columns, **titled, row_names=row_names, crops=None if crops == "auto" else crops)
    rows = list(zip(*columns.values(), strict=True))
    gap, margin = 0.07, 0.32 if row_names else 0.06
    room = (WIDTH - margin - right - gap * (len(columns) - 1)) / len(columns)
    cell = _cell(room, max(image.shape[1] for row in rows for image in row))
    shown = [_window(row, index, crops, round(cell * DPI)) for index, row in enumerate(rows)]
    captions = [_caption_height(texts[r] for texts in titles.values()) for r in range(len(rows))]
    heights = [min(cell * h / w, 1.25 * cell) for (h, w), _ in shown]
    zooms = [0 if window is None else gap + cell * window[2] / window[3] for _, window in shown]
    between = 0.06 if titles else 0.1
    body = 0.34 + sum(captions) + sum(heights) + sum(zooms) + between * (len(rows) - 1)
    fig, y, _ = _page(margin + right + len(columns) * (cell + gap) - gap, body, title, note)
    for c, name in enumerate(columns):
        _write(fig, margin + c * (cell + gap) + cell / 2, y + 0.23, name_of(name), ha="center", weight="bold")
    y += 0.28
    for r, (row, (size, window)) in enumerate(zip(rows, shown, strict=True)):
        y, tall = y + captions[r], heights[r]
        if row_names:
            _write(fig, margin - 0.08, y + (tall + zooms[r]) / 2, row_names[r], rotation=90, ha="right", va="center",
                   fontsize=9.5, color=MUTED)
        for c, (name, image) in enumerate(zip(columns, row, strict=True)):
            x, wide = margin + c * (cell + gap), tall * size[1] / size[0]
            text = titles[name][r] if name in titles else ""
            ax = _draw(fig, (x + (cell - wide) / 2, y, wide, tall), image, size, text)
            if window is not None:
                frame = Rectangle((window[1], window[0]), window[3], window[2], fill=False, ec=MARK, lw=1.5)
                shadow = patheffects.Stroke(linewidth=2.8, foreground="black", alpha=0.55)
                frame.set_path_effects([shadow, patheffects.Normal()])
                ax.add_patch(frame)
                _draw(fig, (x, y + tall + gap, cell, zooms[r] - gap), image, size, window=window)
        y += tall + zooms[r] + between
    return fig


def scored_panel(scores, images: Mapping[str, Mapping], chosen: Sequence[str], methods: Sequence[str],
                 caption: str = "{psnr_db:.2f} dB / {ssim:.4f}", title: str = "", note: str = "") -> Figure:
    """`panel` of measured images: a row per name in `chosen`, a column per method, its scores above each image.

    scores: a table with columns `image` and `method` and those that `caption` names. images: {name: {method: image}}.
    The crop is where the methods differ most.
    """
    rows = {(row["image"], row["method"]): row for row in pd.DataFrame(scores).to_dict("records")}

    def text(key: tuple[str, str]) -> str:  # what has no value, such as the PSNR of the truth, is left out
        parts = caption.format(**rows[key]).split(", ") if key in rows else []
        return ", ".join(part for part in parts if "nan" not in part)

    texts = {method: [text((name, method)) for name in chosen] for method in methods}
    columns = {method: [images[name][method] for name in chosen] for method in methods}
    texts = {method: column for method, column in texts.items() if any(column)}
    return panel(columns, texts, list(chosen), "auto", title, note)


def scored_dots(scores, methods: Sequence[str], xlabel: str = LABELS["psnr_db"], title: str = "",
                note: str = "") -> Figure:
    """`image_dots` of a table with columns `set`, `image`, `method`, `psnr_db`, in its order."""
    rows = {(row["image"], row["method"]): row for row in pd.DataFrame(scores).to_dict("records")}
    sets = {image: row["set"] for (image, _), row in rows.items()}
    values = {method: [rows[image, method]["psnr_db"] for image in sets] for method in methods}
    return image_dots(values, list(sets), xlabel, list(sets.values()), title, note)


def image_grid(images: Iterable, titles: Sequence[str] | None = None, num_columns: int | None = None, title: str = "",
               note: str = "") -> Figure:
    """Images (3, H, W) in rows of one height, a text above each; with ✓ or ✗ in it, it is green or red."""
    images = [_image(image) for image in images]
    _same_length(images=images, titles=titles)
    titles, gap = titles or [""] * len(images), 0.1
    largest = max(image.shape[1] for image in images)
    num_columns = min(num_columns or (8 if largest <= 64 else 4), len(images))
    cell = _cell((WIDTH - 0.12 - gap * (num_columns - 1)) / num_columns, largest)
    starts = range(0, len(images), num_columns)
    aspects = [image.shape[1] / image.shape[0] for image in images]
    heights = [cell * num_columns / sum(aspects[i : i + num_columns]) for i in starts]
    if len(images) % num_columns:  # a last row that is not full is as tall as its neighbours
        heights[-1] = min(heights[-1], min(heights[:-1]))
    captions = [_caption_height(titles[i : i + num_columns]) for i in starts]
    width = 0.12 + cell * num_columns + gap * (num_columns - 1)
    body = 0.1 + sum(heights) + sum(captions) + gap * (len(heights) - 1)
    fig, head, _ = _page(width, body, title, note)
    y = head + 0.04
    for start, tall, caption in zip(starts, heights, captions, strict=True):
        x, y = 0.06, y + caption
        for i in range(start, min(start + num_columns, len(images))):
            _draw(fig, (x, y, tall * aspects[i], tall), images[i], images[i].shape[:2], titles[i])
            x += tall * aspects[i] + gap
        y += tall + gap
    return fig


def predictions(images, labels, predicted, probabilities, classes: Sequence[str], num: int = 21, title: str = "",
                note: str = "") -> Figure:
    """What a classifier predicts for the first `num` images: ✓ and green if right; ✗, red and the truth if not.

    `labels` and `predicted` are N class indices, `probabilities` (N,) those of the predicted classes.
    """
    labels, predicted, probabilities = _numpy(labels), _numpy(predicted), _numpy(probabilities)
    _same_length(images=images, labels=labels, predicted=predicted, probabilities=probabilities)
    texts = [
        f"✓ {100 * sure:.0f} %\n{classes[guess]}" if guess == truth
        else f"✗ {100 * sure:.0f} % {classes[guess]}\ntruth: {classes[truth]}"
        for guess, sure, truth in zip(predicted[:num], probabilities[:num], labels[:num], strict=True)
    ]
    return image_grid(images[:num], texts, 7, title, note)


def diverging(images: Iterable, columns: Sequence[str], label: str, row_names: Sequence[str] | None = None,
              title: str = "", note: str = "") -> Figure:
    """Differences of luma, in [-1, 1], in grey levels of 255: blue where it rose, orange where it fell.

    images: rows, each (C, H, W) for the C names in `columns`. One scale for all, with a colour bar named `label`.
    """
    rows = 255 * np.stack([_numpy(row) for row in images]).astype(float)
    if rows.ndim != 4 or rows.shape[1] != len(columns) or not abs(rows).max() <= 255:
        raise ValueError(f"diverging needs rows of {len(columns)} maps (H, W) in [-1, 1], found {rows.shape[1:]} up to "
                         f"{abs(rows).max() / 255:.3g}.")
    top = max(np.percentile(abs(rows), 99.5), 0.5)  # a few outliers would leave the rest pale
    shades = ScalarMappable(Normalize(-top, top), DIVERGING)
    colored = np.moveaxis(DIVERGING(shades.norm(rows))[..., :3], -1, 2)
    fig = panel(dict(zip(columns, colored.swapaxes(0, 1), strict=True)), None, row_names, None, title, note, right=0.9)
    boxes = [ax.get_position() for ax in fig.axes]
    low, high, right = min(box.y0 for box in boxes), max(box.y1 for box in boxes), max(box.x1 for box in boxes)
    axes = fig.add_axes((right + 0.1 / fig.get_figwidth(), low, 0.13 / fig.get_figwidth(), high - low))
    fig.colorbar(shades, axes, label=label, extend="both").outline.set_visible(False)
    return fig


# ----------------------------------------------------------------------------------------------------- ladder


def ladder(paths: Mapping[str, Sequence[Mapping]], ceiling: Mapping, arms: Sequence[Mapping] = (),
           headings: tuple[str, str] = ("", ""), xlabel: str = LABELS["accuracy"], title: str = "", note: str = "",
           font: str | None = None) -> Figure:
    """The way from floor to ceiling, step by step, and beside it, zoomed in, the arms at its upper end.

    paths     heading -> steps in order, each {"label": "super-resolution", "value": 88.20}: the level reached. The
              first is the floor; the others are drawn as what they add ("points", if given, is written for that).
              "accent": True for the step that is the point of the figure
    ceiling   {"label": "clean images", "value": 91.5}
    arms      {"label", "value", "low", "high", "seeds": [...], "accent"}: the ends of the 95 % interval as a line,
              a small dot per seed; the first is the one compared with, marked by a dashed line
    headings  above the two parts
    """
    num_rows = sum(len(steps) + bool(name) for name, steps in paths.items())
    fig = _figure(WIDTH, 0.95 + 0.3 * max(num_rows, len(arms)), title, note)
    axes = fig.subplots(1, 2, width_ratios=(1.25, 1), squeeze=False)[0] if arms else [fig.add_subplot()]
    _waterfall(axes[0], paths, ceiling, xlabel)
    if arms:
        _draw_arms(axes[1], arms, xlabel)
    for ax, heading in zip(axes, headings, strict=False):
        ax.set_title(heading, pad=20)
    return _in_font(fig, font)


def _waterfall(ax, paths: Mapping[str, Sequence[Mapping]], ceiling: Mapping, xlabel: str) -> None:
    low = min(steps[0]["value"] for steps in paths.values())
    span, labels = ceiling["value"] - low, []
    ax.set_xlim(low - 0.05 * span, ceiling["value"] + 0.03 * span)
    ax.axvline(ceiling["value"], color=INK, ls=DASHED, lw=1.2)
    ax.annotate(f"{ceiling['label']} {ceiling['value']:.1f}", (ceiling["value"], 1), (0, 4), ax.get_xaxis_transform(),
                "offset points", ha="right", fontsize=9.5)
    for name, steps in paths.items():
        labels += [name] if name else []
        y, before = len(labels), None
        for step in steps:
            value, tone = step["value"], ACCENT if step.get("accent") else GREY
            if before is None:
                ax.plot(value, y, "o", color=MUTED, ms=7)
            else:
                added = step.get("points", value - before)
                text = _signed(added, 1 if abs(added) >= 10 else 2)
                ax.plot([before] * 2, [y - 0.69, y - 0.31], color=MUTED, lw=0.9)
                ax.barh(y, value - before, 0.62, left=before, color=tone, ec=tone, lw=1.2)
                inside = abs(value - before) > 0.2 * span
                ax.annotate(text, ((value + before) / 2 if inside else min(value, before), y), (0 if inside else -6, 0),
                            textcoords="offset points", ha="center" if inside else "right", va="center_baseline",
                            weight="bold", color=_on(tone) if inside else tone if step.get("accent") else MUTED)
            ax.annotate(f"{value:.1f}", (1, y), (34, 0), ax.get_yaxis_transform(), "offset points", ha="right",
                        va="center_baseline", weight="bold" if step.get("accent") else "normal")
            labels, before, y = [*labels, step["label"]], value, y + 1
    ax.set_yticks(range(len(labels)), labels, fontsize=9.5)
    for text in ax.get_yticklabels():
        text.set(weight="bold") if text.get_text() in paths else None
    ax.set(ylim=(len(labels) - 0.4, -0.6), xlabel=xlabel)
    _upright(ax)


def _draw_arms(ax, arms: Sequence[Mapping], xlabel: str) -> None:
    ax.axvline(arms[0]["value"], color=MUTED, ls=DASHED, lw=1, zorder=1)
    for y, arm in enumerate(arms):
        tone = ACCENT if arm.get("accent") else MUTED
        ax.plot([arm["low"], arm["high"]], [y, y], color=tone, lw=2)
        seeds = arm.get("seeds", ())
        ax.plot(seeds, [y + 0.27] * len(seeds), "o", color=tone, ms=3.2, alpha=0.75, mew=0)
        ax.plot(arm["value"], y, "o", color=tone, ms=8, mec="white", mew=1)
        ax.annotate(f"{arm['value']:.2f}", (1, y), (38, 0), ax.get_yaxis_transform(), "offset points", ha="right",
                    va="center_baseline", weight="bold" if arm.get("accent") else "normal")
    ax.set_yticks(range(len(arms)), [arm["label"] for arm in arms], fontsize=9.5)
    ax.margins(x=0.06)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set(ylim=(len(arms) - 0.4, -0.6), xlabel=xlabel)
    _upright(ax)


def _upright(ax) -> None:
    """Grid lines for values that run to the right."""
    ax.grid(False, axis="y")
    ax.grid(axis="x")
    ax.spines["left"].set_visible(False)


def gap_curve(gaps: Mapping[int, Sequence[float]], xlabel: str = "Length of adaptation (epochs)",
              ylabel: str = "Frozen − control (points)", names: tuple[str, str] = ("mean", "one seed"), title: str = "",
              note: str = "", font: str | None = None) -> Figure:
    """A difference against a length, {epochs: one value per seed}: a thin line per seed, the mean bold, and zero."""
    epochs = sorted(gaps)
    _same_length(**{f"{length} epochs": gaps[length] for length in epochs})
    values = np.array([gaps[length] for length in epochs], float)
    fig = _figure(6.6, 3.4, title, note)
    ax = fig.add_subplot()
    ax.axhline(0, color=INK, lw=1)
    ax.plot(epochs, values, "o-", color=GREY, lw=1, ms=4)
    ax.plot(epochs, values.mean(1), "o-", color=ACCENT, lw=2.6, ms=8, mec="white", mew=1)
    for length, row in zip(epochs, values, strict=True):
        ax.annotate(_signed(row.mean()), (length, row.max()), (0, 8), textcoords="offset points", ha="center",
                    weight="bold", color=ACCENT)
    low, high = min(0, values.min()), max(0, values.max())
    ax.set(xlabel=xlabel, ylabel=ylabel, xticks=epochs, ylim=(low - 0.08 * (high - low), high + 0.18 * (high - low)))
    ax.margins(x=0.09)
    _legend(fig, dict(zip(names, (ax.lines[-1], ax.lines[1]), strict=True)))
    return _in_font(fig, font)


def hero(strips: Sequence[Mapping], columns: Sequence[str], paths: Mapping[str, Sequence[Mapping]], ceiling: Mapping,
         xlabel: str = LABELS["accuracy"], title: str = "", note: str = "", font: str | None = None) -> Figure:
    """The study at a glance: left, test images as each arm sees and classifies them; right, the ladder.

    strips    {"label": what the strip shows, "images": one (3, H, W) per column, "captions": one text per column};
              a caption with ✓ or ✗ is green or red
    columns   the headings, e.g. input, control, frozen, clean
    paths     as for `ladder`, and so is `ceiling`
    """
    tile, gap = 192 / DPI, 0.07
    left = 0.1 + len(columns) * (tile + gap)
    fig, head, foot = _page(WIDTH, 0.34 + (tile + 0.46) * len(strips), title, note)
    for c, name in enumerate(columns):
        x = 0.1 + c * (tile + gap)
        _write(fig, x + tile / 2, head + 0.2, name, ha="center", weight="bold")
        for s, strip in enumerate(strips):
            y, image = head + 0.3 + s * (tile + 0.46), _image(strip["images"][c])
            _draw(fig, (x, y + 0.4, tile, tile), image, image.shape[:2], strip["captions"][c])
            _write(fig, x, y + 0.15, strip["label"] if c == 0 else "", fontsize=9.5, color=MUTED)
    width, height = fig.get_size_inches()
    fig.set_layout_engine("constrained", w_pad=0.08, h_pad=0.07, rect=(
        (left + 0.2) / width, foot / height, 1 - (left + 0.2) / width, 1 - (head + foot) / height))
    _waterfall(fig.add_subplot(), paths, ceiling, xlabel)
    return _in_font(fig, font)


# --------------------------------------------------------------------------------------------- classification


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


def confusion(matrices, classes: Sequence[str], title: str = "", note: str = "") -> Figure:
    """Which class (row) is taken for which (column), in percent of the row; {name: matrix of counts}, or one matrix.

    The errors are in colour, on one scale, the hits on the diagonal in grey.
    """
    matrices = matrices if isinstance(matrices, Mapping) else {"": matrices}
    shares = []
    for matrix in map(_numpy, matrices.values()):
        if matrix.shape != (len(classes),) * 2:
            raise ValueError(f"{len(classes)} classes need a matrix of {len(classes)} x {len(classes)}, "
                             f"found {' x '.join(map(str, matrix.shape))}.")
        shares.append(100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1))
    diagonal = np.eye(len(classes), dtype=bool)
    top = max(share[~diagonal].max() for share in shares)
    side = 0.42 * len(classes)
    fig = _figure(min(WIDTH, 1.2 + (side + 0.2) * len(shares)), side * 0.9 + 1.5, title, note)
    axes = fig.subplots(1, len(shares), squeeze=False)[0]
    for ax, name, share in zip(axes, matrices, shares, strict=True):
        texts = np.where(share >= 0.5, np.char.mod("%.0f", share), "")
        _cells(ax, np.where(diagonal, np.nan, share), REDS, 0, max(top, 1e-9), texts, diagonal)
        ax.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
        ax.set(xlabel="Predicted class")
        ax.set_title(name)
    axes[0].set_yticks(range(len(classes)), classes)
    axes[0].set_ylabel("True class (cells: % of its images)")
    return fig


def heatmap(table, row_names: Sequence[str] | None = None, column_names: Sequence[str] | None = None,
            label: str = LABELS["accuracy"], xlabel: str = "", differences: Sequence[tuple[str, str]] = (),
            title: str = "", note: str = "") -> Figure:
    """A table of numbers as coloured cells, e.g. accuracy per model (row) and degradation (column).

    The highest of each column is bold. Names come from a DataFrame or are handed in. `differences` are pairs of row
    names, [("frozen", "control")]: a row for each, first minus second, is set apart below, blue above zero.
    """
    table = pd.DataFrame(table if hasattr(table, "columns") else _numpy(table), row_names, column_names, float)
    if label.startswith("Accuracy"):
        table[:] = _percent(table)
    values = table.to_numpy()
    gaps = np.array([table.loc[a] - table.loc[b] for a, b in differences])
    num_rows = len(values) + len(gaps)
    fig = _figure(min(WIDTH, 2.6 + 1.05 * values.shape[1]), 1.2 + 0.4 * num_rows, title, note)
    axes = fig.subplots(1 + bool(len(gaps)), 1, squeeze=False,
                        height_ratios=(len(values), len(gaps)) if len(gaps) else None)[:, 0]
    low, high = np.nanmin(values), np.nanmax(values)
    span = max(high - low, 1e-9)
    first = (values == np.nanmax(values, axis=0)) & (len(values) > 1)
    texts = np.where(np.isfinite(values), np.char.mod("%.1f", values), "")
    _cells(axes[0], values, BLUES, low - 0.15 * span, high + 0.1 * span, texts, first)
    axes[0].set_yticks(range(len(values)), [name_of(n) for n in table.index])
    axes[0].set_title(f"{label}, highest of each column in bold", weight="normal", fontsize=9, color=MUTED)
    if len(gaps):
        top = max(np.nanmax(abs(gaps)), 1e-9)
        texts = np.array([[_signed(gap, 1) if np.isfinite(gap) else "" for gap in row] for row in gaps])
        _cells(axes[1], gaps, DIVERGING, -1.3 * top, 1.3 * top, texts, np.ones_like(gaps, bool))
        axes[1].set_yticks(range(len(gaps)), [f"{name_of(a)} − {name_of(b).lower()}" for a, b in differences])
    axes[-1].set_xticks(range(values.shape[1]), [textwrap.fill(name_of(n), 11) for n in table.columns])
    axes[-1].set(xlabel=xlabel)
    return fig


def class_bars(accuracy_by_method: Mapping[str, Sequence[float]], classes: Sequence[str], title: str = "",
               note: str = "") -> Figure:
    """The accuracy in each class for up to four methods side by side."""
    values = {method: _numpy(numbers).astype(float) for method, numbers in accuracy_by_method.items()}
    _same_length(classes=classes, **values)
    fig = _figure(WIDTH, 3.5, title, note)
    ax = fig.add_subplot()
    wide = 0.8 / len(values)
    for k, (method, numbers) in enumerate(values.items()):
        at = np.arange(len(classes)) + (k - (len(values) - 1) / 2) * wide
        percent = _percent(numbers, list(values.values()))
        bars = ax.bar(at, percent, wide * 0.92, color=color(method), label=name_of(method))
        if len(values) < 4:
            ax.bar_label(bars, fmt="%.0f", fontsize=9, padding=1.5, color=MUTED)
    ax.set_xticks(range(len(classes)), classes, fontsize=9.5)
    ax.set(ylabel=LABELS["accuracy"], xlim=(-0.6, len(classes) - 0.4))
    ax.tick_params(axis="x", length=0)
    _legend(fig, handlelength=1, handleheight=1)
    return fig


def image_dots(values_by_method: Mapping[str, Sequence[float]], names: Sequence[str], xlabel: str = LABELS["psnr_db"],
               sets: Sequence[str] | None = None, title: str = "", note: str = "") -> Figure:
    """A value per image for several methods as dots on a line, and their means (of each of the `sets`) below.

    The numbers at the right are the gain of the last method over the one before it.
    """
    _same_length(names=names, sets=sets, **values_by_method)
    values = pd.DataFrame({method: _numpy(numbers) for method, numbers in values_by_method.items()}, dtype=float)
    means = values.groupby(list(sets or [""] * len(names)), sort=False).mean()
    labels = [*names, *(f"mean, {name}" if len(means) > 1 else "mean" for name in means.index)]
    at = np.append(np.arange(len(names)), len(names) + 0.4 + np.arange(len(means)))
    values = pd.concat([values, means])
    fig = _figure(WIDTH, 1.15 + 0.27 * len(at), title, note)
    ax = fig.add_subplot()
    ax.hlines(at, values.min(axis=1), values.max(axis=1), color=LIGHT, lw=2.5, zorder=1)
    for method in values:
        ax.plot(values[method], at, "o", ms=7.5, color=color(method), mec="white", mew=0.8, label=name_of(method))
    if len(values.columns) > 1:
        before, last = values.columns[-2:]
        beside = {"xycoords": ax.get_yaxis_transform(), "xytext": (46, 0), "textcoords": "offset points",
                  "ha": "right", "fontsize": 9}
        for y, gain in zip(at, values[last] - values[before], strict=True):
            weight = "bold" if y >= len(names) else "normal"
            ax.annotate(_signed(gain), (1, y), va="center_baseline", weight=weight, **beside)
        ax.annotate(f"{name_of(last)} − {name_of(before)}", (1, -0.7), va="bottom", color=MUTED, **beside)
    ax.axhline(len(names) - 0.3, color=LIGHT, lw=0.8)
    ax.set_yticks(at, labels)
    for label in ax.get_yticklabels()[len(names) :]:
        label.set_weight("bold")
    ax.set(xlabel=xlabel, ylim=(at[-1] + 0.6, -0.6))
    _upright(ax)
    _legend(fig, handletextpad=0.2)
    return fig


def reliability(bins_by_method: Mapping[str, Mapping], title: str = "", note: str = "") -> Figure:
    """Is a classifier as often right as it is confident? Accuracy over confidence in bins, and the images in each.

    {method: what `metrics.calibration_bins` returns: "confidence", "accuracy" (fractions) and "count" per bin}. The
    expected calibration error (Guo et al. 2017) stands in the figure. Bins of fewer than 30 images count in it but
    are not drawn.
    """
    fig = _figure(5.2, 5.6, title, note)
    ax, below = fig.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    ax.plot([0, 100], [0, 100], color=MUTED, ls=DASHED, lw=1.2)
    lines = [("dashed: accuracy equals confidence", MUTED, "normal")]
    for k, (method, bins) in enumerate(bins_by_method.items()):
        parts = [np.nan_to_num(_numpy(bins[part]).astype(float)) for part in ("confidence", "accuracy", "count")]
        confidence, correct, count = parts
        if max(confidence.max(), correct.max()) > 1:
            raise ValueError("reliability needs confidence and accuracy as fractions in [0, 1].")
        error = 100 * (count * abs(correct - confidence)).sum() / count.sum()
        many = count >= max(1, min(30, count.max()))
        ax.plot(100 * confidence[many], 100 * correct[many], "o-", color=color(method), ms=6)
        lines.insert(0, (f"{name_of(method)}: {error:.1f} %", color(method), "bold"))
        wide = 92 / len(count) / len(bins_by_method)
        below.bar(np.arange(len(count)) * 100 / len(count) + (k + 0.5) * wide, count, wide, color=color(method))
    lines = [*lines[-1:], *lines[:-1], ("expected calibration error", MUTED, "normal")]
    for k, (text, tone, weight) in enumerate(lines):  # below the diagonal, where overconfidence alone would stand
        ax.text(97, 3 + 7 * k, text, ha="right", fontsize=9.5, color=tone, weight=weight)
    ax.set(ylabel=LABELS["accuracy"], xlim=(0, 100), ylim=(0, 100))
    below.set(xlabel="Confidence (%)", ylabel="Images")
    fig.align_ylabels()
    return fig


def trade_off(x, y, labels: Sequence[str], xlabel: str = LABELS["psnr_db"], ylabel: str = LABELS["accuracy"],
              method: str = "joint", points: Mapping[str, tuple[float, float]] | None = None,
              error: Sequence[float] | None = None, title: str = "", note: str = "") -> Figure:
    """One measure against another along a sweep, a label (e.g. the weight lambda) at each point, in order.

    `points` are single methods beside the curve: {"control": (psnr_db, accuracy)}. `error`: half the width of an
    interval of y, in its unit, for each point of the sweep and then for each of `points`.
    """
    points = points or {}
    at = np.array([*zip(_numpy(x), _numpy(y), strict=True), *points.values()], float)
    half = np.zeros(len(at)) if error is None else np.array(error, float)
    _same_length(x=x, y=y, labels=labels)
    _same_length(points=at, error=half)
    if ylabel.startswith("Accuracy"):
        half, at[:, 1] = _percent(half, at[:, 1]), _percent(at[:, 1])
    fig = _figure(6.6, 4.2, title, note)
    ax = fig.add_subplot()
    if error is not None:
        ax.errorbar(*at.T, yerr=half, fmt="none", ecolor=MUTED, alpha=0.5, elinewidth=1, capsize=3, zorder=1)
    ax.plot(*at[: len(labels)].T, "o-", color=color(method), ms=7, mec="white", mew=1)
    for name, (across, up) in zip(points, at[len(labels) :], strict=True):
        ax.plot(across, up, "D", color=color(name), ms=7, mec="white", mew=1)
    ax.margins(0.14, 0.14)
    ax.grid(error is None, axis="x")  # upright lines would look like intervals
    ax.set(xlabel=xlabel, ylabel=ylabel)
    line, whiskers = at[: len(labels)], np.stack([0 * half, half], 1)
    crowd = [np.linspace(line[:-1], line[1:], 40).reshape(-1, 2), at]
    crowd += [at + part * whiskers for part in np.linspace(-1, 1, 9)]
    _place_labels(ax, at, [*map(str, labels), *map(name_of, points)], np.concatenate(crowd))
    return fig


def _place_labels(ax, at: np.ndarray, texts: Sequence[str], crowd: np.ndarray) -> None:
    """Each text beside its point, on the side where it covers least of the points in `crowd` and of other texts."""
    low, high = np.array([ax.get_xlim(), ax.get_ylim()]).T
    room = ax.figure.get_size_inches() * 72 * 0.85  # the axes in points, about; positions below are in points
    spots, taken = ((points - low) / (high - low) * room for points in (at, crowd))
    for point, spot, text in zip(at, spots, texts, strict=True):
        wide, tall = 5.6 * len(text), 11
        sides = [(x, y) for x in (8, -8 - wide, -wide / 2, 5, -5 - wide) for y in (-tall / 2, 8, -8 - tall)
                 if x != -wide / 2 or y != -tall / 2]
        starts = spot + np.array(sides) - 2
        ends = starts + np.array([wide + 4, tall + 4])
        covered = ((taken > starts[:, None]) & (taken < ends[:, None])).all(2).sum(1)
        side = sides[int(np.argmin(covered + 99 * ((starts < 0) | (ends > room)).any(1)))]
        ax.annotate(text, point, side, textcoords="offset points", fontsize=9.5)
        box = np.stack(np.meshgrid(np.linspace(0, wide, 8), [0, tall / 2, tall]), -1).reshape(-1, 2)
        taken = np.concatenate([taken, spot + side + box])


def spectrum(images_by_method: Mapping[str, Iterable], nyquist: float | None = None, title: str = "",
             note: str = "") -> Figure:
    """How much fine detail images hold: power over spatial frequency, mean over directions and images.

    Images are (N, 3, H, W), of one size for each method; a Hann window keeps their borders out of it.
    `nyquist` (cycles per pixel) marks the finest detail the input could hold: 0.25 for images downsampled by two.
    """
    fig = _figure(6.6, 4.0, title, note)
    ax = fig.add_subplot()
    for method, images in images_by_method.items():
        grey = np.stack([_image(image).mean(2) for image in images])
        height, width = grey.shape[1:]
        window = np.outer(np.hanning(height), np.hanning(width))
        power = abs(np.fft.fft2((grey - grey.mean((1, 2), keepdims=True)) * window)) ** 2
        radius = np.hypot(*np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij"))
        num_bins = min(48, min(height, width) // 2)
        bins = (radius * 2 * num_bins).astype(int).ravel()  # beyond the last bin lie the corners of the plane
        mean = np.bincount(bins, power.mean(0).ravel()) / np.bincount(bins) / window.sum()
        frequency = (np.arange(num_bins) + 0.5) / (2 * num_bins)
        ax.plot(frequency[1:], mean[1:num_bins], color=color(method), ls=DASHED if method == "truth" else "-",
                label=name_of(method))
    ax.set(xlabel="Spatial frequency (cycles per pixel)", ylabel="Power", yscale="log", xlim=(0, 0.5))
    if nyquist is not None:
        ax.axvline(nyquist, color=MUTED, lw=1, ls=":")
        ax.text(nyquist + 0.006, 0.98, "finest detail of the input", transform=ax.get_xaxis_transform(),
                va="top", fontsize=9, color=MUTED)
    _legend(fig)
    return fig
