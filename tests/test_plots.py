"""Figures carry the numbers, names and units handed in; `show` saves whole files and displays their bytes."""
import io
import itertools
import re
import types

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from tools import plots

CLASSES = ["cat", "dog", "frog"]


def texts(fig: Figure) -> list[str]:
    return [text.get_text() for text in fig.findobj(Text) if text.get_text() and text.get_visible()]


def rendered(fig: Figure) -> Figure:
    """Lays the figure out and checks that no text is smaller than 9 points and nothing runs off the page."""
    fig.draw_without_rendering()
    assert all(text.get_fontsize() >= 9 for text in fig.findobj(Text) if text.get_text().strip())
    width, height = fig.get_size_inches()
    words = [text.get_window_extent().transformed(fig.dpi_scale_trans.inverted()) for text in fig.texts]
    for box in [fig.get_tightbbox(), *words]:  # inches; title, small print and headings stand outside the layout
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
    ["clean", "degraded", "cascade", "control", "frozen", "joint", "task_only", "distilled", "capacity"],
    ["nearest", "bicubic", "srnet", "truth"], ["nearest", "bicubic", "srresnet", "srgan", "truth"],
    ["bicubic", "resshuffle", "truth"], ["train", "valid"],
    ["grey", "mse", "fast", "unet", "chroma"], ["mse", "perceptual", "regularised", "fast", "slow", "chroma"],
    ["classify", "restore", "joint", "joint_10", "separate"],
])  # fmt: skip
def test_methods_drawn_together_can_be_told_apart(sight, together):
    rgb = np.array([to_rgb(plots.COLORS[method]) for method in together])
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
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        plots.show(plots.image_grid(images(5)), "grid", tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"grid.png": old}


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
    assert not rendered(plots.curves([{"epoch": [2, 8], "gap": [1, 2]}], ["gap"])).legends  # one line needs none
    with pytest.raises(ValueError, match="no column ssim, ssim_train or ssim_valid; it has: loss_train"):
        plots.curves(history(), ["ssim"])


def test_curves_of_several_runs_are_a_mean_and_a_band():
    fig = rendered(plots.curves([history(), history(shift=0.1), history(3)], ["accuracy"]))
    np.testing.assert_allclose(fig.axes[0].lines[0].get_ydata(), 100 * (0.55 + 0.1 / 3 + np.arange(3) * 0.05))
    band = fig.axes[0].collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(55) and band[:, 1].max() == pytest.approx(75)
    assert "band: lowest to highest of 3 runs" in texts(fig)
    gap = history().assign(loss_valid=[1.0, np.nan, 0.5, 0.4])
    close = {"loss": {"mse": 0.5, "srnet": 0.51}}
    ax = rendered(plots.curves({"joint": history(), "frozen": gap}, ["loss"], close)).axes[0]
    assert list(ax.lines[3].get_xdata()) == [1, 3, 4] and ax.lines[3].get_color() == plots.COLORS["frozen"]
    assert not ax.texts[0].get_window_extent().overlaps(ax.texts[1].get_window_extent())


def test_panel_draws_rows_columns_titles_and_crops():
    truth = images(2, 64, 96)
    columns = {"input": truth[:, :, ::2, ::2], "srnet": truth * 0.9, "truth": truth}
    titles = {"srnet": ["28.80 dB / 0.869", "30.00 dB / 0.900"]}
    fig = rendered(plots.panel(columns, titles, ["boat", "house"], [(8, 16, 12, 24), (0, 0, 64, 96)], "x2", "Set5"))
    assert len(fig.axes) == 2 * 3 * 2
    assert {"input", "SRNet", "Ground truth", "boat", "house", "28.80 dB / 0.869", "x2", "Set5"} <= set(texts(fig))
    assert fig.axes[0].patches[0].get_bbox().bounds == (16, 8, 24, 12)
    assert fig.axes[1].get_xlim() == (16, 40) and fig.axes[1].get_ylim() == (20, 8)
    small, large = fig.axes[0], fig.axes[4]
    assert small.images[0].get_extent() == large.images[0].get_extent() == [0, 96, 64, 0]
    assert small.images[0].get_array().shape[:2] == (32, 48)
    np.testing.assert_allclose(large.images[0].get_array(), truth[0].permute(1, 2, 0), atol=1e-6)
    grey = [torch.full((1, 8, 8), 255, dtype=torch.uint8), torch.zeros(3, 16, 16)]
    assert [ax.images[0].get_array().mean() for ax in rendered(plots.image_grid(grey)).axes] == [1, 0]
    for wrong, said in ((truth * 255, r"lies in \[0, 1\].*divide by 255"),
                        (truth.permute(0, 2, 3, 1), r"\(3, H, W\), found \(64, 96, 3\)")):
        with pytest.raises(ValueError, match=said):
            plots.panel({"truth": wrong})


def test_found_detail_is_where_methods_differ_and_pixels_cover_whole_dots():
    truth, other = torch.zeros(2, 3, 280, 520).unbind()
    other[:, 150:154, 490:496] = 1.0
    fig = plots.zoom_panel([], {"a": {"bicubic": other, "truth": truth}}, ["a"], ["bicubic", "truth"])
    assert [ax.images[0].get_array().sum() for ax in fig.axes[1:]] == [3 * 4 * 6, 0]  # the whole difference
    dots = []
    grid = plots.image_grid(images(5, 8, 8), list("abcde"))
    for left, right in (192 * grid.get_figwidth() * ax.get_position().get_points()[:, 0] for ax in grid.axes):
        dots += [left, (right - left) / 8]
    np.testing.assert_allclose(dots, np.round(dots), rtol=0, atol=1e-6)


def test_measured_images_carry_their_scores_and_leave_out_what_has_none():
    psnr_db, caption = {"bicubic": 21.0, "srgan": 20.456, "truth": float("nan")}, "{psnr_db:.2f} dB, NIQE {niqe:.1f}"
    shown = {name: dict(zip(psnr_db, images(3), strict=True)) for name in "ab"}
    scores = [{"image": name, "method": method, "psnr_db": psnr_db[method], "niqe": 3.14159}
              for name in "ba" for method in psnr_db]  # fmt: skip
    zoomed = plots.zoom_panel(scores, shown, ["b"], list(psnr_db), {"b": (8, 16)}, caption=caption)
    assert {"21.00 dB, NIQE 3.1", "20.46 dB, NIQE 3.1", "NIQE 3.1", "b"} <= set(texts(rendered(zoomed))) - {"a"}
    whole, detail = (ax.images[0].get_array() for ax in zoomed.axes[:2])
    np.testing.assert_allclose(detail, shown["b"]["bicubic"].permute(1, 2, 0)[8:16, 16:24], atol=1e-6)
    np.testing.assert_allclose(whole[7:17, 15], np.tile(to_rgb(plots.MARK), (10, 1)))  # the window's left edge


def test_predictions_mark_right_and_wrong_by_sign_text_and_colour():
    captions = plots.marked(torch.tensor([0, 2]), torch.tensor([0, 1]), CLASSES, [0.91, 0.64])
    assert captions == ["✓ 91 %\ncat", "✗ 64 %\nfrog"] and plots.marked([1], [1], CLASSES) == ["✓ dog"]
    fig = rendered(plots.image_grid(images(2), captions))
    assert [to_hex(ax.spines["top"].get_edgecolor()).upper() for ax in fig.axes] == [plots.GOOD, plots.BAD]


def test_differences_are_in_grey_levels_blue_where_luma_rose():
    rise = torch.linspace(-4, 4, 64).view(1, 1, 8, 8) / 255
    fig = rendered(plots.diverging([rise[0], -rise[0]], ["joint"], "Grey levels", ["a", "b"]))
    red, _, blue = fig.axes[0].images[0].get_array()[-1, -1]
    assert blue > red and fig.axes[2].get_ylabel() == "Grey levels"
    assert fig.axes[2].get_ylim() == pytest.approx((-4, 4), abs=0.1)


PATHS = {
    "adapt first": [{"label": "degraded", "value": 52.38}, {"label": "adaptation", "value": 87.22},
                    {"label": "SR", "value": 88.20, "accent": True}, {"label": "joint", "value": 88.11}],
    "SR first": [{"label": "degraded", "value": 52.38}, {"label": "SR", "value": 73.50, "accent": True}],
}  # fmt: skip
CEILING = {"label": "clean", "value": 91.5}
ARMS = [{"label": "control", "value": 87.22, "low": 86.9, "high": 87.5, "seeds": [87.1, 87.3]},
        {"label": "frozen", "value": 88.20, "low": 87.9, "high": 88.5, "seeds": [88.0, 88.4], "accent": True}]


def test_ladder_draws_each_step_from_the_level_before_beside_arms_or_images():
    fig = plots.ladder(PATHS, CEILING, ARMS, ("all", "upper end"), "Accuracy (%)", "Title", "note")
    way, arms = rendered(fig).axes
    bars = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in way.patches]
    np.testing.assert_allclose(bars, [(52.38, 87.22), (87.22, 88.20), (88.20, 88.11), (52.38, 73.50)])
    assert [to_hex(bar.get_facecolor()).upper() == plots.ACCENT for bar in way.patches] == [False, True, False, True]
    names = ["adapt first", "degraded", "adaptation", "SR", "joint", "SR first", "degraded", "SR"]
    assert [label.get_text() for label in way.get_yticklabels()] == names
    shown = {"+34.8", "+0.98", "−0.09", "+21.1", "clean 91.5", "all", "upper end", "Title", "note", "87.22", "88.20"}
    assert shown <= set(texts(fig))
    spans = [list(line.get_xdata()) for line in arms.lines if len(line.get_xdata()) == 2]
    assert [86.9, 87.5] in spans and [87.9, 88.5] in spans and [88.0, 88.4] in spans
    strip = {"label": "helps", "images": images(2), "captions": ["✗ dog", "✓ cat"]}
    words = ("Accuracy (%)", "Hero", "note", "DejaVu Serif")
    fig = rendered(plots.hero([strip, strip], ["control", "frozen"], PATHS, CEILING, *words))
    assert {text.get_family()[0] for text in fig.findobj(Text) if text.get_text()} == {"DejaVu Serif"}
    *tiles, way = fig.axes
    assert len(tiles) == 4 and {"helps", "control", "✗ dog", "✓ cat", "+0.98", "Hero", "note"} <= set(texts(fig))
    assert tiles[0].title.get_color() == plots.BAD and tiles[2].title.get_color() == plots.GOOD
    assert max(tile.get_tightbbox().x1 for tile in tiles) < way.get_tightbbox().x0


def test_confusion_shows_shares_of_the_row_on_one_scale():
    matrix = torch.tensor([[8, 2, 0], [0, 10, 0], [1, 1, 2]])
    fig = rendered(plots.confusion({"Clean": matrix, "Degraded": matrix.T}, CLASSES, title="Errors"))
    assert {"80", "20", "100", "25", "50", "cat", "Clean"} <= set(texts(fig)) and "0" not in texts(fig)
    clean = fig.axes[0].images[0].get_array()
    assert clean.mask.diagonal().all() and clean[2, 0] == 25
    assert all(ax.images[0].get_clim() == pytest.approx((0, 25)) for ax in fig.axes)


def test_heatmap_shows_numbers_names_the_highest_and_the_difference():
    table = pd.DataFrame([[0.5, 0.7], [0.6, 0.4]], index=["control", "joint"], columns=["noise", "mask"])
    fig = rendered(plots.heatmap(table, [("joint", "control")]))
    bold = {text.get_text() for ax in fig.axes for text in ax.texts if text.get_weight() == "bold"}
    low, high = fig.axes[1].images[0].get_clim()
    assert bold == {"60.0", "70.0", "+10.0", "−30.0"} and low == -high < -30
    assert {"50.0", "40.0", "Control", "Joint − control", "noise", "mask"} <= set(texts(fig))


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
