"""How good an image is, and how good a classification is.

PSNR and SSIM of image pairs, the protocols of the field by name, NIQE, measures of colour, and what the classifiers'
tables need: accuracy, confusion matrix, paired comparisons and calibration.

Channel and border move a PSNR by up to 2 dB, so every value belongs to a protocol: `protocol_label` writes it into a
table's header. Every function returns one value per image.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW_SIZE, WINDOW_SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03  # SSIM's constants, Wang et al. 2004
RANGE_TOLERANCE = 1e-3  # of data_range: what resizing and half precision may overshoot

# --- image quality ----------------------------------------------------------------------------------------------------


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _checked(sr_img, hr_img, channel="rgb", border=0, data_range=1.0, min_side=1) -> tuple[Tensor, Tensor]:
    """Both images, in float32 at least, with the border shaved off. Raises ValueError if they are no pair of images."""
    _require(channel in ("rgb", "y"), f"channel must be 'rgb' or 'y', found {channel!r}.")
    in_range = 0 < data_range < float("inf")
    _require(in_range, f"data_range must be a positive number (1.0 for [0, 1]), found {data_range}.")
    wanted = "(N, 3, H, W)" if channel == "y" else "(N, 3, H, W) or (N, 1, H, W)"
    for name, img in (("sr_img", sr_img), ("hr_img", hr_img)):
        is_float = torch.is_tensor(img) and img.is_floating_point()
        found = img.dtype if torch.is_tensor(img) else type(img).__name__
        _require(is_float, f"{name} must be a floating-point tensor, found {found}. Divide uint8 by 255.")
        is_batch = img.ndim == 4 and img.shape[1] in ((3,) if channel == "y" else (1, 3)) and img.numel()
        hint = " One image goes in as img[None]." if img.ndim == 3 else ""
        _require(is_batch, f"{name} must be {wanted} for channel {channel!r}, found {tuple(img.shape)}.{hint}")
    _require(
        sr_img.shape == hr_img.shape,
        f"sr_img and hr_img must have one shape, found {tuple(sr_img.shape)} and {tuple(hr_img.shape)}. "
        "Crop hr_img to a multiple of the scale factor first.",
    )
    height, width = hr_img.shape[-2:]
    _require(
        isinstance(border, int) and border >= 0 and min(height, width) - 2 * border >= min_side,
        f"border must be a whole number >= 0 that leaves {min_side} or more pixels a side, "
        f"found border {border} on {height}x{width}.",
    )
    inside = (..., slice(border, height - border), slice(border, width - border))
    return tuple(img[inside].to(torch.promote_types(img.dtype, torch.float32)) for img in (sr_img, hr_img))


def _check_range(data_range: float, **images: Tensor) -> None:
    slack = RANGE_TOLERANCE * data_range
    for name, img in images.items():
        low, high = (value.item() for value in img.aminmax())  # both nan if a pixel is
        _require(
            low >= -slack and high <= data_range + slack,
            f"{name} must be finite and in [0, {data_range:g}] (to {slack:g}), found {low:.4g} to {high:.4g}. "
            "Clamp it, or say its data_range.",
        )


def _pieces(sr_img: Tensor, hr_img: Tensor, data_range: float, num_values: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A few images at a time: on a CPU about `num_values` values, which stay in its cache, on a GPU more.

    Raises ValueError where a value is out of range.
    """
    num_values = num_values if hr_img.device.type == "cpu" else 2**24
    num_images = max(1, num_values // hr_img[0].numel())
    for sr, hr in zip(sr_img.split(num_images), hr_img.split(num_images), strict=True):
        _check_range(data_range, sr_img=sr, hr_img=hr)
        yield sr, hr


def _luma(img: Tensor) -> Tensor:
    """Y of BT.601 without its offset, (N, 3, H, W) -> (N, 1, H, W): from black to white it grows by 219/255."""
    red, green, blue = img.unbind(1)
    return (red * (65.481 / 255)).add_(green, alpha=128.553 / 255).add_(blue, alpha=24.966 / 255).unsqueeze(1)


@torch.no_grad()
def psnr(sr_img: Tensor, hr_img: Tensor, channel: str = "rgb", border: int = 0, data_range: float = 1.0) -> Tensor:
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
    mse = []
    for sr, hr in _pieces(sr_img, hr_img, data_range, num_values=2**18):
        difference = _luma(sr - hr) if channel == "y" else sr - hr
        mse.append(difference.square_().mean((1, 2, 3)).double())
    return 10 * torch.log10(data_range**2 / torch.cat(mse))


@torch.no_grad()
def ssim(
    sr_img: Tensor, hr_img: Tensor, channel: str = "rgb", border: int = 0, data_range: float = 1.0,
    window: str = "valid",
) -> Tensor:
    """Structural similarity of each image, in [-1, 1], 1 for identical images (Wang et al. 2004).

    Images, channel, border and errors as in `psnr`, -> (N,) float64; RGB is the mean over the channels.
    Gaussian window of 11x11, sigma 1.5, K 0.01 and 0.03, population covariance. A side under 11 pixels after
    shaving raises ValueError.
    window: "valid" counts full windows only, as MATLAB's ssim_index does, and skimage's structural_similarity
    with gaussian_weights=True, sigma=1.5, use_sample_covariance=False. "zero" counts a window around every
    pixel, with zeros outside the image (the course document).
    """
    _require(window in ("valid", "zero"), f"window must be 'valid' or 'zero', found {window!r}.")
    sr_img, hr_img = _checked(sr_img, hr_img, channel, border, data_range, min_side=WINDOW_SIZE)
    margin, offset = WINDOW_SIZE // 2 if window == "zero" else 0, 16 / 255 * data_range
    values, strip = [], 64  # rows of the map at a time: in float64 they stay in the cache
    for pair in _pieces(sr_img, hr_img, data_range, num_values=2**16):
        x, y = (_luma(img.double()) + offset if channel == "y" else img.double() for img in pair)
        x, y = (F.pad(img, [margin] * 4) for img in (x, y))
        tops = range(0, x.shape[-2] - WINDOW_SIZE + 1, strip)
        rows = (slice(top, top + strip + WINDOW_SIZE - 1) for top in tops)
        strips = [_ssim_map(x[..., row, :], y[..., row, :], data_range) for row in rows]
        values.append(torch.cat(strips, -1).mean((1, 2, 3)))
    return torch.cat(values)


def _ssim_map(x: Tensor, y: Tensor, data_range: float) -> Tensor:
    """SSIM around every pixel that a full window fits on. x, y: (N, C, H, W) float64 -> (N, C, W - 10, H - 10).

    float64, since E[x²] - E[x]² loses in float32 the digits that flat areas need. SSIM takes the sum of the two
    variances only, so four filtered maps do: E[x], E[y], E[xy] and E[x² + y²].
    """
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    maps = torch.stack([x, y, x * y, (x * x).addcmul_(y, y)])
    mean_x, mean_y, mean_xy, mean_squares = _filtered(_filtered(maps).mT.contiguous())
    product, squares = mean_x * mean_y, (mean_x * mean_x).addcmul_(mean_y, mean_y)
    covariance, variances = mean_xy.sub_(product), mean_squares.sub_(squares)
    numerator = product.mul_(2).add_(c1) * covariance.mul_(2).add_(c2)
    return numerator.div_(squares.add_(c1).mul_(variances.add_(c2)))


def _filtered(img: Tensor) -> Tensor:
    """Every column under the Gaussian window: (..., H, W) -> (..., H - 10, W). A sum of shifted images is quick."""
    gauss = torch.signal.windows.gaussian(WINDOW_SIZE, std=WINDOW_SIGMA, dtype=torch.float64)
    first, *others = (gauss / gauss.sum()).tolist()
    height = img.shape[-2] - WINDOW_SIZE + 1
    total = img[..., :height, :] * first
    for shift, weight in enumerate(others, 1):
        total.add_(img[..., shift : shift + height, :], alpha=weight)
    return total


def ssim_loss(sr_img: Tensor, hr_img: Tensor) -> Tensor:
    """1 - SSIM, the mean over a batch in [0, 1], for training: it has a gradient, and computes in float32.

    sr_img, hr_img: (N, 3, H, W) in [0, 1], sides of 11 pixels or more. Constants as in `ssim`, valid windows.
    bfloat16 would lose E[x²] - E[x]² altogether, so mixed precision is switched off here. Source: Zhao et al. 2017,
    "Loss functions for image restoration with neural networks".
    """
    from pytorch_msssim import ssim as differentiable_ssim

    with torch.autocast(sr_img.device.type, enabled=False):
        return 1 - differentiable_ssim(sr_img.float(), hr_img.float(), data_range=1.0)


# --- perceived quality, without a reference ---------------------------------------------------------------------------

NIQE_BLOCK = 96  # side of the blocks that statistics are taken from


class NIQE:
    """How far an image's local statistics are from those of photographs: lower is better. No reference image and no
    trained network are needed. Source: Mittal et al. 2013, "Making a completely blind image quality analyzer".

    photographs: RGB images (3, H, W), float in [0, 1]; those with a side under 96 are passed over. The paper's 125
    photographs are others, so scores compare only under one set of photographs. Differs from the authors' code besides
    in the luma (BT.601 in limited range, as elsewhere here), in halving with the framework's antialiased bicubic, and
    in leaving out flat blocks altogether. An image of few blocks (256x256 has four) gives a rough score.
    """

    def __init__(self, photographs: Iterable[Tensor]):
        features = []
        for img in (img for img in photographs if min(img.shape[1:]) >= NIQE_BLOCK):
            block_features, sharpness = _block_features(img)
            features.append(block_features[sharpness > 0.75 * sharpness.max()])
        self.mean, self.covariance = _statistics(torch.cat([torch.empty(0, 36), *features]))
        _require(self.mean.isfinite().all(), f"NIQE needs photographs, not flat, with sides >= {NIQE_BLOCK}; got none.")

    def state(self) -> dict[str, Tensor]:
        """What the photographs gave, to be stored: `NIQE.from_state` scores without them."""
        return {"mean": self.mean, "covariance": self.covariance}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "NIQE":
        niqe = cls.__new__(cls)
        niqe.mean, niqe.covariance = (state[name].double() for name in ("mean", "covariance"))
        return niqe

    def score(self, img: Tensor) -> float:
        """NIQE of one image (3, H, W), or of several (N, 3, H, W) taken together; float in [0, 1], sides >= 96.

        nan for a flat image, which has no statistics.
        """
        features = torch.cat([_block_features(one)[0] for one in (img if img.ndim == 4 else img[None])])
        mean, covariance = _statistics(features)
        difference = (mean - self.mean)[:, None]
        return (difference.T @ torch.linalg.pinv((covariance + self.covariance) / 2) @ difference).sqrt().item()


def _statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance over the blocks that are not flat, which have no shape to fit; a mean of nan if all are."""
    features = features[features.isfinite().all(1)].double()
    covariance = features.T.cov() if len(features) > 1 else features.new_zeros(36, 36)
    return features.mean(0), covariance


@torch.no_grad()
def _block_features(img: Tensor) -> tuple[Tensor, Tensor]:
    """(blocks, 36) features, 18 at each of two scales, and (blocks,) sharpness: the mean local contrast."""
    fits = img.ndim == 3 and img.shape[0] == 3 and img.is_floating_point() and min(img.shape[1:]) >= NIQE_BLOCK
    _require(fits, f"a float image (3, H, W) with sides >= {NIQE_BLOCK} was expected, found {tuple(img.shape)}.")
    height, width = (side // NIQE_BLOCK * NIQE_BLOCK for side in img.shape[1:])
    luma = _luma(img[None, :, :height, :width].double()) * 255 + 16
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


def chroma_error(img: Tensor, truth: Tensor) -> Tensor:
    """Root mean square distance of CIELAB's a and b (D65), lightness left out, of each image: (N, 3, H, W) -> (N,)
    float64. 0 for the true colours; a grey image's error is how colourful the truth is. Errors as in `psnr`.
    """
    from skimage.color import rgb2lab

    img, truth = _checked(img, truth)
    _check_range(1.0, img=img, truth=truth)
    lab, true_lab = (rgb2lab(x.detach().cpu().double().numpy(), channel_axis=1) for x in (img, truth))
    return torch.from_numpy(lab - true_lab)[:, 1:].square().sum(1).mean((1, 2)).sqrt()


def colourfulness(img: Tensor) -> Tensor:
    """How colourful each image is, without a reference: (N, 3, H, W) in [0, 1] -> (N,) float64, 0 for grey.

    Source: Hasler and Süsstrunk 2003, "Measuring colourfulness in natural images", their third measure, on 0 to 255.
    People called images of 15 slightly, of 45 quite and of 82 highly colourful.
    """
    _checked(img, img)
    _check_range(1.0, img=img)
    red, green, blue = (img.double() * 255).unbind(1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue]).flatten(2)
    spread, shift = opponents.std(2, correction=0).norm(dim=0), opponents.mean(2).norm(dim=0)
    return spread + 0.3 * shift


# --- protocols --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Protocol:
    """What a PSNR or SSIM is measured on. border: "scale" (as many pixels as the scale factor) or "none"."""

    channel: str
    border: str
    window: str
    label: str


PROTOCOLS = {
    "literature": Protocol("y", "scale", "valid", "the literature's: Y, a border of the scale shaved"),
    "rgb": Protocol("rgb", "none", "valid", "RGB, whole image"),
    "reference": Protocol("rgb", "none", "zero", "the course document's: RGB, whole image, zero-padded SSIM window"),
}


def _rules(name: str) -> Protocol:
    _require(name in PROTOCOLS, f"protocol must be one of {', '.join(PROTOCOLS)}, found {name!r}.")
    return PROTOCOLS[name]


def border_of(protocol: str, scale_factor: int) -> int:
    """How many pixels a protocol shaves off each side."""
    is_whole = scale_factor >= 1 and scale_factor == int(scale_factor)
    _require(is_whole, f"scale_factor must be a whole number >= 1, found {scale_factor}.")
    return int(scale_factor) if _rules(protocol).border == "scale" else 0


def quantize(img: Tensor) -> Tensor:
    """The image as a file would hold it: floating point, clamped to [0, 1] and rounded to 8 bits, k / 255."""
    is_finite = img.is_floating_point() and img.isfinite().all()
    _require(is_finite, f"A finite floating-point image was expected, found {img.dtype}, or nan or inf in it.")
    return img.clamp(0, 1).mul(255).round().div(255)


def evaluate(sr_img: Tensor, hr_img: Tensor, protocol: str = "literature", scale_factor: int = 2) -> dict[str, Tensor]:
    """PSNR and SSIM under a protocol of `PROTOCOLS`: {"psnr_db": (N,), "ssim": (N,)}, one value per image.

    sr_img, hr_img: (N, 3, H, W). sr_img may leave [0, 1]: it is clamped and rounded to 8 bits first, as on
    disk (`quantize`); hr_img is taken as it is. scale_factor is the border where the protocol shaves one.
    Errors as in `psnr`.
    """
    rules, border = _rules(protocol), border_of(protocol, scale_factor)
    pair = quantize(sr_img), hr_img
    similarity = ssim(*pair, rules.channel, border, window=rules.window)
    return {"psnr_db": psnr(*pair, rules.channel, border), "ssim": similarity}


def protocol_label(metric: str, protocol: str = "literature", scale_factor: int = 2) -> str:
    """A metric's name with its protocol, as "PSNR (dB, Y, border 2)". metric: "psnr_db" or "ssim"."""
    rules, border = _rules(protocol), border_of(protocol, scale_factor)
    _require(metric in ("psnr_db", "ssim"), f"metric must be 'psnr_db' or 'ssim', found {metric!r}.")
    where = f"{rules.channel.upper()}, " + (f"border {border}" if border else "whole image")
    if metric == "psnr_db":
        return f"PSNR (dB, {where})"
    return f"SSIM ({where}{', zero-padded' if rules.window == 'zero' else ''})"


# --- classification ---------------------------------------------------------------------------------------------------


def _check_scores(scores: Tensor, labels: Tensor, name: str) -> None:
    fit = scores.ndim == 2 and len(scores) and labels.shape == scores.shape[:1] and not labels.is_floating_point()
    found = f"{tuple(scores.shape)} and {tuple(labels.shape)} of {labels.dtype}"
    _require(fit, f"{name} (N, C) and whole-number labels (N,) were expected, found {found}.")
    _require(scores.isfinite().all(), f"finite {name} were expected, found nan or inf.")


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of images, 0 to 1, whose largest logit is the label's. logits: (N, C), labels: (N,) integers."""
    _check_scores(logits, labels, "logits")
    return (logits.argmax(1) == labels).sum().item() / len(labels)


def confusion_matrix(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """How often each class was predicted as each class: (C, C) int64, rows true, columns predicted.

    predictions, labels: (N,) class numbers below num_classes.
    """
    for name, classes in (("predictions", predictions), ("labels", labels)):
        _require(
            classes.ndim == 1 and len(classes) == len(labels) and not classes.is_floating_point(),
            f"{name} must be (N,) class numbers, as many as labels ({len(labels)}), found {tuple(classes.shape)} of "
            f"{classes.dtype}. Of logits, pass logits.argmax(1).",
        )
        low, high = (value.item() for value in classes.aminmax()) if len(classes) else (0, 0)
        fits = low >= 0 and high < num_classes
        _require(fits, f"{name} must be 0 to {num_classes - 1} ({num_classes} classes), found {low} to {high}.")
    cells = labels.long() * num_classes + predictions.long()
    return cells.bincount(minlength=num_classes**2).view(num_classes, num_classes)


def calibration_bins(probabilities: Tensor, labels: Tensor, num_bins: int = 15) -> dict[str, Tensor]:
    """The reliability curve's table: images grouped by their predicted class's probability (Guo et al. 2017).

    probabilities: (N, C), rows that sum to 1 (to 1e-3); labels: (N,) integers. Bins are equally wide, open
    below and closed above. Returns (num_bins,) tensors: "low" and "high" (the edges), "count", "confidence"
    (mean probability) and "accuracy", the last two nan where a bin is empty.
    """
    _check_scores(probabilities, labels, "probabilities")
    _require(num_bins >= 1, f"num_bins must be 1 or more, found {num_bins}.")
    sum_to_1 = probabilities.min() >= 0 and (probabilities.sum(1) - 1).abs().max() <= 1e-3
    _require(sum_to_1, "probabilities must be >= 0 in rows that sum to 1. Apply softmax(1) to logits.")
    confidence, prediction = probabilities.double().max(1)
    edges = torch.linspace(0, 1, num_bins + 1, dtype=torch.float64, device=confidence.device)
    bins = torch.bucketize(confidence, edges[1:-1])
    count = bins.bincount(minlength=num_bins)
    correct = (prediction == labels).double()
    confidence, accuracy = (bins.bincount(value, minlength=num_bins) / count for value in (confidence, correct))
    return {"low": edges[:-1], "high": edges[1:], "count": count, "confidence": confidence, "accuracy": accuracy}


def expected_calibration_error(probabilities: Tensor, labels: Tensor, num_bins: int = 15) -> float:
    """Mean distance, 0 to 1, of confidence from accuracy over `calibration_bins` (Guo et al. 2017)."""
    bins = calibration_bins(probabilities, labels, num_bins)
    gap = (bins["confidence"] - bins["accuracy"]).abs().nan_to_num(0)
    return ((gap * bins["count"]).sum() / bins["count"].sum()).item()


# --- paired comparisons on the same test images -----------------------------------------------------------------------


def _differences(a: Tensor, b: Tensor, of_numbers: bool = False) -> Tensor:
    """a less b on each image, the mean over S pairs of networks where there are several: (N,) float64."""
    fit = a.shape[-1] > 1 if of_numbers else a.dtype == b.dtype == torch.bool
    wanted = "numbers, of two or more images" if of_numbers else "torch.bool, one entry per image"
    _require(
        fit and a.shape == b.shape and a.ndim in (1, 2) and a.numel(),
        f"(N,) or (S, N) {wanted}, were expected, both alike, "
        f"found {tuple(a.shape)} of {a.dtype} and {tuple(b.shape)} of {b.dtype}.",
    )
    return torch.atleast_2d(a.double() - b.double()).mean(0)


def paired_bootstrap(
    correct_a: Tensor, correct_b: Tensor, num_resamples: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Accuracy of a less that of b on the same images, with its 95 % interval: (difference, low, high).

    correct_a, correct_b: (N,) bool, whether each image was classified correctly; or (S, N), by S pairs of networks,
    whose mean difference on each image then counts. Percentile bootstrap over the images (Efron 1979). Drawing images
    anew only changes how often each possible difference occurs, so these counts are drawn instead.
    """
    _require(num_resamples >= 1, f"num_resamples must be 1 or more, found {num_resamples}.")
    gained = _differences(correct_a, correct_b)
    values, counts = gained.unique(return_counts=True)
    total = len(gained)
    drawn = np.random.default_rng(seed).multinomial(total, (counts / total).tolist(), size=num_resamples)
    low, high = np.quantile(drawn @ values.numpy() / total, [0.025, 0.975]).tolist()
    return gained.mean().item(), low, high


def paired_interval(values_a: Tensor, values_b: Tensor) -> tuple[float, float, float]:
    """Mean of a less that of b on the same images, with its 95 % interval: (difference, low, high).

    values_a, values_b: (N,) numbers such as PSNRs; or (S, N), by S pairs of networks, as in `paired_bootstrap`. The
    differences' mean is taken as normal, as that of thousands of images is.
    """
    gained = _differences(values_a, values_b, of_numbers=True)
    margin = 1.959964 * gained.std().item() / len(gained) ** 0.5
    return gained.mean().item(), gained.mean().item() - margin, gained.mean().item() + margin


def mcnemar(correct_a: Tensor, correct_b: Tensor) -> float:
    """p value of "both classifiers are equally good" (McNemar 1947, exact, two-sided).

    correct_a, correct_b: (N,) bool, on the same images. Only images that exactly one has right count; 1.0 where there
    is none.
    """
    from scipy.stats import binomtest  # comes with scikit-image, and takes long to import

    _require(correct_a.ndim == 1, f"correct_a must be (N,), one classifier's, found {tuple(correct_a.shape)}.")
    gained = _differences(correct_a, correct_b)
    won, lost = (gained > 0).sum().item(), (gained < 0).sum().item()
    return float(binomtest(won, won + lost, 0.5).pvalue) if won + lost else 1.0


def compare(correct_a: Tensor, correct_b: Tensor) -> dict[str, float | list[float]]:
    """Accuracy of a less that of b in percentage points: "points", the 95 % interval "low" and "high" by
    `paired_bootstrap`, and "by_seed", each pair of networks on its own. correct_a, correct_b: (N,) or (S, N) bool.
    """
    points, low, high = (100 * value for value in paired_bootstrap(correct_a, correct_b))
    by_seed = 100 * torch.atleast_2d(correct_a.double() - correct_b.double()).mean(1)
    return {"points": points, "low": low, "high": high, "by_seed": by_seed.tolist()}


def direction(low: float, high: float, by_seed: Sequence[float], **_) -> str:
    """"helps" or "harms" where a difference's interval and every training seed agree, else "neither".

    Takes what `compare` returns: direction(**compare(correct_a, correct_b)).
    """
    if low > 0 and min(by_seed) > 0:
        return "helps"
    return "harms" if high < 0 and max(by_seed) < 0 else "neither"


def signed(value: float) -> str:
    """+0.50, −0.25 (with a minus sign, not a hyphen), and 0.00 for what rounds to it."""
    text = f"{value:+.2f}"
    return text.replace("-", "−") if float(text) else "0.00"
