"""Figures carry the numbers, names and units handed in; `show` saves whole files and displays their bytes."""

import io
import itertools
import types

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

import plots

CLASSES = ["cat", "dog", "frog"]


def texts(fig: Figure) -> list[str]:
    return [text.get_text() for text in fig.findobj(Text) if text.get_text() and text.get_visible()]


def rendered(fig: Figure) -> Figure:
    """Lays the figure out and checks that no text is smaller than 9 points and nothing runs off the page."""
    fig.draw_without_rendering()
    assert all(text.get_fontsize() >= 9 for text in fig.findobj(Text) if text.get_text().strip())
    box = fig.get_tightbbox()  # inches
    width, height = fig.get_size_inches()
    assert box.x0 > -0.02 and box.y0 > -0.02 and box.x1 < width + 0.02 and box.y1 < height + 0.02, box
    return fig


def history(num_epochs: int = 4, shift: float = 0.0) -> pd.DataFrame:
    epochs = np.arange(1, num_epochs + 1)
    return pd.DataFrame({
        "epoch": epochs, "loss_train": 1 / epochs, "loss_valid": 1.1 / epochs + shift,
        "accuracy_valid": 0.5 + 0.05 * epochs + shift, "psnr_db_valid": 26 + 0.1 * epochs,
        "learning_rate": 1e-3 / epochs,
    })  # fmt: skip


def pictures(num: int = 3, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.rand((num, 3, height, width), generator=torch.Generator().manual_seed(0))


# ------------------------------------------------------------------------------------------ style and colours


# Machado, Oliveira and Fernandes (2009), full severity, on linear RGB.
SIGHT = {
    "usual": np.eye(3),
    "deuteranopia": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
}


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("together", [
    ["clean", "degraded", "cascade", "control", "frozen", "joint", "task_only", "distilled"],
    ["nearest", "bicubic", "srnet", "truth"],
    ["nearest", "bicubic", "srresnet", "srgan", "truth"],
    ["bicubic", "resshuffle", "truth"], ["degraded", "single", "joint"],
    ["grey", "mse", "fast", "unet", "chroma"], ["train", "valid"],
    ["mse", "perceptual", "regularised", "fast", "slow", "chroma"],
    ["classify", "restore", "joint", "separate"],
])  # fmt: skip
def test_methods_drawn_together_can_be_told_apart(sight, together):
    rgb = np.array([to_rgb(plots.color(method)) for method in together])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ np.array(SIGHT[sight]).T
    linear = linear.clip(0, 1)
    seen = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    lab = rgb2lab(seen[None])[0]
    for (a, one), (b, other) in itertools.combinations(zip(together, lab, strict=True), 2):
        assert deltaE_ciede2000(one, other) > (15 if sight == "usual" else 6), (a, b)


def test_unknown_method_lists_the_known():
    with pytest.raises(ValueError, match=r"no colour for the method 'swinir'.*nearest.*joint.*distilled"):
        plots.color("swinir")
    with pytest.raises(ValueError, match="swinir"):
        plots.class_bars({"swinir": [1, 2, 3]}, CLASSES)


def test_style_is_set_on_import_and_again_when_asked():
    with matplotlib.rc_context({"axes.spines.top": True, "font.size": 5}):
        plots.use_style()
        assert not matplotlib.rcParams["axes.spines.top"]
        sizes = ("font.size", "xtick.labelsize", "ytick.labelsize", "axes.labelsize", "legend.fontsize")
        assert min(matplotlib.rcParams[key] for key in sizes) >= 9


def test_signs_are_in_the_font():
    font = get_font(matplotlib.font_manager.findfont("DejaVu Sans"))
    assert {ord(sign) for sign in "✓✗×−λ→"} <= set(font.get_charmap())


# ------------------------------------------------------------------------------------------------------- show


@pytest.fixture
def notebook(monkeypatch):
    """A kernel that keeps what is displayed."""
    shown = []
    monkeypatch.setattr("IPython.get_ipython", lambda: types.SimpleNamespace(kernel=object()))
    monkeypatch.setattr("IPython.display.display", shown.append)
    return shown


@pytest.mark.parametrize(("photo", "suffix", "kind"), [(False, "png", "PNG"), (True, "jpg", "JPEG")])
def test_show_saves_and_displays_the_same_bytes(tmp_path, notebook, capsys, photo, suffix, kind):
    fig = plots.picture_grid(pictures())
    assert plots.show(fig, "grid", tmp_path / "run", photo=photo) is None
    content = (tmp_path / "run" / f"grid.{suffix}").read_bytes()
    assert [path.name for path in (tmp_path / "run").iterdir()] == [f"grid.{suffix}"]
    assert notebook[0].data == content and len(notebook) == 1
    bundle = notebook[0]._repr_mimebundle_()
    data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
    assert list(data) == [f"image/{kind.lower()}"]
    assert metadata[f"image/{kind.lower()}"]["width"] == round(96 * fig.get_figwidth())
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == kind and image.width > 1.1 * 96 * fig.get_figwidth()
    assert capsys.readouterr().out == ""


def test_show_without_a_name_only_displays(tmp_path, notebook, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plots.show(plots.picture_grid(pictures()))
    assert len(notebook) == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("shell", [None, types.SimpleNamespace()])
def test_show_outside_a_notebook_only_saves(tmp_path, monkeypatch, capsys, shell):
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    plots.show(plots.picture_grid(pictures()), "grid", tmp_path)
    assert (tmp_path / "grid.png").exists() and capsys.readouterr().out == ""


def test_show_is_silent_in_other_processes_of_a_group(tmp_path, notebook, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    plots.show(plots.picture_grid(pictures()), "grid", tmp_path)
    assert not notebook and not list(tmp_path.iterdir())
    monkeypatch.setenv("RANK", "0")
    plots.show(plots.picture_grid(pictures()), "grid", tmp_path)
    assert len(notebook) == 1 and (tmp_path / "grid.png").exists()


def test_show_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    (tmp_path / "grid.png").write_bytes(b"old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        plots.show(plots.picture_grid(pictures()), "grid", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]
    assert (tmp_path / "grid.png").read_bytes() == b"old"


def test_show_closes_a_figure_of_pyplot_and_needs_name_and_folder(tmp_path):
    before = pyplot.get_fignums()
    fig = pyplot.figure()
    plots.show(fig, "empty", tmp_path)
    assert pyplot.get_fignums() == before
    with pytest.raises(ValueError, match="needs a name and a folder"):
        plots.show(plots.picture_grid(pictures()), "grid")


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    for name in "ab":
        plots.show(plots.picture_grid(pictures()), name, tmp_path)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


# ----------------------------------------------------------------------------------------------------- curves


def test_curves_show_both_parts_baselines_units_and_the_chosen_epoch():
    baselines = {"psnr_db": {"bicubic": 26.05}, "accuracy": {"degraded": 0.4726, "clean": 0.848}}
    fig = rendered(plots.curves(history(), ["loss", "psnr_db", "accuracy"], baselines, best=3, title="SRNet"))
    assert [ax.get_ylabel() for ax in fig.axes] == ["Loss", "PSNR (dB)", "Accuracy (%)"]
    assert {ax.get_xlabel() for ax in fig.axes} == {"Epoch"}
    shown = {"training", "validation", "chosen epoch (3)", "Bicubic\n26.05", "Degraded\n47.26", "SRNet"}
    assert shown <= set(texts(fig))
    loss, _, accuracy = fig.axes
    assert [line.get_color() for line in loss.lines[:2]] == [plots.color("train"), plots.color("valid")]
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), [55, 60, 65, 70])
    rings = [np.ravel(line.get_data()) for line in accuracy.lines if line.get_markersize() == 7]
    np.testing.assert_allclose(rings, [[3, 65]])
    dashed = [line for line in accuracy.lines if line.get_linestyle() == "--"]
    assert sorted(line.get_ydata()[0] for line in dashed) == pytest.approx([47.26, 84.8])


def test_curves_of_several_runs_are_a_mean_and_a_band():
    fig = rendered(plots.curves([history(), history(shift=0.1), history(3)], ["accuracy"]))
    np.testing.assert_allclose(fig.axes[0].lines[0].get_ydata(), 100 * (0.55 + 0.1 / 3 + np.arange(3) * 0.05))
    band = fig.axes[0].collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(55) and band[:, 1].max() == pytest.approx(75)
    assert "band: lowest to highest of 3 runs" in texts(fig)
    low_high = history().assign(accuracy_valid_low=0.4, accuracy_valid_high=0.9)
    band = plots.curves(low_high, ["accuracy"]).axes[0].collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(40) and band[:, 1].max() == pytest.approx(90)


def test_curves_of_several_methods_take_their_colours():
    methods = {"joint": history(), "frozen": history(shift=-0.1)}
    fig = rendered(plots.curves(methods, ["loss"], best={"joint": 2}))
    colours = {line.get_color() for line in fig.axes[0].lines}
    assert colours == {plots.color("joint"), plots.color("frozen")}
    assert {"Joint", "Frozen", "training (thin)", "chosen epoch"} <= set(texts(fig))


def test_curves_leave_out_epochs_without_a_number_and_take_labels():
    table = history()
    table.loc[1, "loss_valid"] = np.nan
    fig = rendered(plots.curves(table, {"loss": "L1 loss", "learning_rate": "Rate"}, log=["learning_rate"]))
    assert list(fig.axes[0].lines[1].get_xdata()) == [1, 3, 4]
    assert [ax.get_ylabel() for ax in fig.axes] == ["L1 loss", "Rate"] and fig.axes[1].get_yscale() == "log"


def test_names_of_close_baselines_keep_apart():
    close = {"bicubic": 26.2, "nearest": 26.19, "srnet": 26.21}
    fig = rendered(plots.curves(history(), ["psnr_db"], {"psnr_db": close}))
    boxes = sorted((t.get_window_extent() for t in fig.axes[0].texts), key=lambda box: box.y0)
    assert len(boxes) == 3 and all(above.y0 >= below.y1 - 2 for below, above in itertools.pairwise(boxes))


@pytest.mark.parametrize(("arguments", "message"), [
    ((history(), ["ssim"]), r"no column ssim, ssim_train or ssim_valid; it has: epoch, loss_train"),
    ((history().drop(columns="epoch"), ["loss"]), "no column 'epoch'"),
    ((history(), []), "at least one metric"),
    (([], ["loss"]), "one history, found none"),
    ((3, ["loss"]), "a table is a DataFrame"),
    ((history(), ["loss"], None, 9), "the chosen epoch 9 is not in the history"),
])  # fmt: skip
def test_curves_say_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        plots.curves(*arguments)


# --------------------------------------------------------------------------------------------------- pictures


def frames(fig: Figure) -> list[Rectangle]:
    return [patch for ax in fig.axes for patch in ax.patches if isinstance(patch, Rectangle)]


def test_panel_draws_rows_columns_titles_and_crops():
    truth = pictures(2, 64, 96)
    columns = {"input": truth[:, :, ::2, ::2], "srnet": truth * 0.9, "truth": truth}
    titles = {"srnet": ["28.80 dB / 0.869", "30.00 dB / 0.900"]}
    crops = [(8, 16, 12, 24), (0, 0, 64, 96)]
    fig = rendered(plots.panel(columns, titles, ["boat", "house"], crops, title="x2"))
    assert len(fig.axes) == 2 * 3 * 2
    assert {"input", "SRNet", "Truth", "boat", "house", "28.80 dB / 0.869", "x2"} <= set(texts(fig))
    first = frames(fig)[0]
    assert (first.get_y(), first.get_x(), first.get_height(), first.get_width()) == (8, 16, 12, 24)
    assert fig.axes[1].get_xlim() == (16, 40) and fig.axes[1].get_ylim() == (20, 8)
    small, large = fig.axes[0], fig.axes[4]
    assert small.images[0].get_extent() == large.images[0].get_extent() == [0, 96, 64, 0]
    assert small.get_position().width == pytest.approx(large.get_position().width)
    assert small.images[0].get_array().shape[:2] == (32, 48)
    assert fig.axes[1].images[0].get_interpolation() == "nearest"
    np.testing.assert_allclose(large.images[0].get_array(), truth[0].permute(1, 2, 0), atol=1e-6)


def test_panel_without_crops_has_one_axes_a_picture():
    fig = rendered(plots.panel({"bicubic": pictures(), "truth": pictures()}))
    assert len(fig.axes) == 6 and not frames(fig)
    wide, tall = fig.get_size_inches() * fig.axes[0].get_position().bounds[2:]
    assert wide == pytest.approx(tall)


def test_crop_is_found_where_methods_differ_most():
    truth, other = torch.zeros(2, 1, 3, 80, 120).unbind()
    other[:, :, 50:54, 90:96] = 1.0
    fig = plots.panel({"bicubic": other, "truth": truth}, crops="auto")
    frame = frames(fig)[0]
    assert frame.get_y() <= 50 and frame.get_y() + frame.get_height() >= 54
    assert frame.get_x() <= 90 and frame.get_x() + frame.get_width() >= 96


@settings(deadline=None, max_examples=12)
@given(height=st.integers(2, 60), width=st.integers(2, 60), columns=st.integers(1, 2))
def test_found_crops_lie_within_any_picture(height, width, columns):
    images = pictures(2, height, width).unsqueeze(1)
    fig = plots.panel(dict(zip(["truth", "srnet"][:columns], images, strict=False)), crops="auto")
    frame = frames(fig)[0]
    assert frame.get_x() >= 0 and frame.get_x() + frame.get_width() <= width
    assert frame.get_y() >= 0 and frame.get_y() + frame.get_height() <= height


@pytest.mark.parametrize(("arguments", "message"), [
    ({"columns": {}}, "at least one column"),
    ({"columns": {"truth": pictures(2), "srnet": pictures(3)}}, "truth: 2, srnet: 3"),
    ({"columns": {"truth": pictures()}, "titles": {"srnet": ["a"] * 3}}, "columns that do not exist: srnet"),
    ({"columns": {"truth": pictures()}, "row_names": ["a"]}, "row_names: 1"),
    ({"columns": {"truth": pictures()}, "crops": "centre"}, "found 'centre'"),
    ({"columns": {"truth": pictures(1)}, "crops": [(30, 0, 8, 8)]}, "crop 0 .* not lie within .* 32 x 32"),
    ({"columns": {"truth": pictures(1), "srnet": pictures(1, 32, 64)}}, "one scene in one shape"),
    ({"columns": {"truth": pictures(1) * 255}}, r"lies in \[0, 1\].*divide by 255"),
    ({"columns": {"truth": pictures(1).permute(0, 2, 3, 1)}}, r"\(3, H, W\), found \(32, 32, 3\)"),
    ({"columns": {"truth": pictures(1) * float("nan")}}, r"lies in \[0, 1\]"),
])  # fmt: skip
def test_panel_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        plots.panel(**arguments)


def test_grid_takes_bytes_and_grey_and_other_shapes():
    white = torch.full((3, 20, 30), 255, dtype=torch.uint8)
    images = [white, torch.zeros(1, 30, 20), np.ones((3, 24, 24), np.float32)]
    fig = rendered(plots.picture_grid(images, ["white", "black", "also white"], title="Shapes"))
    assert [float(ax.images[0].get_array().mean()) for ax in fig.axes] == [1.0, 0.0, 1.0]
    assert {"white", "black", "also white", "Shapes"} <= set(texts(fig))
    heights = [ax.get_position().height for ax in fig.axes]
    assert heights == pytest.approx([heights[0]] * 3)
    with pytest.raises(ValueError, match="images: 3, titles: 1"):
        plots.picture_grid(images, ["white"])


@pytest.mark.parametrize("full", [False, True])
def test_predictions_mark_right_and_wrong_by_sign_text_and_colour(full):
    sure = torch.tensor([0.91, 0.64, 0.5])
    table = torch.tensor([[0.91, 0.05, 0.04], [0.3, 0.06, 0.64], [0.2, 0.5, 0.3]])
    guesses = torch.tensor([0, 2, 1])
    fig = rendered(plots.predictions(pictures(), [0, 1, 1], guesses, table if full else sure, CLASSES, num=2))
    assert texts(fig) == ["✓ 91 %\ncat", "✗ 64 % frog\ntruth: dog"]
    assert [ax.title.get_color() for ax in fig.axes] == [plots.GOOD, plots.BAD]
    assert [to_hex(ax.spines["top"].get_edgecolor()).upper() for ax in fig.axes] == [plots.GOOD, plots.BAD]


def test_predictions_say_what_is_wrong():
    with pytest.raises(ValueError, match="class index 7, but only 3"):
        plots.predictions(pictures(), [0, 1, 7], [0, 1, 2], [0.5] * 3, CLASSES)
    with pytest.raises(ValueError, match="labels: 2"):
        plots.predictions(pictures(), [0, 1], [0, 1, 2], [0.5] * 3, CLASSES)


# --------------------------------------------------------------------------------------------- classification


RUNGS = [
    {"rung": "clean", "accuracy": 0.848, "half": 0.01, "low": 0.84, "high": 0.86},
    {"rung": "degraded", "accuracy": 0.4726, "half": 0.02, "low": 0.46, "high": 0.48},
    {"rung": "task_only", "accuracy": 0.45, "half": 0.03, "low": 0.44, "high": 0.49},
]


@pytest.mark.parametrize("table", [RUNGS, pd.DataFrame(RUNGS), pd.DataFrame(RUNGS).to_dict("list")])
def test_ladder_climbs_in_the_given_order_below_the_ceiling(table):
    fig = rendered(plots.ladder(table, error="half", title="Ladder"))
    ax = fig.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["Degraded", "Task only", "Clean"]
    bars = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    assert [bar.get_width() for bar in bars] == pytest.approx([47.26, 45.0, 84.8])
    assert [to_hex(bar.get_facecolor()).upper() for bar in bars] == [
        plots.color(rung) for rung in ("degraded", "task_only", "clean")
    ]
    assert {"47.26", "45.00", "84.80", "−2.26", "+39.80", "ceiling", "floor", "Ladder"} <= set(texts(fig))
    assert ax.get_xlabel() == "Accuracy (%)" and ax.get_xlim()[0] == 0
    whiskers = [np.array(path.vertices)[:, 0] for path in ax.collections[0].get_paths()]
    np.testing.assert_allclose(whiskers, [[45.26, 49.26], [42, 48], [83.8, 85.8]])


def test_ladder_takes_the_ends_of_an_interval_and_texts():
    table = pd.DataFrame(RUNGS).assign(text=["A", "B", "C"])
    ax = rendered(plots.ladder(table, error=("low", "high"), label="text", floor=None)).axes[0]
    whiskers = [np.array(path.vertices)[:, 0] for path in ax.collections[0].get_paths()]
    np.testing.assert_allclose(whiskers, [[46, 48], [44, 49], [84, 86]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["B", "C", "A"]
    assert "floor" not in texts(ax.figure)


def test_ladder_over_one_rung():
    shown = texts(rendered(plots.ladder(RUNGS, over="task_only")))
    assert {"+2.26", "+39.80", "over\ntask only"} <= set(shown) and "−2.26" not in shown


def test_ladder_with_texts_beside_the_values():
    table = pd.DataFrame(RUNGS).assign(**{"over control": ["a", "b", "c"]})
    shown = texts(rendered(plots.ladder(table, beside="over control")))
    assert {"over control", "a", "b", "c"} <= set(shown) and not any(text.startswith(("+", "−")) for text in shown)


def test_ladder_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"no column 'psnr_db'; it has: rung, accuracy"):
        plots.ladder(RUNGS, value="psnr_db")
    with pytest.raises(ValueError, match="no colour for the method 'resnet'"):
        plots.ladder([{"rung": "resnet", "accuracy": 0.5}])


def test_confusion_shows_shares_of_the_row_and_hides_zeros():
    matrix = torch.tensor([[8, 2, 0], [0, 10, 0], [1, 1, 2]])
    shown = texts(rendered(plots.confusion(matrix, CLASSES, title="Errors")))
    assert {"80.0", "20.0", "100.0", "25.0", "50.0", "cat", "Errors"} <= set(shown)
    assert {"Predicted class", "True class", "% of the true class"} <= set(shown)
    assert "0.0" not in shown
    fig = plots.confusion(matrix, CLASSES, cells="count")
    assert {"8", "2", "10", "1"} <= set(texts(fig))
    errors = fig.axes[0].images[0].get_array()
    assert np.diag(errors).max() == 0 and errors[2, 0] == 25


def test_confusion_and_heatmap_cells_are_readable():
    """At least 4 : 1 between the text and its cell (WCAG 2)."""

    def luminance(colour):
        rgb = np.array(to_rgb(colour))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    for shade in np.linspace(0, 1, 51):
        for palette in (plots.REDS, plots.BLUES):
            fill = palette(shade)[:3]
            low, high = sorted([luminance(fill), luminance(plots._on(fill))])
            assert (high + 0.05) / (low + 0.05) > 4


def test_confusion_says_what_is_wrong():
    with pytest.raises(ValueError, match="3 classes need a matrix of 3 x 3, found 2 x 2"):
        plots.confusion(np.eye(2), CLASSES)
    with pytest.raises(ValueError, match="found 'share'"):
        plots.confusion(np.eye(3), CLASSES, cells="share")


def test_heatmap_shows_numbers_names_and_the_highest():
    table = pd.DataFrame([[0.5, 0.7], [0.6, 0.4]], index=["control", "joint"], columns=["noise", "hole"])
    fig = rendered(plots.heatmap(table, xlabel="Degradation"))
    bold = {text.get_text() for text in fig.axes[0].texts if text.get_weight() == "bold"}
    assert bold == {"60.0", "70.0"}
    assert {"50.0", "40.0", "Control", "Joint", "noise", "hole", "Degradation"} <= set(texts(fig))
    with pytest.raises(ValueError, match="a name for each row and column"):
        plots.heatmap(np.eye(2), ["a"], ["b", "c"])


def test_class_bars_are_as_tall_as_their_values_and_sort():
    values = {"degraded": [0.1, 0.2, 0.3], "joint": [0.9, 0.5, 0.7]}
    ax = rendered(plots.class_bars(values, CLASSES, sort=True, title="Classes")).axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["dog", "frog", "cat"]
    heights = [bar.get_height() for container in ax.containers for bar in container]
    assert heights == pytest.approx([20, 30, 10, 50, 70, 90])
    assert ax.get_ylabel() == "Accuracy (%)" and {"Degraded", "Joint", "90"} <= set(texts(ax.figure))
    with pytest.raises(ValueError, match="classes: 3, joint: 2"):
        plots.class_bars({"joint": [1, 2]}, CLASSES)
    with pytest.raises(ValueError, match="one to four methods, found 0"):
        plots.class_bars({}, CLASSES)


def test_image_dots_show_every_value_the_mean_and_the_gain():
    values = {"nearest": [20.0, 22], "bicubic": [21.0, 25], "srnet": [22.5, 24]}
    fig = rendered(plots.image_dots(values, ["baby", "bird"], xlabel="PSNR (dB, Y, border 2)", title="Set5"))
    dots = [line for line in fig.axes[0].lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in dots] == [[20, 22, 21], [21, 25, 23], [22.5, 24, 23.25]]
    assert {"baby", "bird", "mean", "+1.50", "−1.00", "+0.25", "SRNet − Bicubic"} <= set(texts(fig))
    assert fig.axes[0].get_xlabel() == "PSNR (dB, Y, border 2)"
    names = ["baby", "bird", "zebra"]
    fig = rendered(plots.image_dots({"srnet": [20.0, 22, 30]}, names, sets=["Set5", "Set5", "Set14"]))
    assert list(fig.axes[0].lines[0].get_xdata()) == [20, 22, 30, 21, 30]
    assert {"mean, Set5", "mean, Set14"} <= set(texts(fig)) and "mean" not in texts(fig)
    with pytest.raises(ValueError, match="names: 1, sets: 1, srnet: 2"):
        plots.image_dots({"srnet": [1, 2]}, ["baby"])


def test_dots_of_scores_keep_their_order_and_sets():
    rows = [{"set": name, "picture": picture, "method": method, "psnr_db": 20 + 3 * i + 5 * j}
            for i, (name, picture) in enumerate([("Set5", "zebra"), ("Set14", "baby")])
            for j, method in enumerate(["srnet", "bicubic"])]  # fmt: skip
    fig = rendered(plots.scored_dots(rows, ["bicubic", "srnet"], "dB"))
    assert [list(line.get_xdata()) for line in fig.axes[0].lines[:2]] == [[25, 28, 25, 28], [20, 23, 20, 23]]
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == [
        "zebra", "baby", "mean, Set5", "mean, Set14"]  # fmt: skip


def test_reliability_states_the_calibration_error():
    def bins(confidence, accuracy, count):
        return {"confidence": confidence, "accuracy": accuracy, "count": count}

    clean = bins([0.25, 0.5, 0.9], [0.0, 0.6, 0.8], torch.tensor([0, 10, 30]))
    mirrored = bins([0.25, 0.5, 0.9], [0.25, 0.5, 0.7], torch.tensor([10, 10, 20]))
    fig = rendered(plots.reliability({"clean": clean, "mirrored": mirrored}, title="Sure?"))
    assert {"Clean: 10.0 %", "Clean, mirror averaged: 10.0 %"} <= set(texts(fig))
    assert [ax.get_ylabel() for ax in fig.axes] == ["Accuracy (%)", "Images"]
    assert [bar.get_height() for bar in fig.axes[1].patches] == [0, 10, 30, 10, 10, 20]
    for wrong in ([50, 60], [0.5, 60]):
        with pytest.raises(ValueError, match=r"fractions in \[0, 1\]"):
            plots.reliability({"clean": bins([0.5, 0.9], wrong, [1, 1])})


def test_trade_off_labels_each_point_without_overlap():
    labels = [f"λ = {value}" for value in (0, 0.1, 1, 10)]
    psnr_db, accuracy = [25, 27, 28, 28.5], [0.80, 0.80, 0.79, 0.75]
    fig = rendered(plots.trade_off(psnr_db, accuracy, labels, points={"control": (26, 0.77)}))
    ax = fig.axes[0]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [80, 80, 79, 75])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("PSNR (dB)", "Accuracy (%)")
    assert {*labels, "Control"} <= set(texts(fig))
    for one, other in itertools.combinations([text.get_window_extent() for text in ax.texts], 2):
        assert not one.overlaps(other)
    with pytest.raises(ValueError, match="labels: 1"):
        plots.trade_off([1, 2], [1, 2], ["a"])


def test_trade_off_draws_an_interval_at_every_point():
    points = {"control": (26, 0.77)}
    fig = rendered(plots.trade_off([25, 27], [0.80, 0.79], "ab", points=points, error=[0.01, 0.02, 0.03]))
    ends = [np.array(path.vertices)[:, 1] for path in fig.axes[0].collections[0].get_paths()]
    np.testing.assert_allclose(ends, [[79, 81], [77, 81], [74, 80]])
    with pytest.raises(ValueError, match="points: 2, error: 1"):
        plots.trade_off([25, 27], [0.80, 0.79], "ab", error=[0.01])


def test_spectrum_finds_the_frequency_of_a_wave():
    wave = 0.5 + 0.4 * torch.sin(2 * torch.pi * 0.25 * torch.arange(64)).expand(1, 3, 48, 64)
    images = {"srnet": wave, "truth": pictures(2, 48, 64)}
    fig = rendered(plots.spectrum(images, nyquist=0.25, title="Detail"))
    line = fig.axes[0].lines[0]
    assert line.get_xdata()[np.argmax(line.get_ydata())] == pytest.approx(0.25, abs=0.02)
    assert {"SRNet", "Truth", "finest detail of the input", "Detail"} <= set(texts(fig))
    assert fig.axes[0].get_xlabel() == "Spatial frequency (cycles per pixel)"
    with pytest.raises(ValueError, match="at least one method"):
        plots.spectrum({})


def test_say_prints_outside_a_notebook_and_only_in_the_first_process(capsys, monkeypatch):
    plots.say("**92 %**")
    monkeypatch.setenv("RANK", "1")
    plots.say("nothing")
    assert capsys.readouterr().out == "**92 %**\n"


def test_a_notebook_opens_with_what_its_study_concluded_if_it_did(capsys):
    plots.say_found(None)
    plots.say_found({"summary": []})
    plots.say_found({"conclusion": "It **helps**."})
    assert capsys.readouterr().out == "**What the study in results/ found.** It **helps**.\n"


def test_scored_panel_writes_each_pictures_scores_and_leaves_out_what_has_none():
    psnr_db = {"bicubic": 21.0, "srgan": 20.456, "truth": float("nan")}
    images = {name: dict(zip(psnr_db, pictures(3), strict=True)) for name in "ab"}
    scores = [{"picture": name, "method": method, "psnr_db": psnr_db[method], "niqe": 3.14159}
              for name in "ba" for method in psnr_db]  # fmt: skip
    fig = plots.scored_panel(scores, images, ["b"], list(psnr_db), "{psnr_db:.2f} dB, NIQE {niqe:.1f}")
    written = texts(rendered(fig))
    assert {"21.00 dB, NIQE 3.1", "20.46 dB, NIQE 3.1", "NIQE 3.1", "b"} <= set(written) and "a" not in written
    plots.show(fig)
