"""Figures carry the numbers, names and units handed in; `show` saves whole files and displays their bytes."""
import io
import itertools
import os
import re
import subprocess
import sys
import types

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.legend import Legend
from matplotlib.text import Text
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab
from torch import nn

from tools import plots

from .conftest import ROOT

CLASSES = ["cat", "dog", "frog"]


def texts(fig: Figure) -> list[str]:
    return [text.get_text() for text in fig.findobj(Text) if text.get_text() and text.get_visible()]


def rendered(fig: Figure) -> Figure:
    """Lays the figure out and checks that no text is smaller than 9 points and nothing runs off the page."""
    fig.draw_without_rendering()
    assert all(text.get_fontsize() >= 9 for text in fig.findobj(Text) if text.get_text().strip())
    width, height = fig.get_size_inches()
    words = [text.get_window_extent().transformed(fig.dpi_scale_trans.inverted()) for text in fig.texts]
    for box in [fig.get_tightbbox(), *words]:  # inches; title and small print may stand outside the layout
        assert box.x0 > -0.02 and box.y0 > -0.02 and box.x1 < width + 0.02 and box.y1 < height + 0.02, box
    return fig


def history(num_epochs: int = 4, shift: float = 0.0) -> pd.DataFrame:
    epochs = np.arange(1, num_epochs + 1)
    return pd.DataFrame({"epoch": epochs, "loss_train": 1 / epochs, "loss_valid": 1.1 / epochs + shift,
                         "accuracy_valid": 0.5 + 0.05 * epochs + shift, "psnr_db_valid": 26 + 0.1 * epochs})


def images(num: int = 3, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.rand((num, 3, height, width), generator=torch.Generator().manual_seed(0))


# Machado, Oliveira and Fernandes (2009), full severity, on linear RGB.
SIGHT = {
    "usual": np.eye(3),
    "deuteranopia": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
}


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("together", [
    ["clean", "degraded", "cascade", "control", "frozen", "joint", "task_only", "capacity"],
    ["control", "control_distilled", "capacity", "frozen", "frozen_distilled", "scratch", "joint"], plots.OTHERS[:4],
    ["nearest", "bicubic", "srnet", "truth"], ["nearest", "bicubic", "srresnet", "srgan", "truth"],
    ["bicubic", "resshuffle", "truth"], ["train", "valid"],
    ["grey", "mse", "fast", "unet", "chroma"], ["mse", "perceptual", "regularised", "fast", "slow", "chroma"],
    ["classify", "restore", "joint", "joint_10", "separate"],
])  # fmt: skip
def test_methods_drawn_together_can_be_told_apart(sight, together):
    rgb = np.array([to_rgb(plots.COLORS.get(method, method)) for method in together])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = (linear @ np.array(SIGHT[sight]).T).clip(0, 1)
    seen = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    for (a, one), (b, other) in itertools.combinations(zip(together, rgb2lab(seen[None])[0], strict=True), 2):
        assert deltaE_ciede2000(one, other) > (15 if sight == "usual" else 6), (a, b)


@pytest.fixture
def notebook(monkeypatch):
    """A kernel that keeps what is displayed."""
    shown = []
    monkeypatch.setattr("IPython.get_ipython", lambda: types.SimpleNamespace(kernel=object()))
    monkeypatch.setattr("IPython.display.display", shown.append)
    return shown


@pytest.mark.parametrize(("photo", "suffix", "kind"), [(False, "png", "PNG"), (True, "jpg", "JPEG")])
def test_show_saves_and_displays_the_same_bytes(tmp_path, notebook, photo, suffix, kind):
    fig = plots.image_grid(images())
    plots.show(fig, "grid", tmp_path / "run", photo=photo, alt="three images")
    content = (tmp_path / "run" / f"grid.{suffix}").read_bytes()
    assert [path.name for path in (tmp_path / "run").iterdir()] == [f"grid.{suffix}"]
    assert [image.data for image in notebook] == [content]
    size = {"width": round(96 * fig.get_figwidth()), "alt": "three images"}
    assert notebook[0]._repr_mimebundle_()[1][f"image/{kind.lower()}"] == size
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == kind and image.width == round(192 * fig.get_figwidth())
    plots.show(fig)
    plots.show(plots.curves(history(), ["loss"]), "curves", tmp_path, quiet=True)
    with Image.open(tmp_path / "curves.png") as image:
        assert image.mode == "P" and len(notebook) == 2  # lines and text are kept small, and quiet is silent


def test_only_the_first_process_shows_and_a_file_is_whole(tmp_path, notebook, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    plots.show(plots.image_grid(images()), "grid", tmp_path)
    plots.display_markdown("nothing")
    assert not notebook and not list(tmp_path.iterdir()) and not capsys.readouterr().out
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr("IPython.get_ipython", lambda: None)  # a terminal: saved and printed only
    plots.show(plots.image_grid(images()), "grid", tmp_path)
    plots.display_markdown("**92 %**")
    assert not notebook and (tmp_path / "grid.png").exists() and capsys.readouterr().out == "**92 %**\n"
    old = (tmp_path / "grid.png").read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    plots.show(plots.image_grid(images(5)), "grid", tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"grid.png": old}
    assert capsys.readouterr().out == f"The figure {tmp_path / 'grid.png'} is not saved: No space left on device.\n"


def test_a_figure_that_cannot_be_saved_is_displayed(tmp_path, notebook, capsys):
    (tmp_path / "results").write_text("a file where the folder should be")  # root may write in read-only folders
    plots.show(plots.image_grid(images()), "grid", tmp_path / "results")
    assert len(notebook) == 1 and "results/grid.png is not saved: " in capsys.readouterr().out


def test_the_matplotlibrc_of_a_user_changes_nothing(tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.family: serif\nlines.linestyle: --\n")
    code = "import sys; from tools import plots; {}; sys.stdout.buffer.write(content)"
    draw = "content = plots._content(plots.curves({'epoch': [1, 2], 'loss': [2, 1]}, ['loss']), False)"
    drawn = subprocess.run([sys.executable, "-c", code.format(draw)], cwd=ROOT, capture_output=True,
                           env=os.environ | {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc")})  # fmt: skip
    exec(draw, known := {"plots": plots})
    assert drawn.stdout == known["content"], drawn.stderr


def test_what_a_student_adds_has_a_name_and_a_color_of_its_own():
    assert plots.name_of("my_arm") == "My arm" and plots.name_of("×2, JPEG 50") == "×2, JPEG 50"
    known = dict(plots.COLORS)
    mine = [plots.color_of(name) for name in ("my_arm", "yours", "my_arm")]
    assert mine[0] == mine[2] != mine[1] and {name: plots.color_of(name) for name in known} == known
    arms = {"my_arm": {"points": 0.5, "low": 0.1, "high": 0.9, "by_seed": [0.4, 0.6]}}
    cost = pd.DataFrame({"arm": ["my_arm", "my_arm"], "views": [1, 2], "gflop": [1.0, 2.0], "accuracy": [0.8, 0.9]})
    table = pd.DataFrame([[0.5], [0.6]], index=["control", "my_arm"], columns=["noise"])
    figures = [plots.curves({"my_arm": history(), "yours": history()}, ["loss"]), plots.panel({"my_arm": images()}),
               plots.differences(arms, "points"), plots.cost_curve(cost), plots.heatmap(table, [("my_arm", "control")])]
    for fig in figures:
        assert "My arm" in "".join(texts(rendered(fig)))


def test_curves_show_both_parts_baselines_units_and_the_chosen_epoch():
    baselines = {"psnr_db": {"bicubic": 26.05}, "accuracy": {"degraded": 0.4726, "clean": 0.848}}
    fig = rendered(plots.curves(history(), ["loss", "psnr_db", "accuracy"], baselines, best=3, title="SRNet"))
    loss, _, accuracy = fig.axes
    assert [ax.get_ylabel() for ax in fig.axes] == ["Loss", "PSNR (dB)", "Accuracy (%)"]
    shown = {"training", "validation", "chosen epoch (3)", "Bicubic\n26.05", "Degraded\n47.26", "SRNet", "Epoch"}
    assert shown <= set(texts(fig))
    assert [line.get_color() for line in loss.lines[:2]] == [plots.COLORS["train"], plots.COLORS["valid"]]
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), [55, 60, 65, 70])
    rings = [np.ravel(line.get_data()) for line in accuracy.lines if line.get_markersize() == 7]
    np.testing.assert_allclose(rings, [[3, 65]])
    dashed = [line.get_ydata()[0] for line in accuracy.lines if line.get_linestyle() == "--"]
    assert sorted(dashed) == pytest.approx([47.26, 84.8])
    assert not rendered(plots.curves([{"epoch": [2, 8], "gap": [1, 2]}], ["gap"])).findobj(Legend)
    with pytest.raises(ValueError, match="no column ssim, ssim_train or ssim_valid; it has: loss_train"):
        plots.curves(history(), ["ssim"])


def test_curves_of_several_runs_are_a_mean_and_a_band():
    fig = rendered(plots.curves([history(), history(shift=0.1), history(3)], ["accuracy"]))
    np.testing.assert_allclose(fig.axes[0].lines[0].get_ydata(), 100 * (0.55 + 0.1 / 3 + np.arange(3) * 0.05))
    band = fig.axes[0].collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(55) and band[:, 1].max() == pytest.approx(75)
    assert "band: lowest to highest of 3 runs" in texts(fig)
    gap = history().assign(loss_valid=[1.0, np.nan, 0.5, 0.4])
    fig = rendered(plots.curves({"joint": history(), "frozen": gap}, ["loss"], best={"frozen": 3}))
    ax = fig.axes[0]
    assert list(ax.lines[3].get_xdata()) == [1, 3, 4] and ax.lines[3].get_color() == plots.COLORS["frozen"]
    assert list(ax.lines[4].get_data()) == [[3], [0.5]] and len(ax.lines) == 5


def test_more_than_four_runs_have_small_axes_with_the_others_in_grey():
    runs = {f"num_blocks {n}": history(shift=n / 10) for n in range(9)} | {"bare": history()[["epoch", "loss_train"]]}
    runs["num_blocks 3"]["loss_train"] *= 5
    fig = rendered(plots.curves(runs, ["loss", "psnr_db"], {"psnr_db": {"bicubic": 26.05}}, title="A sweep"))
    assert len(fig.axes) == 20 and len({ax.get_ylim() for ax in fig.axes[:10]}) == 1
    for n, ax in enumerate(fig.axes[:10]):
        (own,) = {line.get_color() for line in ax.lines} - {plots.LIGHT}
        assert own == plots.color_of([*runs][n]) and ax.get_title(loc="left").lower() == [*runs][n]
        assert sum(line.get_color() == plots.LIGHT for line in ax.lines) == 9
    assert texts(fig).count("Bicubic\n26.05") == 2  # at the end of each row
    far = {"accuracy": {"chance": 0.1}}
    fig = rendered(plots.curves(runs, ["loss", "accuracy"], far, small=False, limits={"accuracy": (50, 90)}))
    assert len(fig.axes) == 2 and fig.axes[1].get_ylim() == (50, 90) != fig.axes[0].get_ylim()


def pictures(fig: Figure) -> list[np.ndarray]:
    return [image.get_array() for image in fig.findobj(AxesImage)]


def test_panel_draws_rows_columns_titles_and_sizes():
    truth = images(2, 64, 96)
    columns = {"input": truth[:, :, ::2, ::2], "srnet": truth * 0.9, "truth": truth}
    titles = {"srnet": ["28.80 dB / 0.869", "30.00 dB / 0.900"]}
    fig = rendered(plots.panel(columns, titles, ["boat", "house"], "x2", "Set5"))
    shown = {"Input", "SRNet", "Ground truth", "boat", "house", "28.80 dB / 0.869", "x2", "Set5"}
    assert shown <= set(texts(fig)) and [image.shape[:2] for image in pictures(fig)] == [(32, 48), *[(64, 96)] * 2] * 2
    np.testing.assert_allclose(pictures(fig)[2], truth[0].permute(1, 2, 0), atol=1e-6)
    sides = np.array([image.get_window_extent().size for image in fig.findobj(AxesImage)])
    np.testing.assert_allclose(sides, sides[:1].repeat(6, 0))  # the small ones as large
    grey = [torch.full((1, 8, 8), 255, dtype=torch.uint8), torch.zeros(3, 16, 16)]
    assert [image.mean() for image in pictures(plots.image_grid(grey))] == [1, 0]
    for wrong, said in ((truth * 255, r"lies in \[0, 1\].*divide by 255"),
                        (truth.permute(0, 2, 3, 1), r"\(3, H, W\), found \(64, 96, 3\)")):
        with pytest.raises(ValueError, match=said):
            plots.panel({"truth": wrong})


def test_pixels_are_squares_of_whole_dots():
    rows = {"row_names": ["bicubic ×2, no antialias", "×4"]}
    for fig in (plots.image_grid(images(5, 8, 8), list("abcde")), plots.image_grid(images(6), (), 3, "title", **rows)):
        assert {"bicubic ×2,\nno antialias"} <= set(texts(rendered(fig))) or "a" in texts(fig)
        for image in fig.findobj(AxesImage):
            box, (height, width, _) = image.get_window_extent().extents * 192 / fig.dpi, image.get_array().shape
            dots = np.array([*box, (box[2] - box[0]) / width, (box[3] - box[1]) / height])
            np.testing.assert_allclose(dots, np.round(dots), rtol=0, atol=1e-6)


def test_found_detail_is_where_methods_differ():
    truth, other = torch.zeros(2, 3, 280, 520).unbind()
    other[:, 150:154, 490:496] = 1.0
    fig = plots.zoom_panel([], {"a": {"bicubic": other, "truth": truth}}, ["a"], ["bicubic", "truth"])
    assert [image.sum() for image in pictures(fig)[1:]] == [3 * 4 * 6, 0]  # the whole difference


def test_measured_images_carry_their_scores_and_leave_out_what_has_none():
    psnr_db, caption = {"bicubic": 21.0, "srgan": 20.456, "truth": float("nan")}, "{psnr_db:.2f} dB, NIQE {niqe:.1f}"
    shown = {name: dict(zip(psnr_db, images(3), strict=True)) for name in "ab"}
    scores = [{"image": name, "method": method, "psnr_db": psnr_db[method], "niqe": 3.14159}
              for name in "ba" for method in psnr_db]  # fmt: skip
    zoomed = plots.zoom_panel(scores, shown, ["b"], list(psnr_db), {"b": (8, 16)}, caption=caption)
    assert {"21.00 dB, NIQE 3.1", "20.46 dB, NIQE 3.1", "NIQE 3.1", "b"} <= set(texts(rendered(zoomed))) - {"a"}
    whole, detail = pictures(zoomed)[:2]
    np.testing.assert_allclose(detail, shown["b"]["bicubic"].permute(1, 2, 0)[8:16, 16:24], atol=1e-6)
    np.testing.assert_allclose(whole[7:17, 15], np.tile(to_rgb(plots.MARK), (10, 1)))  # the window's left edge


def test_predictions_mark_right_and_wrong_by_sign_text_and_color():
    captions = plots.marked(torch.tensor([0, 2]), torch.tensor([0, 1]), CLASSES, [0.91, 0.64])
    assert captions == ["✓ 91 %\ncat", "✗ 64 %\nfrog"] and plots.marked([1], [1], CLASSES) == ["✓ dog"]
    fig = rendered(plots.image_grid(images(2), captions))
    frames = [to_hex(frame.get_edgecolor()).upper() for frame in fig.axes[0].patches]
    assert frames == [plots.GOOD, plots.BAD]
    assert {text.get_color() for text in fig.axes[0].texts if text.get_text()} == {plots.GOOD, plots.BAD}


def test_differences_are_in_grey_levels_blue_where_luma_rose():
    rise = torch.linspace(-4, 4, 64).view(1, 1, 8, 8) / 255
    fig = rendered(plots.diverging([rise[0], -rise[0]], ["joint"], "Grey levels", ["a", "b"]))
    red, _, blue = pictures(fig)[0][-1, -1]
    assert blue > red and fig.axes[1].get_ylabel() == "Grey levels"
    assert fig.axes[1].get_ylim() == pytest.approx((-4, 4), abs=0.1)


PATHS = {
    "adapt first": [{"label": "degraded", "value": 52.38}, {"label": "adaptation", "value": 87.22},
                    {"label": "SR", "value": 88.20, "accent": True}, {"label": "joint", "value": 88.11}],
    "SR first": [{"label": "degraded", "value": 52.38}, {"label": "SR", "value": 73.50, "accent": True}],
}  # fmt: skip
CEILING = {"label": "clean", "value": 91.5}
GAINS = {"capacity": {"points": 0.05, "low": -0.24, "high": 0.34, "by_seed": [0.09, 0.01]},
         "control → frozen": {"points": 0.97, "low": 0.64, "high": 1.31, "by_seed": [0.87, 1.06]}}  # fmt: skip


def spans(ax) -> list[list[float]]:
    return [list(line.get_xdata()) for line in ax.lines]


def test_waterfall_draws_each_step_from_the_level_before():
    way = rendered(plots.waterfall(PATHS, CEILING, "Accuracy (%)", "Title", "note")).axes[0]
    bars = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in way.patches]
    np.testing.assert_allclose(bars, [(52.38, 87.22), (87.22, 88.20), (88.20, 88.11), (52.38, 73.50)])
    assert [to_hex(bar.get_facecolor()).upper() == plots.ACCENT for bar in way.patches] == [False, True, False, True]
    names = ["adapt first", "degraded", "adaptation", "SR", "joint", "SR first", "degraded", "SR"]
    assert [label.get_text() for label in way.get_yticklabels()] == names
    numbers = {text.get_text(): text.get_weight() for text in way.texts}
    assert {"+34.8", "+0.98", "−0.09", "+21.1", "clean 91.5", "73.5"} <= set(numbers) and numbers["73.5"] == "normal"
    assert rendered(plots.waterfall({}, CEILING, "Accuracy (%)"))  # a run of few arms has no path


def test_differences_are_drawn_with_intervals_seeds_and_zero():
    for rows in (GAINS, pd.DataFrame(GAINS).T):
        fig = rendered(plots.differences(rows, "Points", "Title", "note", zero="control"))
        ax = fig.axes[0]
        assert [span for span in spans(ax) if span[-1] in (0, 0.34, 1.31)] == [[0, 0], [-0.24, 0.34], [0.64, 1.31]]
        assert [0.09, 0.01] in spans(ax) and [0.87, 1.06] in spans(ax)
        assert ax.lines[-1].get_color() == plots.COLORS["frozen"] and ax.get_xlabel() == "Points"
        assert {"Capacity", "Control → Frozen", "+0.05", "+0.97", "control", "Title", "note"} <= set(texts(fig))


def test_a_gap_is_drawn_against_a_log_axis_with_seeds_and_intervals():
    gaps = {"16": [0.5, 0.7], 2: {"points": 1.4, "low": 1.0, "high": 1.8, "by_seed": [1.3, 1.5]}}
    fig = rendered(plots.gap_curve(gaps, "Epochs", "Points"))
    ax = fig.axes[0]
    assert ax.get_xscale() == "log" and list(ax.get_xticks()) == [2, 16] and not list(ax.get_xticks(minor=True))
    drawn = [list(line.get_ydata()) for line in ax.lines]
    assert drawn == [[0, 0], [1.4, 0.6], [1.0, 1.8], [1.3, 1.5], [0.5, 0.7]] and "+0.60" in texts(fig)


def test_cost_is_a_line_for_each_arm_over_its_views():
    scores = pd.DataFrame({"arm": ["control", "control", "frozen"], "views": [1, 10, 1], "gflop": [0.146, 1.46, 1.51],
                           "accuracy": [0.8736, 0.883, 0.8823], "low": [0.87, 0.88, 0.88], "high": [0.88, 0.89, 0.89]})
    fig = rendered(plots.cost_curve(scores))
    ax = fig.axes[0]
    np.testing.assert_allclose(ax.lines[0].get_data(), [[0.146, 1.46], [87.36, 88.3]])
    assert ax.get_xscale() == "log" and [line.get_color() for line in ax.lines] == ["#6B7075", plots.ACCENT]
    np.testing.assert_allclose(ax.collections[1].get_segments(), [[[1.51, 88], [1.51, 89]]])
    assert {"1 view", "10 views", "Control", "Frozen", "0.2", "1"} <= set(texts(fig))


def test_hero_shows_images_beside_the_waterfall_in_one_font():
    strip = {"label": "helps", "images": images(2), "captions": ["✗ dog", "✓ cat"]}
    words = ("Accuracy (%)", "Hero", "note", "DejaVu Serif")
    fig = rendered(plots.hero([strip, strip], ["control", "frozen"], PATHS, CEILING, *words))
    assert {text.get_family()[0] for text in fig.findobj(Text) if text.get_text()} == {"DejaVu Serif"}
    (tiles, way), shown = fig.axes, {"helps", "control", "✗ dog", "✓ cat", "+0.98", "Hero", "note"}
    assert len(pictures(fig)) == 4 and shown <= set(texts(fig))
    right = max(text.get_window_extent().x1 for text in tiles.texts if text.get_text())
    assert max(right, *(image.get_window_extent().x1 for image in tiles.images)) < way.get_tightbbox().x0
    bold = [text for text in fig.findobj(Text) if text.get_weight() == "bold"]
    assert bold and not any(text.get_path_effects() for text in bold)  # the font has a bold face
    fig = plots.hero([strip], ["a", "b"], PATHS, CEILING, "%", "Hero", "", "DejaVu Sans Display")  # has none
    assert all(text.get_path_effects() for text in fig.findobj(Text) if text.get_weight() == "bold")


def contrast(fill, ink) -> float:
    """WCAG 2: 4.5 is what text should have."""
    linear = [[c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(one)] for one in (fill, ink)]
    one, other = sorted(0.05 + np.dot(color, (0.2126, 0.7152, 0.0722)) for color in linear)
    return other / one


def readable(fig: Figure) -> bool:
    """Has every text in a cell enough contrast?"""
    return all(contrast(ax.images[0].to_rgba(ax.images[0].get_array())[round(y), round(x), :3], text.get_color()) > 7
               for ax in fig.axes for text in ax.texts for x, y in [text.get_position()])  # fmt: skip


def test_confusion_shows_shares_of_the_row_on_one_scale():
    matrix = torch.tensor([[8, 2, 0], [1, 198, 1], [1, 1, 2]])
    fig = rendered(plots.confusion({"Clean": matrix, "Degraded": matrix.T}, CLASSES, title="Errors"))
    assert {"80", "20", "99", "25", "50", "cat", "Clean"} <= set(texts(fig)) and "0" not in texts(fig)
    clean = fig.axes[0].images[0].get_array()
    assert clean.mask.diagonal().all() and clean[2, 0] == 25 and readable(fig)
    assert len({ax.images[0].get_clim() for ax in fig.axes}) == 1


def test_heatmap_shows_numbers_names_the_highest_and_the_difference():
    table = pd.DataFrame([[0.5, 0.7], [0.6, 0.4]], index=["control", "joint"], columns=["noise", "bicubic ×2"])
    fig = rendered(plots.heatmap(table, [("joint", "control")]))
    bold = {text.get_text() for ax in fig.axes for text in ax.texts if text.get_weight() == "bold"}
    low, high = fig.axes[1].images[0].get_clim()
    assert bold == {"60.0", "70.0", "+10.0", "−30.0"} and low == -high < -30 and readable(fig)
    assert {"50.0", "40.0", "Control", "Joint − control", "Noise", "bicubic ×2"} <= set(texts(fig))
    assert {"Noise", "Joint"} <= set(texts(rendered(plots.heatmap(table))))  # no pair to compare


def test_dots_of_scores_keep_their_order_sets_means_and_gains():
    values = [("Set5", "zebra", 20.0, 23), ("Set5", "bird", 26, 25), ("Set14", "baby", 30, 31)]
    scores = [{"set": name, "image": image, "method": method, "psnr_db": value} for name, image, *pair in values
              for method, value in zip(["bicubic", "srnet"], pair, strict=True)]  # fmt: skip
    fig = rendered(plots.scored_dots(scores, ["bicubic", "srnet"], "PSNR (dB, Y)"))
    ax = fig.axes[0]
    assert [list(line.get_xdata()) for line in ax.lines[:2]] == [[20, 26, 30, 23, 30], [23, 25, 31, 24, 31]]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["zebra", "bird", "baby", "mean, Set5", "mean, Set14"]
    assert {"+3.00", "−1.00", "+1.00", "SRNet − Bicubic", "PSNR (dB, Y)"} <= set(texts(fig))


def test_a_table_has_its_formats_and_text_to_the_left():
    frame = pd.DataFrame({"what": ["a", "b"], "points": [1.234, None], "ssim": [0.9, 0.8]}, index=["x", "y"])
    html = plots.table(frame, ssim="{:.4f}").to_html(table_uuid="t")
    assert re.findall(r'<td id="T_t_row\d_col\d" .*?>(.*?)</td>', html) == ["a", "1.23", "0.9000", "b", "–", "0.8000"]
    assert re.findall(r"#T_t (\S+) {\s+text-align: left", html) == ["th.row_heading", ".col0"] and ">SSIM</th>" in html


def test_layers_lists_what_ran_once_and_leaves_the_mode_alone():
    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Dropout(0.5))
    net = nn.ModuleDict({"body": body, "twice": nn.Conv2d(8, 8, 1, bias=False), "unused": nn.Linear(2, 2)})
    net.forward = lambda img: (net.twice(net.twice(net.body(img))), img)
    net.body[1].eval()
    rows = plots.layers(net.train(), (1, 3, 4, 6)).data.T.to_dict()
    conv, pointwise = 4 * 6 * 8 * 27 / 1e6, 2 * 4 * 6 * 64 / 1e6  # multiply-adds by hand
    assert list(rows) == ["body", "twice", "total"] and net.training and net.body[1].training
    assert [row["output"] for row in rows.values()] == ["8 × 4 × 6", "8 × 4 × 6", "8 × 4 × 6, 3 × 4 × 6"]
    assert [row["parameters"] for row in rows.values()] == [224, 64, 224 + 64 + 6]
    np.testing.assert_allclose([row["mult-adds (M)"] for row in rows.values()], [conv, pointwise, conv + pointwise])
    assert list(plots.layers(net, (1, 3, 4, 4), depth=2).data.index) == ["body.0", "body.1", "twice", "total"]
    net.body.eval()
    with pytest.raises(RuntimeError):
        plots.layers(net, (1, 5, 4, 4))
    assert net.training and not net.body[1].training and not net.body._forward_hooks
