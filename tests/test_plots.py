"""Figures carry the numbers, names and units handed in; `show` saves whole files and displays their bytes."""
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
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from PIL import Image
from torch import nn

from tools import plots

from .conftest import ROOT, refuses


def texts(fig: Figure) -> list[Text]:
    return [text for text in fig.findobj(Text) if text.get_text().strip() and text.get_visible()]


def pictures(fig: Figure) -> list[np.ndarray]:
    return [image.get_array() for image in fig.findobj(AxesImage)]


def drawn(fig: Figure) -> list[list[float]]:
    """What a reader sees of numbers: x and y of each line, the ends of each bar, the colored cells of each table."""
    bars = [(bar.get_x(), bar.get_x() + bar.get_width()) for ax in fig.axes for bar in ax.patches]
    spans = [path.vertices[:, 1] for ax in fig.axes for part in ax.collections for path in part.get_paths()]
    lines = [values for ax in fig.axes for line in ax.lines for values in line.get_data()]
    cells = [image.filled(-1).ravel() for image in pictures(fig) if image.ndim == 2]
    return [list(map(float, values)) for values in [*bars, *spans, *lines, *cells]]


def rendered(fig: Figure) -> Figure:
    """Lays the figure out: no text is smaller than 9 points or covers another, and nothing runs off the page."""
    fig.draw_without_rendering()
    assert all(text.get_fontsize() >= 9 for text in texts(fig))
    width, height = fig.get_size_inches()
    words = [text for part in (fig, *fig.axes) for text in part.texts if text.get_text()]
    for one, other in itertools.combinations(words, 2):
        assert not one.get_window_extent().padded(-2).overlaps(other.get_window_extent()), (one, other)
    small_print = [text.get_window_extent().transformed(fig.dpi_scale_trans.inverted()) for text in fig.texts]
    for box in [fig.get_tightbbox(), *small_print]:  # inches; title and small print may stand outside the layout
        assert box.x0 > -0.02 and box.y0 > -0.02 and box.x1 < width + 0.02 and box.y1 < height + 0.02, box
    return fig


def history(num_epochs: int = 4, shift: float = 0.0) -> pd.DataFrame:
    epochs = np.arange(1, num_epochs + 1)
    return pd.DataFrame({"epoch": epochs, "loss_train": 1 / epochs, "loss_valid": 1.1 / epochs + shift,
                         "accuracy_valid": 0.5 + 0.05 * epochs + shift, "psnr_db_valid": 26 + 0.1 * epochs})


def images(num: int = 3, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.rand((num, 3, height, width), generator=torch.Generator().manual_seed(0))


CLASSES = ["cat", "dog", "frog"]
BASELINES = {"psnr_db": {"bicubic": 26.05}, "accuracy": {"degraded": 0.4726, "clean": 0.848}}
SWEEP = {f"num_blocks {n}": history(shift=n / 10) for n in range(7)}
PATHS = {
    "adapt first": [{"label": "degraded", "value": 52.38}, {"label": "adaptation", "value": 87.22},
                    {"label": "SR", "value": 88.20, "accent": True}, {"label": "joint", "value": 88.11}],
    "SR first": [{"label": "degraded", "value": 52.38}, {"label": "SR", "value": 73.50, "accent": True}],
}  # fmt: skip
CEILING = {"label": "clean", "value": 91.5}
STRIP = {"label": "helps", "images": images(2), "captions": ["✗ dog", "✓ cat"]}
GAINS = {"capacity": {"points": 0.05, "low": -0.24, "high": 0.34, "by_seed": [0.09, 0.01]},
         "frozen": {"points": 0.97, "low": 0.64, "high": 1.31, "by_seed": [0.87, 1.06]}}  # fmt: skip
COST = pd.DataFrame({"arm": ["control", "control", "frozen"], "views": [1, 10, 1], "gflop": [0.146, 1.46, 1.51],
                     "accuracy": [0.8736, 0.883, 0.8823]})
MATRIX = torch.tensor([[8, 2, 0], [1, 198, 1], [1, 1, 2]])
UNSEEN = pd.DataFrame([[0.5, 0.7], [0.6, 0.4]], index=["control", "joint"], columns=["noise", "bicubic ×2"])
SCORES = [{"set": name, "image": image, "method": method, "psnr_db": value, "niqe": 3.14159}
          for name, image, *pair in [("Set5", "zebra", 20.0, 23), ("Set5", "bird", 26, 25), ("Set14", "baby", 30, 31)]
          for method, value in zip(["bicubic", "srnet"], pair, strict=True)]  # fmt: skip
TRUTH = images(2, 64, 96)
ZOOMED = {name: dict(zip(("bicubic", "srnet", "truth"), images(3), strict=True)) for name in ("bird", "zebra")}

# name: (the figure, texts that it shows, numbers that it draws)
FIGURES = {
    "curves": (lambda: plots.curves(history(), ["loss", "psnr_db", "accuracy"], BASELINES, 3, "SRNet", "note"),
               ["Loss", "PSNR (dB)", "Accuracy (%)", "training", "validation", "chosen epoch (3)", "Bicubic\n26.05",
                "Degraded\n47.26", "SRNet", "note", "Epoch"], [[55, 60, 65, 70], [47.26] * 2, [84.8] * 2, [65]]),
    "seeds": (lambda: plots.curves({"joint": [history(), history(shift=0.1), history(3)], "frozen": [history()]},
                                   ["accuracy"]), ["Joint", "Frozen", "band: lowest to highest of 3 runs"],
              [[100 * (0.55 + 0.1 / 3 + step * 0.05) for step in range(3)]]),
    "a gap": (lambda: plots.curves(history().assign(loss_valid=[1.0, np.nan, 0.5, 0.4]), ["loss"], small=False,
                                   limits={"loss": (0, 2)}), ["validation"], [[1, 3, 4], [1.0, 0.5, 0.4]]),
    "sweep": (lambda: plots.curves(SWEEP, ["loss", "psnr_db"], BASELINES, title="A sweep"),
              ["num_blocks 0", "num_blocks 6", "the other runs"], [[1.1 / n + 0.6 for n in range(1, 5)]]),
    "panel": (lambda: plots.panel({"input": TRUTH[:, :, ::2, ::2], "srnet": TRUTH * 0.9, "truth": TRUTH},
                                  {"srnet": ["28.80 dB / 0.869", "30.00 dB / 0.900"]}, ["boat", "house"], "x2", "Set5"),
              ["Input", "SRNet", "Ground truth", "boat", "house", "28.80 dB / 0.869", "x2", "Set5"], []),
    "grid": (lambda: plots.image_grid(images(6, 8, 8), list("abcdef"), 3, "title", row_names=["bicubic ×2, raw", "×4"]),
             ["a", "f", "title", "bicubic ×2,\nraw"], []),
    "zoom": (lambda: plots.zoom_panel([*SCORES, {"image": "bird", "method": "truth", "psnr_db": np.nan, "niqe": 4}],
                                      ZOOMED, ["bird"], ["bicubic", "srnet", "truth"], {"bird": (8, 16)},
                                      caption="{psnr_db:.2f} dB, NIQE {niqe:.1f}"),
             ["Whole image", "26.00 dB, NIQE 3.1", "25.00 dB, NIQE 3.1", "NIQE 4.0", "bird"], []),
    "diverging": (lambda: plots.diverging(torch.linspace(-4, 4, 128).view(2, 1, 8, 8) / 255, ["joint"], "Levels",
                                          ["a", "b"]), ["Levels", "joint", "a"], []),
    "dots": (lambda: plots.scored_dots(SCORES, ["bicubic", "srnet"], "PSNR (dB, Y)"),
             ["zebra", "mean, Set5", "mean, Set14", "+3.00", "−1.00", "SRNet − Bicubic", "PSNR (dB, Y)"],
             [[20, 26, 30, 23, 30], [23, 25, 31, 24, 31]]),
    "differences": (lambda: plots.differences(GAINS, "Points", "Title", "note", zero="control"),
                    ["Capacity", "Frozen", "+0.05", "+0.97", "control", "Title", "note", "Points"],
                    [[0, 0], [-0.24, 0.34], [0.64, 1.31], [0.09, 0.01], [0.87, 1.06]]),
    "gap": (lambda: plots.gap_curve({16: [0.5, 0.7], 2: GAINS["frozen"]}, "Epochs", "Points"),
            ["2", "16", "Epochs", "Points", "+0.60", "+0.97"], [[0.97, 0.6], [0.64, 1.31], [0.87, 1.06], [0.5, 0.7]]),
    "cost": (lambda: plots.cost_curve(COST), ["1 view", "10 views", "Control", "Frozen", "0.2", "1"],
             [[0.146, 1.46], [87.36, 88.3]]),
    "waterfall": (lambda: plots.waterfall(PATHS, CEILING, "Accuracy (%)", "Title", "note"),
                  ["adapt first", "joint", "+34.8", "+0.98", "−0.09", "+21.1", "clean 91.5", "73.5", "Accuracy (%)"],
                  [[52.38, 87.22], [87.22, 88.20], [88.20, 88.11], [52.38, 73.50]]),
    "few arms": (lambda: plots.waterfall({}, CEILING, "Accuracy (%)"), ["clean 91.5"], []),
    "hero": (lambda: plots.hero([STRIP, STRIP], ["control", "frozen"], PATHS, CEILING, "Points", "Hero", "note"),
             ["helps", "control", "✗ dog", "✓ cat", "+0.98", "Hero", "note"], [[87.22, 88.20]]),
    "confusion": (lambda: plots.confusion({"Clean": MATRIX, "Degraded": MATRIX.T}, CLASSES, "Errors"),
                  ["80", "20", "99", "25", "50", "cat", "Clean", "Errors"], [[-1, 20, 0, 0.5, -1, 0.5, 25, 25, -1]]),
    "heatmap": (lambda: plots.heatmap(UNSEEN, {"Joint − control": pd.DataFrame(
        {"points": [10, -30], "low": [9, -31.5], "high": [11, -28.5]}, ["noise", "bicubic ×2"])}),
                ["50.0", "60.0", "+10.0 ± 1.0", "−30.0 ± 1.5", "Control", "Joint − control", "Noise", "bicubic ×2"],
                [[50, 70, 60, 40], [10, -30]]),
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_shows_its_names_and_numbers(name):
    make, shown, numbers = FIGURES[name]
    fig = rendered(make())
    assert set(shown) <= {text.get_text() for text in texts(fig)}
    for values in numbers:
        assert any(len(found) == len(values) and np.allclose(found, values) for found in drawn(fig)), values


def test_what_stands_out_is_bold_or_has_its_methods_color():
    fig = FIGURES["heatmap"][0]()
    bold = {text.get_text() for text in texts(fig) if text.get_weight() == "bold"}
    assert bold == {"60.0", "70.0", "+10.0 ± 1.0", "−30.0 ± 1.5"}
    bars = FIGURES["waterfall"][0]().axes[0].patches
    assert [to_hex(bar.get_facecolor()).upper() == plots.ACCENT for bar in bars] == [False, True, False, True]
    for n, ax in enumerate(FIGURES["sweep"][0]().axes[:7]):
        assert {line.get_color() for line in ax.lines} == {plots.LIGHT, plots.color_of(f"num_blocks {n}")}
    red, _, blue = pictures(FIGURES["diverging"][0]())[1][-1, -1]
    assert blue > red  # where luma rose
    captions = plots.marked(torch.tensor([0, 2]), torch.tensor([0, 1]), CLASSES, [0.91, 0.64])
    assert captions == ["✓ 91 %\ncat", "✗ 64 %\nfrog"] and plots.marked([1], [1], CLASSES) == ["✓ dog"]
    ax = plots.image_grid(images(2), captions).axes[0]
    assert [to_hex(frame.get_edgecolor()).upper() for frame in ax.patches] == [plots.GOOD, plots.BAD]


def test_images_are_drawn_as_they_are_in_squares_of_whole_dots():
    whole, detail = pictures(FIGURES["zoom"][0]())[:2]
    np.testing.assert_allclose(detail, ZOOMED["bird"]["bicubic"].permute(1, 2, 0)[8:16, 16:24], atol=1e-6)
    assert to_hex(whole[7, 15]).upper() == to_hex(whole[16, 15]).upper() == plots.MARK  # the window's left edge
    fig = FIGURES["panel"][0]()
    np.testing.assert_allclose(pictures(fig)[2], TRUTH[0].permute(1, 2, 0), atol=1e-6)
    assert len({tuple(image.get_window_extent().size.round(6)) for image in fig.findobj(AxesImage)}) == 1
    for image in FIGURES["grid"][0]().findobj(AxesImage):
        dots = image.get_window_extent().extents * plots.DPI / image.get_figure().dpi
        np.testing.assert_allclose([*dots, (dots[2] - dots[0]) / 8], np.round([*dots, (dots[2] - dots[0]) / 8]))
    truth, other = torch.zeros(2, 3, 280, 520).unbind()
    other[:, 150:154, 490:496] = 1.0  # without a window given: where the methods differ
    fig = plots.zoom_panel([], {"a": {"bicubic": other, "truth": truth}}, ["a"], ["bicubic", "truth"])
    assert [image.sum() for image in pictures(fig)[1:]] == [3 * 4 * 6, 0]


def test_wrong_input_is_refused_in_a_sentence():
    for wrong, said in ((TRUTH * 255, r"lies in \[0, 1\].*divide by 255"),
                        (TRUTH.permute(0, 2, 3, 1), r"\(3, H, W\), found \(64, 96, 3\)")):
        refuses(ValueError, said, plots.panel, {"truth": wrong})
    said = "no column ssim, ssim_train or ssim_valid; it has: loss_train"
    refuses(ValueError, said, plots.curves, history(), ["ssim"])


def test_a_heros_font_is_everywhere_and_its_headings_bold_where_the_font_has_no_bold_face():
    for font, strokes in (("DejaVu Serif", False), ("DejaVu Sans Display", True)):
        fig = plots.hero([STRIP], ["a", "b"], PATHS, CEILING, "%", "Hero", "", font)
        assert {text.get_family()[0] for text in texts(fig)} == {font}
        bold = [bool(text.get_path_effects()) for text in texts(fig) if text.get_weight() == "bold"]
        assert bold and set(bold) == {strokes}


def test_what_a_student_adds_has_a_name_and_a_color_of_its_own(monkeypatch):
    assert plots.name_of("my_arm") == "My arm" and plots.name_of("×2, JPEG 50") == "×2, JPEG 50"
    known = dict(plots.COLORS)
    mine = [plots.color_of(name) for name in ("my_arm", "yours", "my_arm")]
    assert mine[0] == mine[2] != mine[1] and {name: plots.color_of(name) for name in known} == known
    monkeypatch.setattr(plots, "COLORS", {"control": plots.OTHERS[2]})
    several = [plots.color_of(name) for name in "abcdefghi"]
    assert len({*several[:7]} - {plots.OTHERS[2]}) == 7 and {*several} <= {*plots.OTHERS}, "free ones first"


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
    [path] = (tmp_path / "run").iterdir()
    assert path.name == f"grid.{suffix}" and [image.data for image in notebook] == [path.read_bytes()]
    size = {"width": round(96 * fig.get_figwidth()), "alt": "three images"}
    assert notebook[0]._repr_mimebundle_()[1][f"image/{kind.lower()}"] == size
    with Image.open(path) as image:
        assert image.format == kind and image.width == round(192 * fig.get_figwidth())
    for folder, count in (("study", 1), ("lab/hash", 2)):  # the study's stands at the top of its page already
        plots.show(fig, "grid", tmp_path / folder, top=True)
        assert len(notebook) == count and list((tmp_path / folder).iterdir())


def test_only_the_first_process_shows_and_what_cannot_be_saved_is_displayed(tmp_path, notebook, monkeypatch, capsys):
    fig = plots.curves(history(), ["loss"])
    monkeypatch.setattr(plots, "process_rank", lambda: 1)
    plots.show(fig, "curves", tmp_path)
    plots.display_markdown("nothing")
    assert not notebook and not list(tmp_path.iterdir()) and not capsys.readouterr().out
    monkeypatch.setattr(plots, "process_rank", lambda: 0)
    (tmp_path / "results").write_text("a file where the folder should be")  # root may write in read-only folders
    plots.show(fig, "curves", tmp_path / "results")
    assert len(notebook) == 1 and "results/curves.png could not be written" in capsys.readouterr().out
    plots.show(fig, "curves", tmp_path, quiet=True)
    with Image.open(tmp_path / "curves.png") as image:
        assert len(notebook) == 1 and image.mode == "P"  # lines and text are kept small
    monkeypatch.setattr("IPython.get_ipython", lambda: None)  # a terminal
    plots.display_markdown("**92 %**")
    assert capsys.readouterr().out == "**92 %**\n"


def test_the_matplotlibrc_of_a_user_changes_nothing(tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.family: serif\nlines.linestyle: --\n")
    code = "import sys; from tools import plots; {}; sys.stdout.buffer.write(content)"
    draw = "content = plots._content(plots.curves({'epoch': [1, 2], 'loss': [2, 1]}, ['loss']), False)"
    done = subprocess.run([sys.executable, "-c", code.format(draw)], cwd=ROOT, capture_output=True,
                          env=os.environ | {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc")})  # fmt: skip
    exec(draw, known := {"plots": plots})
    assert done.stdout == known["content"], done.stderr


def test_a_table_has_its_formats_and_text_to_the_left():
    frame = pd.DataFrame({"what": ["a", "b"], "points": [1.234, None], "ssim": [0.9, 0.8]}, index=["x", "y"])
    html = plots.table(frame, ssim="{:.4f}").to_html(table_uuid="t")
    assert re.findall(r'<td id="T_t_row\d_col\d" .*?>(.*?)</td>', html) == ["a", "1.23", "0.9000", "b", "–", "0.8000"]
    assert re.findall(r"#T_t (\S+) {\s+text-align: left", html) == ["th.row_heading", ".col0"] and ">SSIM</th>" in html


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Dropout(0.5))
        self.twice, self.unused = nn.Conv2d(8, 8, 1, bias=False), nn.Linear(2, 2)

    def forward(self, img):
        return self.twice(self.twice(self.body(img))), img


def test_layers_lists_what_ran_once():
    rows = plots.layers(Net(), (1, 3, 4, 6)).data.T.to_dict()
    conv, pointwise = 4 * 6 * 8 * 27 / 1e6, 2 * 4 * 6 * 64 / 1e6  # multiply-adds by hand
    assert list(rows) == ["body", "twice", "total"]
    assert [row["output"] for row in rows.values()] == ["8 × 4 × 6", "8 × 4 × 6", "8 × 4 × 6, 3 × 4 × 6"]
    assert [row["parameters"] for row in rows.values()] == [224, 64, 224 + 64 + 6]
    np.testing.assert_allclose([row["mult-adds (M)"] for row in rows.values()], [conv, pointwise, conv + pointwise])
    assert list(plots.layers(Net(), (1, 3, 4, 4), depth=2).data.index) == ["body.0", "body.1", "twice", "total"]
