"""How good is an image, and how good is a classification.

PSNR and SSIM of image pairs, the protocols of the field by name, and what the classifiers' tables need:
accuracy, confusion matrix, paired comparisons and calibration. Needs torch, and scipy for one exact test.

A PSNR without its protocol is no number: channel and border move it by up to 2 dB. So every value here is one
image's, and `protocol_label` writes the protocol into a table's header.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW_SIZE, WINDOW_SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03  # SSIM's constants, Wang et al. 2004
RANGE_TOLERANCE = 1e-3  # of data_range: what resizing and half precision may overshoot
TILE = 48  # side of the pieces that SSIM filters at a time

# --- image quality ------------------------------------------------------------------------------------------


def _checked(sr_img, hr_img, channel, border, data_range, min_side=1) -> tuple[Tensor, Tensor]:
    """Both images with the border shaved off, after every complaint about them but that of their values."""
    if channel not in ("rgb", "y"):
        raise ValueError(f"channel must be 'rgb' or 'y', found {channel!r}.")
    if not 0 < data_range < float("inf"):
        raise ValueError(f"data_range must be a positive number (1.0 for [0, 1]), found {data_range}.")
    for name, img in (("sr_img", sr_img), ("hr_img", hr_img)):
        if not torch.is_tensor(img) or not img.is_floating_point():
            found = img.dtype if torch.is_tensor(img) else type(img).__name__
            raise ValueError(f"{name} must be a floating-point tensor, found {found}. Divide uint8 by 255.")
        if img.ndim != 4 or img.shape[1] not in ((3,) if channel == "y" else (1, 3)) or img.numel() == 0:
            shape = "(N, 3, H, W)" if channel == "y" else "(N, 3, H, W) or (N, 1, H, W)"
            hint = " One image goes in as img[None]." if img.ndim == 3 else ""
            raise ValueError(
                f"{name} must be {shape} for channel {channel!r}, found {tuple(img.shape)}.{hint}"
            )
    if sr_img.shape != hr_img.shape:
        raise ValueError(
            f"sr_img and hr_img must have one shape, found {tuple(sr_img.shape)} and {tuple(hr_img.shape)}. "
            "Crop hr_img to a multiple of the scale factor first."
        )
    height, width = hr_img.shape[-2:]
    if not isinstance(border, int) or border < 0 or min(height, width) - 2 * border < min_side:
        raise ValueError(
            f"border must be a whole number >= 0 that leaves {min_side} or more pixels a side, "
            f"found border {border} on {height}x{width}."
        )
    inside = (..., slice(border, height - border), slice(border, width - border))
    return sr_img[inside], hr_img[inside]


def _check_values(sr_img: Tensor, hr_img: Tensor, data_range: float) -> None:
    """Complains of values out of range, piece by piece, since a piece then lies in the cache: the values named are
    those of the first bad one.
    """
    slack = RANGE_TOLERANCE * data_range
    for name, img in (("sr_img", sr_img), ("hr_img", hr_img)):
        low, high = (value.item() for value in img.aminmax())  # both nan if a pixel is
        if not (low >= -slack and high <= data_range + slack):
            raise ValueError(
                f"{name} must be finite and in [0, {data_range:g}] (to {slack:g}), "
                f"found {low:.4g} to {high:.4g}. Clamp it, or say its data_range."
            )


def _planes(img: Tensor, channel: str, data_range: float) -> Tensor:
    """What is compared: the channels as they are, or Y of BT.601 in limited range, 16 to 235."""
    if channel == "rgb":
        return img
    red, green, blue = img.unbind(1)
    luma = (red * (65.481 / 255)).add_(green, alpha=128.553 / 255).add_(blue, alpha=24.966 / 255)
    return luma.add_(16 / 255 * data_range).unsqueeze(1)


def _budget(img: Tensor, cpu_values: int, gpu_values: int) -> int:
    """Values to work on at a time: few enough to stay in a processor's cache, or enough to keep a GPU busy."""
    return cpu_values if img.device.type == "cpu" else gpu_values


@torch.no_grad()
def psnr(
    sr_img: Tensor, hr_img: Tensor, channel: str = "rgb", border: int = 0, data_range: float = 1.0
) -> Tensor:
    """Peak signal-to-noise ratio of each image, in dB: 10 log10(data_range² / MSE), inf for identical images.

    sr_img, hr_img: (N, 3, H, W) floating point in [0, data_range] (to a thousandth of it) -> (N,) float64.
    Grey images, (N, 1, H, W), pass with channel="rgb" and are compared as they are.
    channel: "rgb" takes the MSE over all three channels. "y" is the literature's luma, BT.601 in limited
    range, not rounded: (65.481 R + 128.553 G + 24.966 B + 16) / 255 for images in [0, 1], peak still 1.
    border: pixels shaved off each side first, and not looked at.
    The mean of the result is a data set's PSNR; the PSNR of a batch's pooled MSE is another, lower number.
    Raises ValueError for anything that is not such a pair of images.
    """
    sr_img, hr_img = _checked(sr_img, hr_img, channel, border, data_range)
    # A float32 RGB image stays one: rounding moves its PSNR by less than 1e-6 dB, and a copy costs more than the rest.
    is_rgb = channel == "rgb"
    dtype = torch.float32 if is_rgb and hr_img.dtype == sr_img.dtype == torch.float32 else torch.float64
    budget = _budget(hr_img, cpu_values=2**20, gpu_values=2**23)
    images, values = max(1, budget // hr_img[0].numel()), []
    for sr, hr in zip(sr_img.split(images), hr_img.split(images), strict=True):
        if is_rgb:  # one tall plane: what is worked on at a time lies in one stretch
            sr, hr = (img.flatten(1, 2)[:, None] for img in (sr, hr))
        rows = max(1, budget // hr[0, :, 0].numel())
        total, count = 0.0, 0
        for pair in zip(sr.split(rows, dim=2), hr.split(rows, dim=2), strict=True):
            _check_values(*pair, data_range)
            sr_planes, hr_planes = (_planes(img.to(dtype), channel, data_range) for img in pair)
            squares = F.mse_loss(sr_planes, hr_planes, reduction="none")
            total += squares.sum(-1).double().sum((1, 2))
            count += squares[0].numel()
        values.append(10 * torch.log10(data_range**2 * count / total))
    return torch.cat(values)


@torch.no_grad()
def ssim(
    sr_img: Tensor,
    hr_img: Tensor,
    channel: str = "rgb",
    border: int = 0,
    data_range: float = 1.0,
    window: str = "valid",
) -> Tensor:
    """Structural similarity of each image, in [-1, 1], 1 for identical images (Wang et al. 2004).

    Images, channel, border and errors as in `psnr`, -> (N,) float64; RGB is the mean over the channels.
    Gaussian window of 11x11, sigma 1.5, K 0.01 and 0.03, population covariance. A side under 11 pixels after
    shaving raises ValueError.
    window: "valid" counts full windows only, as MATLAB's ssim_index does, and skimage's structural_similarity
    with gaussian_weights=True, sigma=1.5, use_sample_covariance=False. "zero" counts a window around every
    pixel, with zeros outside the image (seed 000).
    """
    if window not in ("valid", "zero"):
        raise ValueError(f"window must be 'valid' or 'zero', found {window!r}.")
    sr_img, hr_img = _checked(sr_img, hr_img, channel, border, data_range, min_side=WINDOW_SIZE)
    lost = WINDOW_SIZE - 1  # a filtered row is so much shorter
    margin = lost // 2 if window == "zero" else 0
    height, width = hr_img.shape[-2] + 2 * margin, hr_img.shape[-1] + 2 * margin
    tile = min(width, TILE)
    tail = -(width - lost) % (tile - lost)  # columns to add so that overlapping tiles fill a row
    gauss = torch.signal.windows.gaussian(WINDOW_SIZE, std=WINDOW_SIGMA, dtype=torch.float64)
    identity = torch.eye(TILE, dtype=torch.float64)[:, None]
    band = F.conv1d(identity, (gauss / gauss.sum())[None, None])[:, 0].to(hr_img.device)
    # Filtering is two products with this banded matrix, a strip of rows and a few images at a time:
    # quick enough to afford float64, without which E[x²] - E[x]² loses the digits that flat areas need.
    strip = hr_img.shape[1] * min(height, TILE) * width
    # (on a CPU not too few: each of a piece's fifteen steps waits for the slower thread)
    images = max(1, _budget(hr_img, cpu_values=2**19, gpu_values=2**22) // strip)
    values = []
    for pair in zip(sr_img.split(images), hr_img.split(images), strict=True):
        _check_values(*pair, data_range)
        sides = (margin, margin + tail, margin, margin)
        x, y = (F.pad(_planes(img.double(), channel, data_range), sides) for img in pair)
        total = 0.0
        for top in range(0, height - lost, TILE - lost):
            rows = slice(top, top + TILE)
            total += _ssim_sum(x[..., rows, :], y[..., rows, :], band, tile, width - lost, data_range)
        values.append((total / ((height - lost) * (width - lost))).mean(1))
    return torch.cat(values)


def ssim_loss(sr_img: Tensor, hr_img: Tensor) -> Tensor:
    """1 - SSIM, the mean over a batch in [0, 1], for training: it has a gradient, and computes in float32.

    sr_img, hr_img: (N, 3, H, W) in [0, 1], sides of 11 pixels or more. Constants as in `ssim`, valid windows.
    bfloat16 would lose E[x²] - E[x]² altogether, so mixed precision is switched off here. Source: Zhao et al. 2017,
    "Loss functions for image restoration with neural networks".
    """
    from pytorch_msssim import ssim as differentiable_ssim

    with torch.autocast(sr_img.device.type, enabled=False):
        return 1 - differentiable_ssim(sr_img.float(), hr_img.float(), data_range=1.0)


def _ssim_sum(x: Tensor, y: Tensor, band: Tensor, tile: int, columns: int, data_range: float) -> Tensor:
    """Sum of the SSIM map over a strip's first `columns` columns. x, y: (n, C, rows, width) -> (n, C).

    SSIM takes the two variances' sum only, so four filtered maps do: E[x], E[y], E[xy] and E[x² + y²].
    """
    rows, lost = x.shape[-2], band.shape[0] - band.shape[1]
    x, y = (img.unfold(-1, tile, tile - lost).movedim(-2, -3) for img in (x, y))  # (n, C, tiles, rows, tile)
    maps = x.new_empty(4, *x.shape)
    maps[0], maps[1] = x, y
    x, y, xy, squares = maps
    torch.mul(x, y, out=xy)
    torch.mul(x, x, out=squares).addcmul_(y, y)
    # Along the rows, tile by tile, the outcome turned over so that columns then lie ready: two large products.
    filtered = band[:tile, : tile - lost].T @ maps.view(-1, tile).T
    filtered = filtered.view(-1, rows) @ band[:rows, : rows - lost]
    mean_x, mean_y, mean_xy, mean_squares = filtered.view(tile - lost, *maps.shape[:-2], -1).unbind(1)
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    product_of_means = mean_x * mean_y
    squares_of_means = (mean_x * mean_x).addcmul_(mean_y, mean_y)
    covariance = mean_xy.sub_(product_of_means)
    variances = mean_squares.sub_(squares_of_means)
    numerator = product_of_means.mul_(2).add_(c1) * covariance.mul_(2).add_(c2)
    denominator = squares_of_means.add_(c1) * variances.add_(c2)
    column_sums = numerator.div_(denominator).sum(-1)  # (tile - lost, n, C, tiles)
    return column_sums.movedim(0, -1).flatten(2)[..., :columns].sum(-1)


# --- perceived quality, without a reference ----------------------------------------------------------------------

NIQE_BLOCK = 96  # side of the blocks that statistics are taken from


class NaturalScenes:
    """NIQE: how far a picture's local statistics are from those of photographs. Lower is better; no reference picture
    and no trained network are needed. Source: Mittal et al. 2013, "Making a completely blind image quality analyzer".

    photographs: RGB images (3, H, W), float in [0, 1], sides of 96 pixels or more: what "natural" means. The paper's
    125 photographs are others, so scores compare only under one set of photographs. Differs from the authors' code
    besides in the luma (BT.601 in limited range, as elsewhere here), in halving with the framework's antialiased
    bicubic, and in leaving out flat blocks altogether. A picture of few blocks (256x256 has four) gives a rough score.
    """

    def __init__(self, photographs: Iterable[Tensor]):
        features = []
        for img in photographs:
            block_features, sharpness = _scene_features(img)
            features.append(block_features[sharpness > 0.75 * sharpness.max()])
        if not features:
            raise ValueError("NIQE needs photographs to learn what is natural; got none.")
        self.mean, self.covariance = _mean_and_covariance(torch.cat(features))

    def score(self, img: Tensor) -> float:
        """NIQE of one image (3, H, W), or of several (N, 3, H, W) taken together; float in [0, 1], sides >= 96."""
        features = torch.cat([_scene_features(one)[0] for one in (img if img.ndim == 4 else img[None])])
        mean, covariance = _mean_and_covariance(features)
        difference = (mean - self.mean)[:, None]
        return (difference.T @ torch.linalg.pinv((covariance + self.covariance) / 2) @ difference).sqrt().item()


def _mean_and_covariance(features: Tensor) -> tuple[Tensor, Tensor]:
    features = features[features.isfinite().all(1)]  # a flat block has no shape to fit
    if not len(features):
        raise ValueError("every block of the picture is flat: NIQE has nothing to measure.")
    return features.mean(0), features.T.cov(correction=1 if len(features) > 1 else 0)


@torch.no_grad()
def _scene_features(img: Tensor) -> tuple[Tensor, Tensor]:
    """(blocks, 36) features, 18 at each of two scales, and (blocks,) sharpness: the mean local contrast."""
    if img.ndim != 3 or img.shape[0] != 3 or not img.is_floating_point() or min(img.shape[1:]) < NIQE_BLOCK:
        raise ValueError(f"a float image (3, H, W) with sides >= {NIQE_BLOCK} was expected, found {tuple(img.shape)}.")
    height, width = (side // NIQE_BLOCK * NIQE_BLOCK for side in img.shape[1:])
    luma = _planes(img[None, :, :height, :width].double(), "y", 1.0) * 255
    gauss = torch.signal.windows.gaussian(7, std=7 / 6, dtype=luma.dtype, device=luma.device)
    window = torch.outer(gauss, gauss)[None, None] / gauss.sum() ** 2
    features, sharpness = [], None
    for side in (NIQE_BLOCK, NIQE_BLOCK // 2):
        padded = F.pad(luma, (3, 3, 3, 3), mode="replicate")
        mean = F.conv2d(padded, window)
        contrast = (F.conv2d(padded**2, window) - mean**2).abs().sqrt()
        blocks = _blocks((luma - mean) / (contrast + 1), side)
        sharpness = _blocks(contrast, side).mean((1, 2)) if sharpness is None else sharpness
        shape, _, left, right = _fit_asymmetric(blocks.flatten(1))
        features += [shape, (left + right) / 2]
        for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):  # how a pixel goes with its neighbour
            features += _fit_asymmetric((blocks * blocks.roll(shift, (1, 2))).flatten(1))
        luma = F.interpolate(luma, scale_factor=0.5, mode="bicubic", antialias=True)
    return torch.stack(features, 1), sharpness


def _blocks(plane: Tensor, side: int) -> Tensor:
    """(1, 1, H, W) -> (H W / side², side, side)."""
    return plane[0, 0].unfold(0, side, side).unfold(1, side, side).reshape(-1, side, side)


def _fit_asymmetric(values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Asymmetric generalised Gaussians fitted to the rows of (B, K) by moments: shape, mean, left and right scale, (B,)
    each (Lasmar et al. 2009). Shape 2 is a Gaussian, 1 a Laplacian.
    """
    shapes = torch.arange(0.2, 10, 0.001, dtype=values.dtype, device=values.device)
    ratios = (2 * torch.lgamma(2 / shapes) - torch.lgamma(1 / shapes) - torch.lgamma(3 / shapes)).exp()
    left, right = (
        (values.square() * side).sum(1).div(side.sum(1)).sqrt() for side in (values < 0, values > 0)
    )
    skew = left / right
    ratio = values.abs().mean(1).square() / values.square().mean(1)
    ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = shapes[torch.searchsorted(ratios, ratio).clamp(max=len(shapes) - 1)]
    shape = torch.where(ratio.isfinite(), shape, torch.nan)
    scale = ((torch.lgamma(1 / shape) - torch.lgamma(3 / shape)) / 2).exp()
    mean = (right - left) * scale * (torch.lgamma(2 / shape) - torch.lgamma(1 / shape)).exp()
    return shape, mean, left * scale, right * scale


# --- colour -----------------------------------------------------------------------------------------------------------


def _lab(img: Tensor) -> Tensor:
    """CIELAB under D65, by scikit-image: (N, 3, H, W) RGB in [0, 1] -> (N, H, W, 3) float64."""
    from skimage.color import rgb2lab

    return torch.from_numpy(rgb2lab(img.detach().cpu().double().permute(0, 2, 3, 1).numpy()))


def chroma_error(img: Tensor, truth: Tensor) -> Tensor:
    """Root mean square distance of CIELAB's a and b, lightness left out, of each image: (N, 3, H, W) -> (N,) float64.

    0 for the true colours. A grey picture's error is how colourful the truth is. Errors as in `psnr`.
    """
    img, truth = _checked(img, truth, "rgb", 0, 1.0)
    _check_values(img, truth, 1.0)
    return (_lab(img) - _lab(truth))[..., 1:].square().sum(3).mean((1, 2)).sqrt()


def colourfulness(img: Tensor) -> Tensor:
    """How colourful each image is, without a reference: (N, 3, H, W) in [0, 1] -> (N,) float64, 0 for grey.

    Source: Hasler and Süsstrunk 2003, "Measuring colourfulness in natural images", their third measure, on 0 to 255.
    People called pictures of 15 slightly, of 45 quite and of 82 highly colourful.
    """
    _checked(img, img, "rgb", 0, 1.0)
    _check_values(img, img, 1.0)
    red, green, blue = (img.double() * 255).unbind(1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue]).flatten(2)
    spread, shift = opponents.std(2, correction=0).norm(dim=0), opponents.mean(2).norm(dim=0)
    return spread + 0.3 * shift


# --- protocols ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Protocol:
    """What a PSNR or SSIM is measured on. border: "scale" (as many pixels as the scale factor) or 0."""

    name: str
    channel: str
    border: str | int
    window: str
    label: str


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("literature", "y", "scale", "valid", "the literature's: Y, a border of the scale shaved"),
        Protocol("rgb", "rgb", 0, "valid", "RGB, whole image"),
        Protocol("seed", "rgb", 0, "zero", "seed 000's: RGB, whole image, zero-padded SSIM window"),
    )
}


def _protocol(name: str, scale_factor: int) -> tuple[Protocol, int]:
    """The protocol of that name, and its border in pixels."""
    if name not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, found {name!r}.")
    if scale_factor < 1 or scale_factor != int(scale_factor):
        raise ValueError(f"scale_factor must be a whole number >= 1, found {scale_factor}.")
    protocol = PROTOCOLS[name]
    return protocol, int(scale_factor) if protocol.border == "scale" else protocol.border


def quantize(img: Tensor) -> Tensor:
    """The image as a file would hold it: floating point, clamped to [0, 1] and rounded to 8 bits, k / 255."""
    if not img.is_floating_point() or not img.isfinite().all():
        raise ValueError(
            f"A finite floating-point image was expected, found {img.dtype}, or nan or inf in it."
        )
    return img.clamp(0, 1).mul(255).round().div(255)


def evaluate(
    sr_img: Tensor, hr_img: Tensor, protocol: str = "literature", scale_factor: int = 2
) -> dict[str, Tensor]:
    """PSNR and SSIM under a protocol of `PROTOCOLS`: {"psnr_db": (N,), "ssim": (N,)}, one value an image.

    sr_img, hr_img: (N, 3, H, W). sr_img may leave [0, 1]: it is clamped and rounded to 8 bits first, as on
    disk (`quantize`); hr_img is taken as it is. scale_factor is the border where the protocol shaves one.
    Errors as in `psnr`.
    """
    rules, border = _protocol(protocol, scale_factor)
    sr_img = quantize(sr_img)
    return {
        "psnr_db": psnr(sr_img, hr_img, rules.channel, border),
        "ssim": ssim(sr_img, hr_img, rules.channel, border, window=rules.window),
    }


def protocol_label(metric: str, protocol: str = "literature", scale_factor: int = 2) -> str:
    """A metric's name with its protocol, as "PSNR (dB, Y, border 2)". metric: "psnr_db" or "ssim"."""
    rules, border = _protocol(protocol, scale_factor)
    if metric not in ("psnr_db", "ssim"):
        raise ValueError(f"metric must be 'psnr_db' or 'ssim', found {metric!r}.")
    where = f"{rules.channel.upper()}, " + (f"border {border}" if border else "whole image")
    if metric == "psnr_db":
        return f"PSNR (dB, {where})"
    return f"SSIM ({where}{', zero-padded' if rules.window == 'zero' else ''})"


# --- classification -----------------------------------------------------------------------------------------


def _check_scores(scores: Tensor, labels: Tensor, name: str) -> None:
    if scores.ndim != 2 or not len(scores) or labels.shape != scores.shape[:1] or labels.is_floating_point():
        found = f"{tuple(scores.shape)} and {tuple(labels.shape)} of {labels.dtype}"
        raise ValueError(f"{name} (N, C) and whole-number labels (N,) were expected, found {found}.")
    if not scores.isfinite().all():
        raise ValueError(f"finite {name} were expected, found nan or inf.")


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of images, 0 to 1, whose largest logit is the label's. logits: (N, C), labels: (N,) integers."""
    _check_scores(logits, labels, "logits")
    return (logits.argmax(1) == labels).sum().item() / len(labels)


def confusion_matrix(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """How often each class was called each class: (C, C) int64, rows true, columns predicted.

    predictions, labels: (N,) class numbers below num_classes.
    """
    for name, classes in (("predictions", predictions), ("labels", labels)):
        if classes.ndim != 1 or len(classes) != len(labels) or classes.is_floating_point():
            raise ValueError(
                f"{name} must be (N,) class numbers, as many as labels ({len(labels)}), found "
                f"{tuple(classes.shape)} of {classes.dtype}. Of logits, pass logits.argmax(1)."
            )
        if len(classes) and not (classes.min() >= 0 and classes.max() < num_classes):
            span = f"{classes.min().item()} to {classes.max().item()}"
            raise ValueError(f"{name} must be 0 to {num_classes - 1} ({num_classes} classes), found {span}.")
    cells = labels.long() * num_classes + predictions.long()
    return cells.bincount(minlength=num_classes**2).view(num_classes, num_classes)


def _disagreements(correct_a: Tensor, correct_b: Tensor) -> tuple[int, int]:
    """Number of images that only a, and that only b, has right."""
    for name, correct in (("correct_a", correct_a), ("correct_b", correct_b)):
        if correct.dtype != torch.bool or correct.shape != (len(correct_a),) or not len(correct):
            found = f"{tuple(correct.shape)} of {correct.dtype}"
            raise ValueError(f"{name} must be (N,) of torch.bool, one entry an image, found {found}.")
    return (correct_a & ~correct_b).sum().item(), (correct_b & ~correct_a).sum().item()


def paired_bootstrap(
    correct_a: Tensor, correct_b: Tensor, num_resamples: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Accuracy of a less that of b on the same images, with its 95 % interval: (difference, low, high).

    correct_a, correct_b: (N,) bool, whether each image was classified rightly; or (S, N), by S pairs of networks,
    whose mean difference on each image then counts. Percentile bootstrap over the images (Efron 1979). Drawing images
    anew only changes how often each possible difference occurs, so these counts are drawn instead.
    """
    for name, correct in (("correct_a", correct_a), ("correct_b", correct_b)):
        if correct.dtype != torch.bool or correct.shape != correct_a.shape or correct.dim() > 2 or not correct.numel():
            found = f"{tuple(correct.shape)} of {correct.dtype}"
            raise ValueError(f"{name} must be (N,) or (S, N) of torch.bool, both alike, found {found}.")
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be 1 or more, found {num_resamples}.")
    gained = torch.atleast_2d(correct_a.int() - correct_b.int()).double().mean(0)
    values, counts = gained.unique(return_counts=True)
    total = len(gained)
    drawn = np.random.default_rng(seed).multinomial(total, (counts / total).tolist(), size=num_resamples)
    differences = drawn @ values.numpy() / total
    low, high = np.quantile(differences, [0.025, 0.975]).tolist()
    return gained.mean().item(), low, high


def paired_interval(values_a: Tensor, values_b: Tensor) -> tuple[float, float, float]:
    """Mean of a less that of b on the same images, with its 95 % interval: (difference, low, high).

    values_a, values_b: (N,) numbers such as PSNRs; or (S, N), by S pairs of networks, as in `paired_bootstrap`. The
    differences' mean is taken as normal, as that of thousands of images is.
    """
    if values_a.shape != values_b.shape or values_a.dim() not in (1, 2) or values_a.shape[-1] < 2:
        found = f"{tuple(values_a.shape)} and {tuple(values_b.shape)}"
        raise ValueError(f"(N,) or (S, N) numbers of two or more images, both alike, were expected, found {found}.")
    gained = torch.atleast_2d(values_a.double() - values_b.double()).mean(0)
    margin = 1.959964 * gained.std().item() / len(gained) ** 0.5
    return gained.mean().item(), gained.mean().item() - margin, gained.mean().item() + margin


def mcnemar(correct_a: Tensor, correct_b: Tensor) -> float:
    """p value of "both classifiers are equally good" (McNemar 1947, exact, two-sided).

    correct_a, correct_b: (N,) bool, on the same images. Only images that one alone gets right count; 1.0
    where there is none.
    """
    from scipy.stats import binomtest  # comes with scikit-image, and takes long to import

    won, lost = _disagreements(correct_a, correct_b)
    return float(binomtest(won, won + lost, 0.5).pvalue) if won + lost else 1.0


def calibration_bins(probabilities: Tensor, labels: Tensor, num_bins: int = 15) -> dict[str, Tensor]:
    """The reliability curve's table: images grouped by their predicted class's probability (Guo et al. 2017).

    probabilities: (N, C), rows that sum to 1 (to 1e-3); labels: (N,) integers. Bins are equally wide, open
    below and closed above. Returns (num_bins,) tensors: "low" and "high" (the edges), "count", "confidence"
    (mean probability) and "accuracy", the last two nan where a bin is empty.
    """
    _check_scores(probabilities, labels, "probabilities")
    if num_bins < 1:
        raise ValueError(f"num_bins must be 1 or more, found {num_bins}.")
    if probabilities.min() < 0 or (probabilities.sum(1) - 1).abs().max() > 1e-3:
        raise ValueError("probabilities must be >= 0 in rows that sum to 1. Apply softmax(1) to logits.")
    confidence, prediction = probabilities.double().max(1)
    edges = torch.linspace(0, 1, num_bins + 1, dtype=torch.float64, device=confidence.device)
    bins = torch.bucketize(confidence, edges[1:-1])
    count = bins.bincount(minlength=num_bins)
    right = (prediction == labels).double()
    return {
        "low": edges[:-1],
        "high": edges[1:],
        "count": count,
        "confidence": bins.bincount(confidence, minlength=num_bins) / count,
        "accuracy": bins.bincount(right, minlength=num_bins) / count,
    }


def expected_calibration_error(probabilities: Tensor, labels: Tensor, num_bins: int = 15) -> float:
    """Mean distance, 0 to 1, of confidence from accuracy over `calibration_bins` (Guo et al. 2017)."""
    bins = calibration_bins(probabilities, labels, num_bins)
    gap = (bins["confidence"] - bins["accuracy"]).abs().nan_to_num(0)
    return ((gap * bins["count"]).sum() / bins["count"].sum()).item()
