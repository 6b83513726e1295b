"""One look for every figure: a style, a colour per method, a function per kind of evidence, and `show`.

Each function returns a matplotlib Figure and draws nothing on the screen; `show` saves and displays it.
An image is (3, H, W), RGB float in [0, 1] (or uint8), a torch tensor or a numpy array. A table is a pandas
DataFrame, a dict of columns or a list of dicts. Sizes of figures and cells are inches.
"""

import io
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import patheffects, pyplot
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

PHOTO_DPI = 110
WIDTH = 9.6  # of a full-width figure; shown at 96 pixels an inch it fills a notebook's column
INK, MUTED, LIGHT = "#222222", "#6B7075", "#DADDE0"
GOOD, BAD, MARK = "#00795C", "#B8400A", "#FFC20A"

# Hues that colour-blind readers tell apart (Okabe and Ito 2008; Tol 2021) for networks, greys for references.
COLORS = {
    "truth": "#1A1A1A", "clean": "#5A5F66", "degraded": "#B3A68F", "nearest": "#B9BFC6", "bicubic": "#7A828B",
    "srnet": "#0072B2", "srnet_longer": "#332288", "cascade": "#56B4E9", "control": "#CC79A7",
    "frozen": "#00875F", "joint": "#D55E00", "task_only": "#E6A400", "distilled": "#7A1F5C", "feature_loss": "#6F8F2F",
    "train": "#8FB3DA", "valid": "#1B4B8A",
    "srresnet": "#44AA99", "srgan": "#AA4499", "resshuffle": "#117733", "single": "#44AA99",
    "mse": "#56B4E9", "perceptual": "#CC79A7", "regularised": "#00875F", "fast": "#D55E00", "slow": "#E6A400",
    "classify": "#44AA99", "restore": "#56B4E9", "separate": "#E6A400",
    "mirrored": "#882255", "chroma": "#6A51A3", "unet": "#5C3A1E", "grey": "#A9A9A9", "seed_run": "#A6761D",
}
NAMES = {
    "srnet": "SRNet", "srnet, self-ensemble": "SRNet, self-ensemble", "srnet_longer": "SRNet, trained longer",
    "srnet_longer, self-ensemble": "SRNet, trained longer, self-ensemble", "srresnet": "SRResNet", "srgan": "SRGAN",
    "resshuffle": "ResShuffle", "unet": "RGB, our recipe",
    "mse": "1: MSE", "perceptual": "2: + perceptual", "regularised": "3, 5: + L1 and L2", "fast": "4: rate 1e-3",
    "slow": "6: rate 1e-5", "chroma": "Chroma, our recipe",
    "train": "training", "valid": "validation", "mirrored": "Clean, mirror averaged",
    "seed_run": "Seed 000's recipe, run here",
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
    """The colour of a method, the same in every figure; ValueError with the known names for another one."""
    if method not in COLORS:
        raise ValueError(f"no colour for the method {method!r}; use one of {', '.join(COLORS)}, "
                         "or add it to plots.COLORS.")
    return COLORS[method]


def name_of(method: str) -> str:
    """How a method is written in a figure: `task_only` -> `Task only`; any other text is left as it is."""
    return NAMES.get(method) or (method.replace("_", " ").capitalize() if method in COLORS else str(method))


# ---------------------------------------------------------------------------------------------- show and save


def show(fig: Figure, name: str | None = None, folder: str | Path | None = None, photo: bool = False,
         dpi: int | None = None, quiet: bool = False) -> None:
    """Save the figure as `folder/name.png`, display the same bytes in a notebook, and close it.

    `photo=True` writes a JPEG instead, several times smaller for grids of pictures. Without a name the figure
    is only displayed; outside a notebook it is only saved. The file appears whole or not at all. `dpi` is 160
    (photos: 110), more than the 96 pixels an inch it is shown at, so that it is sharp.
    `quiet=True` saves only.
    In a process of a group other than the first (RANK set and not 0) nothing is written or displayed.
    """
    if (name is None) != (folder is None):
        raise ValueError(f"show needs a name and a folder to save (found name={name!r}, folder={folder!r}); "
                         "give both, or neither to display only.")
    pyplot.close(fig)
    if os.environ.get("RANK", "0") != "0":
        return
    suffix, options = ("jpg", {"quality": 80, "optimize": True}) if photo else ("png", {"optimize": True})
    buffer = io.BytesIO()
    # Without the version of matplotlib in it, the same figure gives the same bytes.
    metadata = None if photo else {"Software": None}
    dpi = dpi or (PHOTO_DPI if photo else 160)
    fig.savefig(buffer, format=suffix, dpi=dpi, pil_kwargs=options, metadata=metadata)
    if name is not None:
        path = Path(folder) / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            beside.write_bytes(buffer.getvalue())
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    if in_notebook() and not quiet:
        from IPython.display import Image, display

        width = round(fig.get_figwidth() * 96)
        alt = (name or "figure").replace("_", " ")  # for those who do not see it
        display(Image(data=buffer.getvalue(), format="jpeg" if photo else "png", width=width, alt=alt))


def say(text: str) -> None:
    """Markdown that a cell has computed: rendered in a notebook, printed elsewhere; the first process alone speaks."""
    if os.environ.get("RANK", "0") != "0":
        return
    if in_notebook():
        from IPython.display import Markdown, display

        display(Markdown(text))
    else:
        print(text)


def say_found(study: Mapping | None) -> None:
    """The answer before the story: what a study's run.json, as training.read_info returns it, says it concluded."""
    if study and "conclusion" in study:
        say(f"**What the study in results/ found.** {study['conclusion']}")


def in_notebook() -> bool:
    """Is there a Jupyter kernel to display in? A terminal would print an object's name instead."""
    if "IPython" not in sys.modules:
        return False
    import IPython

    return hasattr(IPython.get_ipython(), "kernel")


# ------------------------------------------------------------------------------------------ what is handed in


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


def _table(table) -> dict[str, list]:
    """A DataFrame, a dict of columns or a list of dicts -> a dict of columns."""
    if isinstance(table, Sequence) and table and isinstance(table[0], Mapping):
        table = {key: [row.get(key) for row in table] for key in table[0]}
    if not hasattr(table, "keys"):
        raise ValueError("a table is a DataFrame, a dict of columns or a list of dicts, "
                         f"found {type(table).__name__}.")
    return {str(key): list(table[key]) for key in table}


def _rows(table) -> list[dict]:
    columns = _table(table)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _column(table: Mapping, name: str) -> list:
    if name not in table:
        raise ValueError(f"the table has no column {name!r}; it has: {', '.join(table)}.")
    return table[name]


def _percent(values, known_by) -> np.ndarray:
    """Accuracies as percent: numbers that never pass 1 are read as fractions."""
    known_by = np.asarray(known_by, float)
    return np.asarray(values, float) * (100 if known_by.size and np.nanmax(known_by) <= 1 else 1)


def _same_length(**lists) -> None:
    lengths = {name: len(values) for name, values in lists.items() if values is not None}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        found = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise ValueError(f"expected the same number of entries, at least one, in each; found {found}.")


def _on(fill) -> str:
    """White or ink, whichever has more contrast on a colour (WCAG 2 relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(fill)]
    return "white" if np.dot(linear, (0.2126, 0.7152, 0.0722)) < 0.21 else INK


def _figure(width: float, height: float, title: str | None = None) -> Figure:
    """A figure that lays itself out below its title."""
    height += 0.3 * bool(title)
    fig = Figure(figsize=(width, height), layout="constrained")
    top = 1 - 0.3 * bool(title) / height
    fig.get_layout_engine().set(w_pad=0.08, h_pad=0.07, wspace=0.04, hspace=0.06, rect=(0, 0, 1, top))
    _title(fig, title)
    return fig


def _title(fig: Figure, title: str | None) -> None:
    if title:
        width, height = fig.get_size_inches()
        text = fig.text(0.08 / width, 1 - 0.1 / height, title, va="top", fontsize=12, weight="bold")
        text.set_in_layout(False)


def _legend(fig: Figure, handles: Mapping | None = None, num_columns: int = 5, **options) -> None:
    """One legend for the whole figure, in lines between its title and its axes."""
    engine = fig.get_layout_engine()
    top = engine.get()["rect"][3]
    if handles is None:
        found, texts = fig.axes[0].get_legend_handles_labels()
        handles = dict(zip(texts, found, strict=True))
    legend = fig.legend(list(handles.values()), list(handles), loc="upper left", bbox_to_anchor=(0, top),
                        ncols=num_columns, columnspacing=1.6, **{"handlelength": 1.6, **options})
    legend.set_in_layout(False)
    lines = -(-len(handles) // num_columns)
    engine.set(rect=(0, 0, 1, top - (0.1 + 0.2 * lines) / fig.get_figheight()))


# ----------------------------------------------------------------------------------------------------- curves


def curves(history, metrics: Sequence[str] | Mapping[str, str], baselines: Mapping | None = None,
           best: int | Mapping[str, int] | None = None, log: Sequence[str] = (),
           title: str | None = None) -> Figure:
    """Metrics over epochs, one axes each: training and validation together, baselines as dashed lines.

    history    a table with a column `epoch` and columns such as `loss_train`, `loss_valid`, `learning_rate`;
               or a list of them (runs with other seeds: their mean, and a band from lowest to highest);
               or a dict method -> either, in the methods' colours, training thinner. Columns named
               `<column>_low` and `<column>_high` also give a band
    metrics    columns without `_train` / `_valid`; a dict gives their axis labels. Accuracies are shown in
               percent
    baselines  {metric: {method or any label: value in the history's unit}}
    best       the chosen epoch, marked by a ring; a dict method -> epoch for several methods
    log        the metrics whose axis is logarithmic
    """
    metrics = dict(metrics) if isinstance(metrics, Mapping) else {m: LABELS.get(m, m) for m in metrics}
    one = hasattr(history, "columns") or not isinstance(history, Mapping) or "epoch" in history
    methods = {None: history} if one else history
    runs = {m: [_table(t) for t in (h if isinstance(h, list | tuple) else [h])] for m, h in methods.items()}
    if not metrics or not runs or not all(runs.values()):
        raise ValueError("curves needs at least one metric and one history, found none.")
    best = best if isinstance(best, Mapping) else dict.fromkeys(runs, best)
    for method, epoch in best.items():
        if epoch is not None and epoch not in _column(runs[method][0], "epoch"):
            raise ValueError(f"the chosen epoch {epoch} is not in the history, which has epochs "
                             f"{runs[method][0]['epoch']}; hand in the history it was chosen from.")
    num_columns = len(metrics) if len(metrics) < 4 else 2 if len(metrics) == 4 else 3
    num_rows = -(-len(metrics) // num_columns)
    width, height = min(WIDTH, 1.6 + 4.8 * num_columns), 3.1 if num_columns > 1 else 3.5
    fig, handles = _figure(width, height * num_rows, title), {}
    for index, (metric, label) in enumerate(metrics.items()):
        ax = fig.add_subplot(num_rows, num_columns, index + 1)
        scale = 1.0
        for method, tables in runs.items():
            parts = [part for part in ("_train", "_valid", "") if metric + part in tables[0]]
            if not parts:
                raise ValueError(f"the history has no column {metric}, {metric}_train or {metric}_valid; "
                                 f"it has: {', '.join(tables[0])}.")
            if metric.startswith("accuracy"):
                known = [value for t in tables for part in parts for value in _column(t, metric + part)]
                scale = _percent(1.0, known)
            for part in parts:
                epochs, mean, low, high = _band(tables, metric + part, scale)
                thin = method is not None and part == "_train"
                tone = color(method or part[1:] or "valid")
                line = ax.plot(epochs, mean, color=tone, lw=0.9 if thin else 1.8, alpha=0.75 if thin else 1,
                               marker="o" if len(epochs) < 6 else None, ms=4)[0]
                ax.fill_between(epochs, low, high, color=tone, alpha=0.18, lw=0)
                if thin:
                    handles["training (thin)"] = Line2D([], [], color=MUTED, lw=0.9)
                elif method or part:
                    handles[name_of(method or part[1:])] = line
                if part == "_valid" and best.get(method) in epochs:
                    at = mean[epochs == best[method]]
                    ring = ax.plot(best[method], at, "o", color=tone, ms=7, mfc="white", mew=1.8)[0]
                    handles["chosen epoch" if method else f"chosen epoch ({best[method]})"] = ring
        ax.set(xlabel=LABELS["epoch"], ylabel=label, yscale="log" if metric in log else "linear")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        lines = {name: value * scale for name, value in (baselines or {}).get(metric, {}).items()}
        _baselines(ax, lines, 72 * (height - 1.1))
    num_runs = max(len(tables) for tables in runs.values())
    if num_runs > 1:
        text = f"band: lowest to highest of {num_runs} runs"
        handles[text] = Rectangle((0, 0), 1, 1, color=MUTED, alpha=0.3)
    if handles:
        order = sorted(handles, key=lambda text: text.startswith(("training (", "chosen", "band")))
        _legend(fig, {text: handles[text] for text in order})
    return fig


def _band(tables: Sequence[dict], column: str, scale: float) -> tuple[np.ndarray, ...]:
    """Epochs, mean, lowest and highest of one column over runs, where every run has a number."""
    length = min(len(_column(table, "epoch")) for table in tables)
    stack = np.array([_column(table, column)[:length] for table in tables], float) * scale
    mean, low, high = stack.mean(0), stack.min(0), stack.max(0)
    if column + "_low" in tables[0]:
        low, high = (np.array(_column(tables[0], column + end), float) * scale for end in ("_low", "_high"))
    keep = np.isfinite(mean)
    return np.array(tables[0]["epoch"])[:length][keep], mean[keep], low[:length][keep], high[:length][keep]


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
    for _ in range(50):
        for i in range(len(at) - 1):
            push = max(0, 28 / points - (at[i + 1] - at[i])) / 2
            at[i : i + 2] += -push, push
    for (name, value), y in zip(values.items(), at, strict=True):
        number = f"{value:.2g}" if abs(value) < 0.1 else f"{value:.3f}" if abs(value) < 1.5 else f"{value:.2f}"
        ax.annotate(f"{name_of(name)}\n{number}", (1, y), (5, 0), "axes fraction", "offset points",
                    va="center", fontsize=9, linespacing=1.05, color=MUTED)


# --------------------------------------------------------------------------------------------------- pictures


def _tone(text: str) -> str:
    """The colour of a title: that of right or wrong where it carries the sign, else ink."""
    return BAD if "✗" in text else GOOD if "✓" in text else INK


def _draw(fig: Figure, place: Sequence[float], image: np.ndarray, size: tuple[int, int], text: str = "",
          window: Sequence[int] | None = None):
    """A picture over the pixel grid of `size` (H, W) at (left, top, width, height), or a window of that grid.

    Pixels that are enlarged stay squares, pixels that are shrunk are averaged.
    """
    width, height = fig.get_size_inches()
    x, y, wide, tall = place
    ax = fig.add_axes((x / width, 1 - (y + tall) / height, wide / width, tall / height))
    part = 1 if window is None else window[3] / size[1]
    squares = wide * PHOTO_DPI >= 1.5 * part * image.shape[1]
    ax.imshow(image, extent=(0, size[1], size[0], 0), interpolation="nearest" if squares else "antialiased",
              aspect="auto")
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    edge, line = (LIGHT, 0.6) if _tone(text) == INK else (_tone(text), 1.8)
    if window is not None:
        edge, line = MARK, 1.5
        ax.set(xlim=(window[1], window[1] + window[3]), ylim=(window[0] + window[2], window[0]))
    ax.spines[:].set(visible=True, color=edge, linewidth=line)
    if text:
        ax.set_title(text, fontsize=9, weight="normal", loc="center", pad=3.5, color=_tone(text),
                     linespacing=1.15)
    return ax


def _caption_height(texts: Iterable[str]) -> float:
    lines = max((text.count("\n") + 1 for text in texts if text), default=0)
    return 0.15 * lines + 0.09 * bool(lines)


def _most_different(images: Sequence[np.ndarray], height: int, width: int) -> tuple[int, int, int, int]:
    """The window (top, left, height, width) where pictures (H, W, 3) differ most, or one varies most."""
    grey = np.stack([image.mean(2) for image in images])
    spread = np.hypot(*np.gradient(grey[0])) if len(grey) == 1 else grey.max(0) - grey.min(0)
    total = np.pad(spread, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    strips = total[height:] - total[:-height]
    sums = strips[:, width:] - strips[:, :-width]
    top, left = np.unravel_index(sums.argmax(), sums.shape)
    return int(top), int(left), height, width


def panel(columns: Mapping[str, Iterable], titles: Mapping[str, Sequence[str]] | None = None,
          row_names: Sequence[str] | None = None, crops: str | Sequence | None = None,
          title: str | None = None, cell_width: float | None = None) -> Figure:
    """Pictures compared: a row per image, a column per method, all of one size, a zoomed crop below each.

    columns    method or heading -> N images (3, H, W); smaller ones (the low-resolution input) keep their
               square pixels at the same displayed size
    titles     the same names -> N texts such as "28.80 dB / 0.869"; with ✓ or ✗ in it, it is green or red
    row_names  N texts
    crops      "auto" (where the methods differ most) or N rectangles (top, left, height, width) in pixels of
               the largest picture of the row
    """
    columns = {name: [_image(image) for image in images] for name, images in columns.items()}
    titles = titles or {}
    if not columns:
        raise ValueError("panel needs at least one column of images, found none.")
    if unknown := set(titles) - set(columns):
        raise ValueError(f"titles for columns that do not exist: {', '.join(sorted(unknown))}; "
                         f"columns are: {', '.join(columns)}.")
    automatic = isinstance(crops, str)
    if automatic and crops != "auto":
        raise ValueError(f'crops is None, "auto" or a list of rectangles, found {crops!r}.')
    titled = {f"titles of {name}": texts for name, texts in titles.items()}
    _same_length(**columns, **titled, row_names=row_names, crops=None if automatic else crops)
    rows, sizes, windows = list(zip(*columns.values(), strict=True)), [], []
    for index, row in enumerate(rows):
        h, w = max(image.shape[:2] for image in row)
        if any(abs(image.shape[0] / h - image.shape[1] / w) > 0.05 for image in row):
            found = [image.shape[:2] for image in row]
            raise ValueError(f"a row shows one scene in one shape, found {found} (H, W) in row {index}.")
        window = crops[index] if crops is not None and not automatic else None
        if automatic:
            full = [image for image in row if image.shape[:2] == (h, w)]
            window = _most_different(full, min(h, max(9, w // 7)), min(w, max(12, w // 5)))
        if window is not None:
            top, left, tall, wide = window
            if min(top, left) < 0 or min(tall, wide) < 1 or top + tall > h or left + wide > w:
                raise ValueError(f"crop {index} is (top, left, height, width) = {tuple(window)}, which does "
                                 f"not lie within the image of {h} x {w} pixels (H x W).")
        sizes.append((h, w))
        windows.append(window)

    gap, margin = 0.07, 0.32 if row_names else 0.06
    largest = 1.6 if max(w for _, w in sizes) <= 64 else 3.1
    cell = cell_width or min(largest, (WIDTH - margin - 0.06 - gap * (len(columns) - 1)) / len(columns))
    captions = [_caption_height(texts[r] for texts in titles.values()) for r in range(len(rows))]
    heights = [min(cell * h / w, 1.25 * cell) for h, w in sizes]
    zooms = [0 if window is None else gap + cell * window[2] / window[3] for window in windows]
    head, between = 0.28 + 0.32 * bool(title), 0.06 if titles else 0.12
    width = margin + 0.06 + len(columns) * cell + gap * (len(columns) - 1)
    height = head + sum(captions) + sum(heights) + sum(zooms) + between * (len(rows) - 1) + 0.06
    fig = Figure(figsize=(width, height))
    _title(fig, title)
    for c, name in enumerate(columns):
        fig.text((margin + c * (cell + gap) + cell / 2) / width, 1 - (head - 0.05) / height, name_of(name),
                 ha="center", fontsize=10.5, weight="bold")
    y = head
    for r, (row, size, window) in enumerate(zip(rows, sizes, windows, strict=True)):
        y, tall = y + captions[r], heights[r]
        wide = tall * size[1] / size[0]
        if row_names:
            fig.text((margin - 0.08) / width, 1 - (y + (tall + zooms[r]) / 2) / height, row_names[r],
                     rotation=90, ha="right", va="center", fontsize=9.5, color=MUTED)
        for c, (name, image) in enumerate(zip(columns, row, strict=True)):
            x = margin + c * (cell + gap)
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


def scored_panel(scores, pictures: Mapping[str, Mapping], chosen: Sequence[str], methods: Sequence[str],
                 caption: str = "{psnr_db:.2f} dB / {ssim:.4f}") -> Figure:
    """`panel` of measured pictures: a row per name in `chosen`, a column per method, its scores above each picture.

    scores: a table with columns `picture` and `method` and those that `caption` names. pictures: {name: {method:
    image}}. The crop is where the methods differ most.
    """
    rows = {(row["picture"], row["method"]): row for row in _rows(scores)}

    def text(key: tuple[str, str]) -> str:  # what has no value, such as the PSNR of the truth, is left out
        parts = caption.format(**rows[key]).split(", ") if key in rows else []
        return ", ".join(part for part in parts if "nan" not in part)

    texts = {method: [text((name, method)) for name in chosen] for method in methods}
    columns = {method: [pictures[name][method] for name in chosen] for method in methods}
    return panel(columns, {m: t for m, t in texts.items() if any(t)}, row_names=list(chosen), crops="auto")


def scored_dots(scores, methods: Sequence[str], xlabel: str = LABELS["psnr_db"]) -> Figure:
    """`image_dots` of a table with columns `set`, `picture`, `method`, `psnr_db`, in its order."""
    rows = {(row["picture"], row["method"]): row for row in _rows(scores)}
    sets = {picture: row["set"] for (picture, _), row in rows.items()}
    values = {method: [rows[picture, method]["psnr_db"] for picture in sets] for method in methods}
    return image_dots(values, list(sets), xlabel, sets=list(sets.values()))


def picture_grid(images: Iterable, titles: Sequence[str] | None = None, num_columns: int | None = None,
                 title: str | None = None, cell_width: float | None = None) -> Figure:
    """Pictures (3, H, W) in rows of one height, a text above each; with ✓ or ✗ in it, it is green or red."""
    images = [_image(image) for image in images]
    _same_length(images=images, titles=titles)
    titles = titles or [""] * len(images)
    largest, most = (1.5, 8) if max(image.shape[1] for image in images) <= 64 else (3.1, 4)
    num_columns, gap = min(num_columns or most, len(images)), 0.1
    cell = cell_width or min(largest, (WIDTH - 0.12 - gap * (num_columns - 1)) / num_columns)
    room = cell * num_columns
    starts = range(0, len(images), num_columns)
    aspects = [image.shape[1] / image.shape[0] for image in images]
    heights = [room / sum(aspects[i : i + num_columns]) for i in starts]
    if len(images) % num_columns:  # a last row that is not full is as tall as its neighbours
        heights[-1] = min(heights[-1], min(heights[:-1]))
    captions = [_caption_height(titles[i : i + num_columns]) for i in starts]
    head = 0.04 + 0.3 * bool(title)
    width = 0.12 + room + gap * (num_columns - 1)
    fig = Figure(figsize=(width, head + sum(heights) + sum(captions) + gap * (len(heights) - 1) + 0.06))
    _title(fig, title)
    y = head
    for start, tall, caption in zip(starts, heights, captions, strict=True):
        x, y = 0.06, y + caption
        for i in range(start, min(start + num_columns, len(images))):
            _draw(fig, (x, y, tall * aspects[i], tall), images[i], images[i].shape[:2], titles[i])
            x += tall * aspects[i] + gap
        y += tall + gap
    return fig


def predictions(images, labels, predicted, probabilities, classes: Sequence[str], num: int = 21,
                title: str | None = None) -> Figure:
    """What a classifier says of the first `num` pictures: ✓ and green if right; ✗, red and the truth if not.

    `labels` and `predicted` are N class indices; `probabilities` (N,) of the predicted class, or
    (N, num_classes).
    """
    labels, predicted, probabilities = _numpy(labels), _numpy(predicted), _numpy(probabilities)
    _same_length(images=images, labels=labels, predicted=predicted, probabilities=probabilities)
    if (highest := max(labels.max(), predicted.max())) >= len(classes):
        raise ValueError(f"found the class index {highest}, but only {len(classes)} class names.")
    if probabilities.ndim == 2:
        probabilities = probabilities[np.arange(len(predicted)), predicted]
    texts = [
        f"✓ {100 * sure:.0f} %\n{classes[guess]}" if guess == truth
        else f"✗ {100 * sure:.0f} % {classes[guess]}\ntruth: {classes[truth]}"
        for guess, sure, truth in zip(predicted[:num], probabilities[:num], labels[:num], strict=True)
    ]
    return picture_grid(images[:num], texts, 7, title)


# --------------------------------------------------------------------------------------------- classification


def ladder(table, value: str = "accuracy", error: str | tuple[str, str] | None = None, rung: str = "rung",
           label: str | None = None, ceiling: str | None = "clean", floor: str | None = "degraded",
           over: str | None = None, beside: str | None = None, xlabel: str | None = None,
           title: str | None = None) -> Figure:
    """The rungs as bars that climb in the order given, the first at the bottom, the ceiling always on top.

    Beside each bar stand its value and what it adds to the rung below, or to the rung `over`, or else the text in the
    column `beside`, under that column's name. Dashed lines mark ceiling and floor.
    `rung`, `value` and `label` name columns: methods of COLORS, numbers, and texts to show for the methods.
    `error` is the column with half the width of a confidence interval, or the two with its ends.
    """
    table = _table(table)
    rungs = list(_column(table, rung))
    _same_length(rungs=rungs)
    order = sorted(range(len(rungs)), key=lambda i: rungs[i] == ceiling)
    rungs, at = [rungs[i] for i in order], np.arange(len(rungs))
    numbers = np.array(_column(table, value), float)
    scale = _percent(1.0, numbers) if value.startswith("accuracy") else 1.0
    numbers = numbers[order] * scale
    texts = [str(_column(table, label)[i]) for i in order] if label else [name_of(r) for r in rungs]
    fig = _figure(WIDTH, 1.1 + 0.38 * len(rungs), title)
    ax = fig.add_subplot()
    ax.barh(at, numbers, height=0.62, color=[color(r) for r in rungs])
    if error:
        names = [error] * 2 if isinstance(error, str) else error
        ends = [np.array(_column(table, name), float)[order] * scale for name in names]
        whiskers = ends if isinstance(error, str) else [numbers - ends[0], ends[1] - numbers]
        ax.errorbar(numbers, at, xerr=whiskers, fmt="none", ecolor=INK, elinewidth=1.2, capsize=3)
    digits = 3 if numbers.max() < 1.5 else 2
    if beside:
        notes, heading, right = [str(_column(table, beside)[i]) for i in order], beside, 196
    else:
        before = numbers[rungs.index(over)] if over else np.r_[numbers[0], numbers[:-1]]
        notes = [f"{step:+.{digits}f}".replace("-", "−") for step in numbers - before]
        notes[rungs.index(over) if over else 0] = ""
        heading, right = f"over\n{name_of(over).lower() if over else 'rung below'}", 104
    top = len(rungs) - 0.4

    def write(y: float, text: str, points: float, **options) -> None:
        place = {"xycoords": ax.get_yaxis_transform(), "textcoords": "offset points", "ha": "right"}
        ax.annotate(text, (1, y), (points, 0), **place, **options)

    for y, number, note in zip(at, numbers, notes, strict=True):
        write(y, f"{number:.{digits}f}", 46, va="center_baseline", weight="bold")
        write(y, note, right, va="center_baseline", color=MUTED)
    write(top, "value", 46, va="bottom", fontsize=9, color=MUTED)
    write(top, heading, right, va="bottom", fontsize=9, color=MUTED)
    for name, text in ((ceiling, "ceiling"), (floor, "floor")):
        if name in rungs:
            ax.axvline(numbers[rungs.index(name)], color=INK, ls=DASHED, lw=1.1)
            ax.text(numbers[rungs.index(name)], top, text, ha="center", va="bottom", fontsize=9, color=MUTED)
    ax.set_yticks(at, texts, fontsize=10)
    ax.set(xlabel=xlabel or LABELS.get(value, value), ylim=(-0.5, top), xlim=(0, numbers.max() * 1.05))
    _upright(ax)
    return fig


def _upright(ax) -> None:
    """Grid lines for values that run to the right."""
    ax.grid(False, axis="y")
    ax.grid(axis="x")
    ax.spines["left"].set_visible(False)


def confusion(matrix, classes: Sequence[str], cells: str = "percent", title: str | None = None) -> Figure:
    """Which class (row) is taken for which (column): the errors in colour, the hits on the diagonal in grey.

    Colours are shares of the row. `cells` is "percent" (of the row) or "count".
    """
    matrix = _numpy(matrix).astype(float)
    if matrix.shape != (len(classes),) * 2:
        raise ValueError(f"{len(classes)} classes need a matrix of {len(classes)} x {len(classes)}, "
                         f"found {' x '.join(map(str, matrix.shape))}.")
    if cells not in ("percent", "count"):
        raise ValueError(f'cells is "percent" or "count", found {cells!r}.')
    share = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    errors = share * (1 - np.eye(len(classes)))
    top = max(errors.max(), 1e-9)
    size = min(7.8, 2.2 + 0.56 * len(classes))
    fig = _figure(size, size * 0.86, title)
    ax = fig.add_subplot()
    ax.imshow(errors, cmap=REDS, vmin=0, vmax=top, aspect="auto")
    for row, column in np.ndindex(*matrix.shape):
        if row == column:
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color="#ECEEF0", lw=0, zorder=0.3))
        fill = "#ECEEF0" if row == column else REDS(errors[row, column] / top)[:3]
        shown = f"{share[row, column]:.1f}" if cells == "percent" else f"{matrix[row, column]:.0f}"
        if matrix[row, column] > 0:
            ax.text(column, row, shown, ha="center", va="center", fontsize=9.5, color=_on(fill),
                    weight="bold" if row == column else "normal")
    ax.set_xticks(range(len(classes)), classes, rotation=35, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(classes)), classes)
    ax.set(xlabel="Predicted class", ylabel="True class")
    unit = "% of the true class" if cells == "percent" else "images"
    ax.set_title(unit, weight="normal", fontsize=9, color=MUTED)
    _tiles(ax, matrix.shape)
    return fig


def _tiles(ax, shape: tuple[int, int]) -> None:
    ax.grid(False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xticks(np.arange(1, shape[1]) - 0.5, minor=True)
    ax.set_yticks(np.arange(1, shape[0]) - 0.5, minor=True)
    ax.grid(which="minor", axis="both", color="white", lw=1.5)
    ax.tick_params(which="minor", length=0)


def heatmap(table, row_names: Sequence[str] | None = None, column_names: Sequence[str] | None = None,
            label: str = LABELS["accuracy"], xlabel: str = "", ylabel: str = "", digits: int = 1,
            title: str | None = None) -> Figure:
    """A table of numbers as coloured cells, e.g. accuracy per model (row) and degradation (column).

    The highest of each column is bold and underlined by a bar. Names come from a DataFrame or are handed in.
    """
    if hasattr(table, "columns"):
        row_names, column_names, table = list(table.index), list(table.columns), table.to_numpy()
    values = _numpy(table).astype(float)
    if values.ndim != 2 or row_names is None or values.shape != (len(row_names), len(column_names or ())):
        raise ValueError("heatmap needs a 2-D table with a name for each row and column, found "
                         f"{values.shape}, row_names {row_names}, column_names {column_names}.")
    if label.startswith("Accuracy"):
        values = _percent(values, values)
    low, high = np.nanmin(values), np.nanmax(values)
    fig = _figure(min(WIDTH, 2.6 + 1.05 * values.shape[1]), 1.2 + 0.46 * values.shape[0], title)
    ax = fig.add_subplot()
    span = max(high - low, 1e-9)
    ax.imshow(values, cmap=BLUES, vmin=low - 0.15 * span, vmax=high + 0.1 * span, aspect="auto")
    for row, column in np.ndindex(*values.shape):
        if not np.isfinite(values[row, column]):
            continue
        first = values[row, column] == np.nanmax(values[:, column]) and len(values) > 1
        fill = BLUES((values[row, column] - low + 0.15 * span) / (1.25 * span))[:3]
        ax.text(column, row, f"{values[row, column]:.{digits}f}", ha="center", va="center", color=_on(fill),
                weight="bold" if first else "normal")
        if first:
            ax.plot([column - 0.22, column + 0.22], [row + 0.3] * 2, color=_on(fill), lw=1.2)
    ax.set_xticks(range(values.shape[1]), [name_of(n) for n in column_names])
    ax.set_yticks(range(values.shape[0]), [name_of(n) for n in row_names])
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_title(f"{label}, highest of each column underlined", weight="normal", fontsize=9, color=MUTED)
    _tiles(ax, values.shape)
    return fig


def class_bars(values_by_method: Mapping[str, Sequence[float]], classes: Sequence[str], sort: bool = False,
               ylabel: str = LABELS["accuracy"], title: str | None = None) -> Figure:
    """A value per class for up to four methods side by side; `sort`: the lowest of the last method first."""
    values = {method: _numpy(numbers).astype(float) for method, numbers in values_by_method.items()}
    if not 1 <= len(values) <= 4:
        raise ValueError(f"class_bars compares one to four methods, found {len(values)}.")
    _same_length(classes=classes, **values)
    if ylabel.startswith("Accuracy"):
        values = {m: _percent(v, list(values.values())) for m, v in values.items()}
    order = np.argsort(list(values.values())[-1], kind="stable") if sort else np.arange(len(classes))
    fig = _figure(WIDTH, 3.5, title)
    ax = fig.add_subplot()
    wide = 0.8 / len(values)
    for k, (method, numbers) in enumerate(values.items()):
        at = np.arange(len(classes)) + (k - (len(values) - 1) / 2) * wide
        bars = ax.bar(at, numbers[order], wide * 0.92, color=color(method), label=name_of(method))
        if len(classes) * len(values) <= 30:
            form = "%.0f" if numbers.max() > 1.5 else "%.2f"
            ax.bar_label(bars, fmt=form, fontsize=9, padding=1.5, color=MUTED)
    ax.set_xticks(range(len(classes)), [classes[i] for i in order], fontsize=9.5)
    ax.set(ylabel=ylabel, xlim=(-0.6, len(classes) - 0.4))
    ax.tick_params(axis="x", length=0)
    _legend(fig, handlelength=1, handleheight=1)
    return fig


def image_dots(values_by_method: Mapping[str, Sequence[float]], names: Sequence[str],
               xlabel: str = LABELS["psnr_db"], title: str | None = None,
               sets: Sequence[str] | None = None) -> Figure:
    """A value per image for several methods as dots on a line, and their means below.

    The numbers at the right are the gain of the last method over the one before it. `sets` says which set each image
    is of, where there are several: each then has its own mean.
    """
    values = {method: _numpy(numbers).astype(float) for method, numbers in values_by_method.items()}
    sets = [""] * len(names) if sets is None else list(sets)
    _same_length(names=names, sets=sets, **values)
    groups = [[one == name for one in sets] for name in dict.fromkeys(sets)]
    means = ["mean" if len(groups) == 1 else f"mean, {name}" for name in dict.fromkeys(sets)]
    values = {method: np.append(numbers, [numbers[group].mean() for group in groups])
              for method, numbers in values.items()}  # fmt: skip
    at = np.append(np.arange(len(names)), len(names) + 0.4 + np.arange(len(groups)))
    fig = _figure(WIDTH, 1.15 + 0.27 * len(at), title)
    ax = fig.add_subplot()
    lowest, highest = (extreme(list(values.values()), axis=0) for extreme in (np.min, np.max))
    ax.hlines(at, lowest, highest, color=LIGHT, lw=2.5, zorder=1)
    for method, numbers in values.items():
        ax.plot(numbers, at, "o", ms=7.5, color=color(method), mec="white", mew=0.8, label=name_of(method))
    if len(values) > 1:
        before, last = list(values)[-2:]
        beside = {"xycoords": ax.get_yaxis_transform(), "xytext": (46, 0), "textcoords": "offset points",
                  "ha": "right", "fontsize": 9}
        for y, gain in zip(at, values[last] - values[before], strict=True):
            weight = "bold" if y >= len(names) else "normal"
            number = f"{gain:+.2f}".replace("-", "−")
            ax.annotate(number, (1, y), va="center_baseline", weight=weight, **beside)
        ax.annotate(f"{name_of(last)} − {name_of(before)}", (1, -0.7), va="bottom", color=MUTED, **beside)
    ax.axhline(len(names) - 0.3, color=LIGHT, lw=0.8)
    ax.set_yticks(at, [*names, *means])
    for label in ax.get_yticklabels()[len(names) :]:
        label.set_weight("bold")
    ax.set(xlabel=xlabel, ylim=(at[-1] + 0.6, -0.6))
    _upright(ax)
    _legend(fig, handletextpad=0.2)
    return fig


def reliability(bins_by_method: Mapping[str, Mapping], title: str | None = None) -> Figure:
    """Is a classifier as often right as it is sure? Accuracy over confidence in bins, and the images in each.

    bins_by_method: {method: its "confidence", "accuracy" (fractions) and "count" per bin, equal bins over [0, 1], as
    `metrics.calibration_bins` returns them}. The expected calibration error (Guo et al. 2017), the gap weighted by the
    count, stands in the figure. Bins of fewer than 30 images count in it but are not drawn: their accuracy says little.
    """
    fig = _figure(5.2, 5.6, title)
    ax, below = fig.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    ax.plot([0, 100], [0, 100], color=MUTED, ls=DASHED, lw=1.2)
    ax.text(97, 10 + 7 * len(bins_by_method), "expected calibration error", ha="right", fontsize=9, color=MUTED)
    for k, (method, bins) in enumerate(bins_by_method.items()):
        sure, right, count = (_numpy(bins[part]).astype(float) for part in ("confidence", "accuracy", "count"))
        _same_length(confidence=sure, accuracy=right, count=count)
        filled = count > 0
        if not filled.any() or max(sure[filled].max(), right[filled].max()) > 1:
            raise ValueError("reliability needs some images, and confidence and accuracy as fractions in [0, 1].")
        tone, x, y = color(method), 100 * sure[filled], 100 * right[filled]
        error = (count[filled] * abs(y - x)).sum() / count.sum()
        many = count[filled] >= min(30, count.max())
        ax.plot(x[many], y[many], "o-", color=tone, ms=6)
        at = 3 + 7 * (len(bins_by_method) - k)  # below the diagonal, where overconfidence alone would stand
        ax.text(97, at, f"{name_of(method)}: {error:.1f} %", ha="right", weight="bold", color=tone)
        wide = 92 / len(count) / len(bins_by_method)
        below.bar(np.arange(len(count)) * 100 / len(count) + (k + 0.5) * wide, count, wide, color=tone)
    ax.text(97, 3, "dashed: as often right as it is sure", ha="right", fontsize=9, color=MUTED)
    ax.set(ylabel=LABELS["accuracy"], xlim=(0, 100), ylim=(0, 100))
    below.set(xlabel="Confidence (%)", ylabel="Images")
    fig.align_ylabels()
    return fig


# ------------------------------------------------------------------------------ trade-offs and frequencies


def trade_off(x, y, labels: Sequence[str], xlabel: str = LABELS["psnr_db"], ylabel: str = LABELS["accuracy"],
              method: str = "joint", points: Mapping[str, tuple[float, float]] | None = None,
              error: Sequence[float] | None = None, title: str | None = None) -> Figure:
    """One measure against another along a sweep, a label (e.g. the weight lambda) at each point, in order.

    `points` are single methods beside the curve: {"control": (psnr_db, accuracy)}. `error`: half the width of an
    interval of y, in its unit, for each point of the sweep and then for each of `points`.
    """
    _same_length(x=x, y=y, labels=labels)
    points = points or {}
    at = np.array([*zip(_numpy(x), _numpy(y), strict=True), *points.values()], float)
    half = np.zeros(len(at)) if error is None else np.array(error, float)
    _same_length(points=at, error=half)
    if ylabel.startswith("Accuracy"):
        half = _percent(half, at[:, 1])
        at[:, 1] = _percent(at[:, 1], at[:, 1])
    fig = _figure(6.6, 4.2, title)
    ax = fig.add_subplot()
    if error is not None:
        ax.errorbar(*at.T, yerr=half, fmt="none", ecolor=MUTED, alpha=0.5, elinewidth=1, capsize=3, zorder=1)
    ax.plot(*at[: len(labels)].T, "o-", color=color(method), ms=7, mec="white", mew=1)
    for name, (across, up) in zip(points, at[len(labels) :], strict=True):
        ax.plot(across, up, "D", color=color(name), ms=7, mec="white", mew=1)
    ax.margins(0.14, 0.14)
    ax.grid(error is None, axis="x")  # upright lines would look like intervals
    ax.set(xlabel=xlabel, ylabel=ylabel)
    _place_labels(ax, at, [*map(str, labels), *map(name_of, points)], len(labels))
    return fig


def _place_labels(ax, at: np.ndarray, texts: Sequence[str], on_line: int) -> None:
    """Each text beside its point, on the side where it covers least of line, points and other texts."""
    low, high = np.array([ax.get_xlim(), ax.get_ylim()]).T
    room = ax.figure.get_size_inches() * 72 * 0.85  # the axes in points, about; positions below are in points
    spots = (at - low) / (high - low) * room
    between = np.linspace(spots[: on_line - 1], spots[1:on_line], 40).reshape(-1, 2)
    taken = np.concatenate([spots, between])
    for point, spot, text in zip(at, spots, texts, strict=True):
        wide, tall = 5.6 * len(text), 11
        sides = [(8, -tall / 2), (-8 - wide, -tall / 2), (-wide / 2, 8), (-wide / 2, -8 - tall),
                 (5, 5), (-5 - wide, 5), (5, -5 - tall), (-5 - wide, -5 - tall)]

        starts = spot + np.array(sides) - 2
        ends = starts + np.array([wide + 4, tall + 4])
        covered = ((taken > starts[:, None]) & (taken < ends[:, None])).all(2).sum(1)
        outside = ((starts < 0) | (ends > room)).any(1)
        side = sides[int(np.argmin(covered + 99 * outside))]
        ax.annotate(text, point, side, textcoords="offset points", fontsize=9.5)
        box = np.stack(np.meshgrid(np.linspace(0, wide, 8), [0, tall / 2, tall]), -1).reshape(-1, 2)
        taken = np.concatenate([taken, spot + side + box])


def spectrum(images_by_method: Mapping[str, Iterable], nyquist: float | None = None,
             title: str | None = None) -> Figure:
    """How much fine detail pictures hold: power over spatial frequency, mean over directions and pictures.

    Pictures are (N, 3, H, W), of one size for each method; a Hann window keeps their borders out of it.
    `nyquist` (cycles per pixel) marks the finest detail the input could hold: 0.25 for pictures once halved.
    """
    if not images_by_method:
        raise ValueError("spectrum needs images of at least one method, found none.")
    fig = _figure(6.6, 4.0, title)
    ax = fig.add_subplot()
    for method, images in images_by_method.items():
        grey = np.stack([_image(image).mean(2) for image in images])
        height, width = grey.shape[1:]
        window = np.outer(np.hanning(height), np.hanning(width))
        power = abs(np.fft.fft2((grey - grey.mean((1, 2), keepdims=True)) * window)) ** 2
        radius = np.hypot(*np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij"))
        num_bins = min(48, min(height, width) // 2)
        bins = (radius * 2 * num_bins).astype(int).ravel()  # beyond the last bin lie the corners of the plane
        sums, counts = np.bincount(bins, power.mean(0).ravel()), np.bincount(bins)
        mean = (sums / counts)[:num_bins] / window.sum()
        frequency = (np.arange(num_bins) + 0.5) / (2 * num_bins)
        style = DASHED if method == "truth" else "-"
        ax.plot(frequency[1:], mean[1:], color=color(method), ls=style, label=name_of(method))
    ax.set(xlabel="Spatial frequency (cycles per pixel)", ylabel="Power", yscale="log", xlim=(0, 0.5))
    if nyquist is not None:
        ax.axvline(nyquist, color=MUTED, lw=1, ls=":")
        ax.text(nyquist + 0.006, 0.98, "finest detail of the input", transform=ax.get_xaxis_transform(),
                va="top", fontsize=9, color=MUTED)
    _legend(fig)
    return fig
