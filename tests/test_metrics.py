"""metrics.py: by hand, against independent libraries, and on the literature's own numbers."""
import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.stats import norm, sem
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import datasets
import metrics
from metrics import psnr, ssim

from .conftest import refuses

WANG = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 0}


def image_pair(*shape, seed=0, noise=0.1, dtype=torch.float64):
    """A batch with flat areas, gradients and texture, and a noisy copy of it, both in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(*shape[:2], 3, 3, generator=generator, dtype=torch.float64)
    hr_img = F.interpolate(coarse, shape[2:], mode="bilinear")
    hr_img[..., shape[3] // 2 :] = (hr_img[..., shape[3] // 2 :] * 4).round() / 4
    sr_img = hr_img + noise * torch.randn(shape, generator=generator, dtype=torch.float64)
    return sr_img.clamp(0, 1).to(dtype), hr_img.clamp(0, 1).to(dtype)


@pytest.mark.parametrize("sides", [(11, 11), (12, 47), (200, 37), (50, 3000)])  # one strip of rows, and several
@pytest.mark.parametrize("channel, border, data_range, dtype", [
    ("rgb", 0, 1.0, torch.float64), ("rgb", 0, 1.0, torch.float32),
    ("y", 3, 255.0, torch.float64), ("y", 4, 1.0, torch.float64),
])  # fmt: skip
def test_equals_skimage(sides, channel, border, data_range, dtype):
    sr_img, hr_img = image_pair(2, 3, *(side + 2 * border for side in sides), dtype=dtype)
    sr_img, hr_img = sr_img * data_range, hr_img * data_range
    weights = np.array([65.481, 128.553, 24.966]).reshape(3, 1, 1) / 255
    expected = {psnr: [], ssim: []}
    for pair in zip(hr_img.double().numpy(), sr_img.double().numpy(), strict=True):
        if channel == "y":
            pair = [(img * weights).sum(0, keepdims=True) + 16 / 255 * data_range for img in pair]
            pair = [img[:, border:-border, border:-border] for img in pair]
        expected[psnr].append(peak_signal_noise_ratio(*pair, data_range=data_range))
        expected[ssim].append(structural_similarity(*pair, data_range=data_range, **WANG))
    for metric, values in expected.items():
        found = metric(sr_img, hr_img, channel, border, data_range)
        assert found.tolist() == pytest.approx(values, abs=1e-6 if dtype == torch.float32 else 1e-9)
        assert found.dtype == torch.float64


def test_zero_window_equals_a_plain_zero_padded_convolution():
    """The course document's SSIM: means of x, y, x², y² and xy with zeros around, averaged over the whole map."""
    sr_img, hr_img = image_pair(1, 3, 70, 90)
    padded = [F.pad(img, (5, 5, 5, 5))[0].numpy() for img in (hr_img, sr_img)]
    _, full = structural_similarity(*padded, data_range=1.0, full=True, **WANG)
    assert ssim(sr_img, hr_img, window="zero").item() == pytest.approx(full[:, 5:-5, 5:-5].mean(), abs=1e-9)


def test_float32_keeps_its_digits_on_bright_flat_images():
    """Where E[x²] - E[x]² and the difference of two lumas cancel: variances of 1e-9 on a level of 0.9."""
    hr_img, sr_img = 0.9 + 3e-5 * torch.randn(2, 1, 3, 70, 70, generator=torch.Generator().manual_seed(1))
    arrays = [img[0].double().numpy() for img in (hr_img, sr_img)]
    expected = structural_similarity(*arrays, data_range=1.0, **WANG)
    assert ssim(sr_img, hr_img).item() == pytest.approx(expected, abs=1e-9)
    for channel in ("rgb", "y"):
        in_float64 = psnr(sr_img.double(), hr_img.double(), channel).item()
        assert psnr(sr_img, hr_img, channel).item() == pytest.approx(in_float64, abs=1e-4)


def test_ssim_loss_is_one_minus_ssim_with_a_gradient_even_in_mixed_precision():
    sr_img, hr_img = image_pair(2, 3, 20, 24, dtype=torch.float32)
    sr_img.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = metrics.ssim_loss(sr_img, hr_img)
    assert loss.item() == pytest.approx(1 - ssim(sr_img.detach(), hr_img).mean().item(), abs=1e-5)
    loss.backward()
    assert metrics.ssim_loss(sr_img.detach() - 0.01 * sr_img.grad / sr_img.grad.abs().max(), hr_img) < loss


good = torch.full((2, 3, 16, 16), 0.5)
gray = good[:, :1]


@pytest.mark.parametrize("metric, best", [(psnr, math.inf), (ssim, 1)])
def test_batches_order_memory_layout_half_precision_and_gradients_do_not_matter(metric, best):
    sr_img, hr_img = image_pair(60, 3, 32, 40, dtype=torch.float32)  # several pieces of a batch
    expected = metric(sr_img, hr_img)
    assert (expected < best).all() and metric(hr_img, hr_img).tolist() == pytest.approx([best] * 60, abs=1e-12)
    assert torch.allclose(torch.cat([metric(sr_img[:1], hr_img[:1]), metric(hr_img[1:], sr_img[1:])]), expected)
    assert torch.allclose(metric(*(img.to(memory_format=torch.channels_last) for img in (sr_img, hr_img))), expected)
    assert not metric(sr_img.clone().requires_grad_(), hr_img).requires_grad
    assert metric(good + 0.5009, good).isfinite().all()  # a thousandth outside the range
    half = sr_img.half(), hr_img.half()
    assert torch.allclose(metric(*half), metric(*(img.double() for img in half)), atol=1e-6)
    for value, message in ((1.5, "to 1.5. Clamp"), (-0.5, "found -0.5 to")):  # of one pixel in one piece
        sr_img[30, 0, 0, 0] = value
        refuses(ValueError, message, metric, sr_img, hr_img)


def test_evaluate_follows_its_protocol_the_label_names_it_and_images_are_scored_as_files_hold_them():
    sr_img, hr_img = image_pair(2, 3, 40, 30, noise=0.2)
    sr_img = sr_img * 1.2 - 0.1  # leaves [0, 1]
    stored = ((sr_img.clamp(0, 1) * 255).round() / 255).double()
    expected = {
        "literature": (psnr(stored, hr_img, "y", 4), ssim(stored, hr_img, "y", 4), "Y, border 4", ""),
        "rgb": (psnr(stored, hr_img), ssim(stored, hr_img), "RGB, whole image", ""),
        "reference": (psnr(stored, hr_img), ssim(stored, hr_img, window="zero"), "RGB, whole image", ", zero-padded"),
    }
    assert set(expected) == set(metrics.PROTOCOLS)
    for name, (db, similarity, where, padded) in expected.items():
        values = metrics.evaluate(sr_img, hr_img, name, scale_factor=4)
        assert torch.equal(values["psnr_db"], db) and torch.equal(values["ssim"], similarity)
        assert metrics.protocol_label("psnr_db", name, 4) == f"PSNR (dB, {where})"
        assert metrics.protocol_label("ssim", name, 4) == f"SSIM ({where}{padded})"
    levels = metrics.quantize(torch.tensor([-0.2, 0.0, 0.4 / 255, 0.6 / 255, 0.5, 1.0, 1.7])) * 255
    assert levels.tolist() == pytest.approx([0, 0, 0, 1, 128, 255, 255], abs=1e-4)


def test_a_gray_truth_counts_on_luma_as_it_is():
    """Through Y, of 16 to 235, a PSNR would be 20 log10(255 / 219) = 1.32 dB higher."""
    sr_img, hr_img = (metrics.quantize(img) for img in image_pair(2, 3, 40, 30))
    hr_img, luma = hr_img[:, :1], (sr_img * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    found, repeated = metrics.evaluate(sr_img, hr_img, "literature", 2), hr_img.repeat(1, 3, 1, 1)
    assert torch.allclose(found["psnr_db"], psnr(luma, hr_img, border=2))
    assert torch.allclose(found["ssim"], ssim(luma, hr_img, border=2))
    assert torch.allclose(psnr(sr_img, repeated, "y", 2) - found["psnr_db"], torch.tensor(1.322).double(), atol=1e-3)
    assert metrics.evaluate(sr_img, hr_img, "rgb")["psnr_db"].equal(psnr(sr_img, repeated))


@pytest.mark.parametrize("name, scale_factor, psnr_db, similarity", [
    ("Set5", 2, 33.67, 0.9303), ("Set5", 4, 28.43, 0.8111), ("Set14", 2, 30.23, 0.8690), ("Set14", 4, 26.00, 0.7030),
])  # fmt: skip
def test_bicubic_row_of_the_literature(real_data, name, scale_factor, psnr_db, similarity):
    """Bicubic from the LR files, on Y. Published: Set5 33.66 and 28.42, Set14 30.24 and 26.00 dB. SSIM is 0.0004 to
    0.002 above print, where Y was rounded.
    """
    test_set, rows = datasets.SRTestSet(real_data(name), scale_factor), []
    for lr_img, hr_img in (test_set.pair(i) for i in range(len(test_set))):
        with Image.open(test_set.hr[len(rows)]) as file:
            truth = hr_img[:1] if file.mode == "L" else hr_img
        pair = (datasets.to_float(img)[None] for img in (datasets.imresize(lr_img, scale_factor), truth))
        rows.append([value.item() for value in metrics.evaluate(*pair, "literature", scale_factor).values()])
    assert np.mean(rows, axis=0).tolist() == [pytest.approx(psnr_db, abs=0.005), pytest.approx(similarity, abs=0.0001)]


def test_accuracy_and_confusion_matrix_by_hand():
    logits = torch.tensor([[2.0, 1, 0], [0, 3, 1], [0, 1, 5], [9, 0, 0], [0, 0, 1]])
    labels = torch.tensor([0, 1, 1, 2, 2])
    assert metrics.accuracy(logits, labels) == 0.6
    matrix = metrics.confusion_matrix(logits.argmax(1), labels, 4)
    assert matrix.tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


def test_compare_gives_points_the_interval_each_seed_and_what_is_covered_and_signs_are_written():
    a, b = torch.tensor([[[1, 1, 1, 0], [1, 0, 1, 1]], [[1, 0, 0, 0], [0, 1, 1, 1]]]) > 0
    _, low, high = (100 * value for value in metrics.paired_interval(a, b))
    expected = {"points": 25, "low": low, "high": high, "by_seed": [50, 0], "covers": "images and seeds"}
    assert metrics.compare(a, b) == expected and metrics.compare(b, a)["by_seed"] == [-50, 0]
    one = metrics.compare(a[0], b[0])
    assert one == metrics.compare(a[:1], b[:1]) and (one["by_seed"], one["covers"]) == ([50], "images")
    assert [metrics.signed(value) for value in (0.5, -0.25, 0.004, -0.004)] == ["+0.50", "−0.25", "0.00", "0.00"]
    assert [metrics.signed(value, 1) for value in (12.34, -0.04)] == ["+12.3", "0.0"]


def test_paired_interval_over_images_alone_by_scipy():
    a, b = 30 + torch.randn(2, 500, generator=torch.Generator().manual_seed(0))
    gained = (a - b).double()
    expected = norm.interval(0.95, gained.mean(), sem(gained))
    assert metrics.paired_interval(a, b) == pytest.approx((gained.mean().item(), *expected), abs=1e-6)
    assert metrics.paired_interval(a[None], b[None]) == metrics.paired_interval(a, b)


def test_paired_interval_over_images_and_seeds_by_hand():
    """Means over seeds 1, 2, 6: a variance of 7 over three images. Means over images 2, 4: a variance of 2 over two
    seeds. Student's t of one degree of freedom leaves 2.5 % above 12.706205.
    """
    gained = torch.tensor([[0.0, 1, 5], [2.0, 3, 7]])
    margin = (1.959964**2 * 7 / 3 + 12.706205**2 * 2 / 2) ** 0.5
    expected = pytest.approx((3, 3 - margin, 3 + margin), abs=1e-5)
    assert metrics.paired_interval(gained + 9, torch.full((2, 3), 9)) == expected
    degradations = torch.stack([gained - 4, gained, gained + 4], 1)  # what differs between them is averaged
    assert metrics.paired_interval(degradations, torch.zeros(2, 3, 3)) == expected


scores, labels, correct = torch.rand(3, 2), torch.zeros(3).long(), torch.ones(3) > 0


@pytest.mark.parametrize("call, message", [
    (lambda: psnr(good, good[:, :, :15]), r"one shape, found \(2, 3, 16, 16\) and \(2, 3, 15, 16\)"),
    (lambda: psnr(good[0], good), r"must be \(N, 3, H, W\) or \(N, 1, H, W\).*found \(3, 16, 16\).*img\[None\]"),
    (lambda: psnr(gray, gray, "y"), r"must be \(N, 3, H, W\) for channel 'y', found \(2, 1"),
    (lambda: psnr(good, good.byte()), r"hr_img must be a floating-point tensor, found Tensor of torch.uint8. Divide"),
    (lambda: psnr(good + 0.502, good), r"sr_img must be finite and in \[0, 1\] \(to 0.001\), found 1.002 to 1.002"),
    (lambda: ssim(good, good.where(torch.arange(16) > 0, torch.nan)), "hr_img must be finite.*found nan"),
    (lambda: psnr(good, good, border=8), "border must be .* leaves 1 or more pixels a side, found border 8 on 16x16"),
    (lambda: psnr(good, good, border=1.5), "border must be a whole number >= 0"),
    (lambda: psnr(good, good, "Y"), "channel must be 'rgb' or 'y', found 'Y'"),
    (lambda: metrics.accuracy(scores, labels[:2]), r"found \(3, 2\) and \(2,\)"),
    (lambda: metrics.accuracy(scores / 0, labels), "finite logits"),
    (lambda: metrics.confusion_matrix(scores, labels, 2), r"pass logits.argmax\(1\)"),
    (lambda: metrics.confusion_matrix(labels, labels + 2, 2), "labels must be 3 class numbers from 0 to 1"),
    (lambda: metrics.compare(correct.float(), correct), "torch.bool.*both alike.* of torch.float32"),
    (lambda: metrics.paired_interval(scores[:1, 0], scores[:1, 0]), "of two or more images"),
    (lambda: ssim(good, good, border=3), "leaves 11 or more pixels"),
    (lambda: ssim(good, good, window="same"), "'valid' or 'zero'"),
    (lambda: metrics.quantize(good / 0), "finite floating-point image"),
    (lambda: metrics.evaluate(good, good, "paper"), "one of literature, rgb, reference, found 'paper'"),
    *((partial(measure, torch.full((1, 3, 4, 4), value)), r"must be finite and in \[0, 1\]")
      for value in (-0.1, math.nan, 200.0)
      for measure in (metrics.colorfulness, lambda img: metrics.chroma_error(img, img))),
])  # fmt: skip
def test_bad_input_raises(call, message):
    refuses(ValueError, message, call)


def test_niqe_gives_the_scores_of_the_authors_parameters(real_data):
    """By basicsr 1.4.2 in float64, flat pixels (the moon has many) as exactly 0; of the baboon 5.72957338 by the
    authors' own code in MATLAB R2021a, as basicsr states.
    """
    parts, niqe = [datasets.embedded_photographs(part) for part in ("train", "test")], metrics.NIQE()
    photographs = {name: datasets.to_float(img) for part in parts for img, name in zip(*part, strict=True)}
    cat, flat = photographs["chelsea"], torch.full((3, 96, 96), 0.5)
    corner = cat.clone()
    corner[:, :120, :120] = 128 / 255  # a flat block has a shape alone, 0.2
    for img, expected in ((cat, 2.625527), (photographs["moon"], 8.529623), (corner, 3.426291), (flat, math.nan)):
        assert niqe.score(img) == pytest.approx(expected, abs=1e-5, nan_ok=True)
    halves = torch.stack([cat[:, :288, :192], cat[:, :288, 192:384]])
    assert niqe.score(halves) == pytest.approx(niqe.score(cat[:, :288, :384]), rel=0.2)  # but for the new borders
    refuses(ValueError, "sides >= 96", niqe.score, flat[:, 1:])
    baboon = datasets.to_float(datasets.read_image(real_data("Set14") / "HR" / "img_001.png"))
    assert niqe.score(baboon) == pytest.approx(5.729573, abs=2e-5)


def test_chroma_error_by_hand():
    red, gray = torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.5)
    red[:, 0] = 1  # (53.24, 80.09, 67.20) in CIELAB; any gray has a = b = 0
    half = torch.cat([red[..., :2], gray[..., 2:]], 3)
    found = metrics.chroma_error(torch.cat([gray, gray, gray]), torch.cat([red, half, gray * 0.4])).tolist()
    assert found == pytest.approx([math.hypot(80.09, 67.20), math.hypot(80.09, 67.20) / 2**0.5, 0], abs=0.02)


def test_colorfulness_by_hand():
    assert metrics.colorfulness(torch.full((2, 3, 4, 4), 0.3)).tolist() == [0, 0]
    img = torch.zeros(1, 3, 1, 2)
    img[0, 0, 0, 0] = img[0, 2, 0, 1] = 1  # a red pixel and a blue one
    # red - green: 255, 0; (red + green) / 2 - blue: 127.5, -255
    expected = math.hypot(127.5, 191.25) + 0.3 * math.hypot(127.5, -63.75)
    assert metrics.colorfulness(img).item() == pytest.approx(expected)
