"""How good an image is, and how good a classification is.

Channel and border move a PSNR by up to 2 dB, so every value belongs to a protocol of `PROTOCOLS`, and
`protocol_label` writes it into a table's header. Measures of images return one value per image.
"""

from collections import namedtuple
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tools.images import imresize

WINDOW_SIZE, WINDOW_SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03  # SSIM's constants, Wang et al. 2004
BAND = 22  # values that one product with SSIM's band matrix gives: a 32x32 image's
NIQE_BLOCK = 96  # side of the blocks that NIQE's statistics are taken from
NIQE_PARAMETERS = Path(__file__).parent / "tools" / "niqe_parameters.txt"
RANGE_TOLERANCE = 1e-3  # of data_range: what resizing and half precision may overshoot

# --- image quality ----------------------------------------------------------------------------------------------------


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _check_shapes(channel="rgb", border=0, data_range=1.0, min_side=1, **images: Tensor) -> None:
    """The images must be floating-point, of one shape, and large enough for the border to be shaved off."""
    _require(channel in ("rgb", "y"), f"channel must be 'rgb' or 'y', found {channel!r}.")
    _require(0 < data_range < torch.inf, f"data_range must be a positive number (1.0 for [0, 1]), found {data_range}.")
    wanted = "(N, 3, H, W)" if channel == "y" else "(N, 3, H, W) or (N, 1, H, W)"
    for name, img in images.items():
        found = f"{type(img).__name__} of {getattr(img, 'dtype', 'no dtype')}"
        is_float = torch.is_tensor(img) and img.is_floating_point()
        _require(is_float, f"{name} must be a floating-point tensor, found {found}. Divide uint8 by 255.")
        is_batch = img.ndim == 4 and img.shape[1] in ((3,) if channel == "y" else (1, 3)) and img.numel()
        hint = " One image goes in as img[None]." if img.ndim == 3 else ""
        _require(is_batch, f"{name} must be {wanted} for channel {channel!r}, found {tuple(img.shape)}.{hint}")
    names, shapes = " and ".join(images), " and ".join(str(tuple(img.shape)) for img in images.values())
    alike = len({img.shape for img in images.values()}) == 1
    _require(alike, f"{names} must have one shape, found {shapes}. Crop hr_img to a multiple of the scale.")
    height, width = img.shape[-2:]
    fits = isinstance(border, int) and border >= 0 and min(height, width) - 2 * border >= min_side
    _require(fits, f"border must be a whole number >= 0 that leaves {min_side} or more pixels a side, "
                   f"found border {border} on {height}x{width}.")  # fmt: skip


def _check_range(name: str, low: Tensor, high: Tensor, data_range: float = 1.0) -> None:
    """The lowest and the highest value, both nan if a pixel is, must be in [0, data_range]."""
    low, high, slack = low.item(), high.item(), RANGE_TOLERANCE * data_range
    in_range = low >= -slack and high <= data_range + slack
    _require(in_range, f"{name} must be finite and in [0, {data_range:g}] (to {slack:g}), found {low:.4g} to "
                       f"{high:.4g}. Clamp it, or say its data_range.")  # fmt: skip


def _pieces(sr_img: Tensor, hr_img: Tensor, border: int, data_range: float, num_values: int) -> Iterator[list[Tensor]]:
    """A few images at a time, without border, in float32 at least: on a CPU about `num_values`, which stay in its
    cache. Their range is read there too, and checked after the last piece.
    """
    num_images = max(1, (num_values if hr_img.device.type == "cpu" else 2**24) // hr_img[0].numel())
    inside = (..., *(slice(border, side - border) for side in hr_img.shape[-2:]))
    extremes = {"sr_img": [], "hr_img": []}
    for pair in zip(sr_img.split(num_images), hr_img.split(num_images), strict=True):
        for found, img in zip(extremes.values(), pair, strict=True):
            found.append(img.aminmax())
        yield [img[inside].to(torch.promote_types(img.dtype, torch.float32)) for img in pair]
    for name, found in extremes.items():
        lows, highs = (torch.stack(values) for values in zip(*found, strict=True))
        _check_range(name, lows.min(), highs.max(), data_range)


def _luma(img: Tensor) -> Tensor:
    """Y of BT.601 without its offset, (N, 3, H, W) -> (N, 1, H, W): from black to white it grows by 219/255."""
    red, green, blue = img.unbind(1)
    return (red * (65.481 / 255)).add_(green, alpha=128.553 / 255).add_(blue, alpha=24.966 / 255).unsqueeze(1)


@torch.no_grad()
def psnr(sr_img: Tensor, hr_img: Tensor, channel: str = "rgb", border: int = 0, data_range: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio of each image, in dB: 10 log10(data_range² / MSE), inf for identical images.

    sr_img, hr_img: (N, 3, H, W), or (N, 1, H, W) for channel "rgb", float in [0, data_range], or a thousandth of it
    outside -> (N,) float64. channel: "rgb" takes the MSE over all channels; "y" is the literature's luma, BT.601 in
    limited range, not rounded: (65.481 R + 128.553 G + 24.966 B + 16) / 255 for images in [0, 1], peak still 1.
    border: pixels shaved off each side first.
    """
    _check_shapes(channel, border, data_range, sr_img=sr_img, hr_img=hr_img)
    mse = []
    for sr, hr in _pieces(sr_img, hr_img, border, data_range, num_values=2**17):
        difference = _luma(sr - hr) if channel == "y" else sr - hr
        mse.append(difference.square_().mean((1, 2, 3)).double())
    return 10 * torch.log10(data_range**2 / torch.cat(mse))


def restoration_scores(restored: Tensor, truth: Tensor, visible: Tensor) -> dict[str, Tensor]:
    """Of each image, (N, 3, H, W) in [0, 1], restored rounded to 8 bits: psnr_db and ssim, and where `visible` is 0
    somewhere (a mask) PSNR `inside` and `outside` of it. A region hit exactly counts as half a level off, 54 dB.
    """
    restored = quantize(restored)
    regions = {"psnr_db": torch.ones_like(visible), "inside": 1 - visible, "outside": visible}
    scores = {"ssim": ssim(restored, truth)}
    for name, region in regions.items():
        if (size := region.sum((1, 2, 3))).min() > 0:
            mse = ((restored - truth).square() * region).sum((1, 2, 3)) / size
            scores[name] = -10 * mse.clamp(min=(0.5 / 255) ** 2).log10()
    return scores


@torch.no_grad()
def ssim(
    sr_img: Tensor, hr_img: Tensor, channel: str = "rgb", border: int = 0, data_range: float = 1.0,
    window: str = "valid",
) -> Tensor:
    """Structural similarity of each image, in [-1, 1], 1 for identical images (Wang et al. 2004).

    Images, channel and border as in `psnr`, -> (N,) float64; RGB is the mean over the channels. Gaussian window of
    11x11, population covariance. window: "valid" counts full windows only, as MATLAB's ssim_index does; "zero" one
    around every pixel, zeros outside the image (the course document).
    """
    _require(window in ("valid", "zero"), f"window must be 'valid' or 'zero', found {window!r}.")
    _check_shapes(channel, border, data_range, WINDOW_SIZE, sr_img=sr_img, hr_img=hr_img)
    num_images = len(hr_img)
    margin, offset, values = WINDOW_SIZE // 2 if window == "zero" else 0, 16 / 255 * data_range, []
    if channel == "rgb":  # each channel is an image of its own
        sr_img, hr_img = (img.reshape(-1, 1, *img.shape[2:]) for img in (sr_img, hr_img))
    for pair in _pieces(sr_img, hr_img, border, data_range, num_values=2**17):
        x, y = (_luma(img.double()) + offset if channel == "y" else img for img in pair)
        x, y = ((F.pad(img, [margin] * 4) if margin else img).squeeze(1) for img in (x, y))
        height, width = (side - WINDOW_SIZE + 1 for side in x.shape[1:])
        strip = BAND * max(1, 2**17 // (BAND * width))  # rows at a time: in float64 they stay in the cache
        rows = [slice(top, top + strip + WINDOW_SIZE - 1) for top in range(0, height, strip)]
        values.append(sum(_ssim_sum(x[:, row], y[:, row], data_range) for row in rows) / (height * width))
    return torch.cat(values).view(num_images, -1).mean(1)


def _ssim_sum(x: Tensor, y: Tensor, data_range: float) -> Tensor:
    """SSIM wherever a full window fits, added up: (N, H, W) -> (N,) float64. In float32, E[x²] - E[x]² would lose the
    digits that flat areas need. Only the sum of the two variances counts, so E[x² + y²] is one map.
    """
    (num, height, width), (c1, c2) = x.shape, ((K * data_range) ** 2 for K in (K1, K2))
    maps = x.new_empty(4, num, height, width, dtype=torch.float64)
    maps[0], maps[1] = x, y
    x, y, xy, squares = maps
    torch.mul(x, y, out=xy)
    torch.mul(x, x, out=squares).addcmul_(y, y)
    means = _filtered(_filtered(maps.view(-1, width)).view(-1, height))
    x, y, xy, squares = means.view(len(means), -1, 4, num).unbind(2)
    product, square = x * y, (x * x).addcmul_(y, y)
    variances, covariances = squares.sub_(square), xy.sub_(product)
    above = product.mul_(2).add_(c1).mul_(covariances.mul_(2).add_(c2))
    return above.div_(square.add_(c1).mul_(variances.add_(c2))).sum((0, 1))


def _filtered(maps: Tensor) -> Tensor:
    """Every row under the Gaussian window, and transposed: (K, W) -> (W - 10, K). Products with band matrices pass over
    memory once.
    """
    num, parts = maps.shape[1] - WINDOW_SIZE + 1, []
    if whole := num // BAND * BAND:
        blocks = maps[:, : whole + WINDOW_SIZE - 1].unfold(1, BAND + WINDOW_SIZE - 1, BAND).permute(1, 2, 0)
        parts.append((_band(BAND, maps.device) @ blocks).flatten(0, 1))
    if rest := num % BAND:
        parts.append(_band(rest, maps.device) @ maps[:, whole:].T)
    return torch.cat(parts) if len(parts) > 1 else parts[0]  # cat would copy


@lru_cache
def _band(num: int, device: torch.device) -> Tensor:
    """The Gaussian window in each row, one column further right: (num, num + 10) float64."""
    gauss = torch.signal.windows.gaussian(WINDOW_SIZE, std=WINDOW_SIGMA, dtype=torch.float64)
    return torch.stack([F.pad(gauss / gauss.sum(), (i, num - 1 - i)) for i in range(num)]).to(device)


def ssim_loss(sr_img: Tensor, hr_img: Tensor) -> Tensor:
    """1 - SSIM, the mean over a batch, with a gradient (Zhao et al. 2017). bfloat16 would lose E[x²] - E[x]²."""
    from pytorch_msssim import ssim as differentiable_ssim

    with torch.autocast(sr_img.device.type, enabled=False):
        return 1 - differentiable_ssim(sr_img.float(), hr_img.float(), data_range=1.0)


# --- perceived quality, without a reference ---------------------------------------------------------------------------


class NIQE:
    """How far an image's local statistics are from those of photographs, the authors' 125; lower is better. Source:
    Mittal et al. 2013, and the authors' code. Differs in the luma, which is Y of BT.601, 16 to 235, rounded, as papers
    on super-resolution feed it. An image of few blocks (256x256 has four) gives a rough score.
    """

    def __init__(self):
        self.mean, lower = torch.from_numpy(np.loadtxt(NIQE_PARAMETERS)).flatten().tensor_split([36])
        row, column = torch.tril_indices(36, 36)
        self.covariance = lower.new_empty(36, 36)
        self.covariance[row, column] = self.covariance[column, row] = lower

    def score(self, img: Tensor) -> float:
        """NIQE of an image (3, H, W), or of (N, 3, H, W) together; float in [0, 1], sides >= 96. nan for a flat one."""
        features = torch.cat([_block_features(one) for one in (img if img.ndim == 4 else img[None])])
        whole = features[features.isfinite().all(1)]  # a flat block has but its shape
        covariance = whole.T.cov() if len(whole) > 1 else features.new_zeros(36, 36)
        difference = (features.nanmean(0) - self.mean)[:, None]
        return (difference.T @ torch.linalg.pinv((covariance + self.covariance) / 2) @ difference).sqrt().item()


@torch.no_grad()
def _block_features(img: Tensor) -> Tensor:
    """Of each block of an image (3, H, W), 18 features at each of two scales: (blocks, 36) float64."""
    fits = img.ndim == 3 and img.shape[0] == 3 and img.is_floating_point() and min(img.shape[1:]) >= NIQE_BLOCK
    _require(fits, f"a float image (3, H, W) with sides >= {NIQE_BLOCK} was expected, found {tuple(img.shape)}.")
    height, width = (side // NIQE_BLOCK * NIQE_BLOCK for side in img.shape[1:])
    luma = (_luma(img[None, :, :height, :width].double()) * 255 + 16).round()
    gauss = torch.signal.windows.gaussian(7, std=7 / 6, dtype=luma.dtype, device=luma.device)
    window = torch.outer(gauss, gauss)[None, None] / gauss.sum() ** 2
    features = []
    for side in (NIQE_BLOCK, NIQE_BLOCK // 2):
        padded = F.pad(luma, (3, 3, 3, 3), mode="replicate")
        mean = F.conv2d(padded, window)
        contrast = (F.conv2d(padded**2, window) - mean**2).abs().sqrt()
        normalized = (luma - mean) / (contrast + 1)
        normalized[normalized.abs() < 1e-9] = 0  # a flat area: the sign of a rounding error would count
        blocks = normalized[0, 0].unfold(0, side, side).unfold(1, side, side).reshape(-1, side, side)
        shape, _, left, right = _fit_asymmetric(blocks.flatten(1))
        features += [shape, (left + right) / 2]
        for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):  # how a pixel goes with its neighbor
            features += _fit_asymmetric((blocks * blocks.roll(shift, (1, 2))).flatten(1))
        luma = imresize(luma, 0.5)
    return torch.stack(features, 1)


def _fit_asymmetric(values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Asymmetric generalized Gaussians fitted to the rows of (B, K) (Lasmar et al. 2009): shape, mean, left and right
    scale, (B,) each. Shape 2 is a Gaussian, 1 a Laplacian.
    """
    shapes = torch.arange(0.2, 10.0005, 0.001, dtype=values.dtype, device=values.device)
    ratios = (2 * torch.lgamma(2 / shapes) - torch.lgamma(1 / shapes) - torch.lgamma(3 / shapes)).exp()
    left, right = ((values.square() * side).sum(1).div(side.sum(1)).sqrt() for side in (values < 0, values > 0))
    skew = left / right
    ratio = values.abs().mean(1).square() / values.square().mean(1)
    ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = shapes[(ratios - ratio[:, None]).abs().argmin(1)]  # the first, 0.2, where all are nan, as in MATLAB
    scale = ((torch.lgamma(1 / shape) - torch.lgamma(3 / shape)) / 2).exp()
    mean = (right - left) * scale * (torch.lgamma(2 / shape) - torch.lgamma(1 / shape)).exp()
    return shape, mean, left * scale, right * scale


# --- color ------------------------------------------------------------------------------------------------------------


def chroma_error(img: Tensor, truth: Tensor) -> Tensor:
    """Root mean square distance of CIELAB's a and b (D65), not its lightness: (N, 3, H, W) in [0, 1] -> (N,)."""
    from skimage.color import rgb2lab

    _check_shapes(img=img, truth=truth)
    for name, image in (("img", img), ("truth", truth)):
        _check_range(name, *image.aminmax())
    lab, true_lab = (rgb2lab(x.detach().cpu().double().numpy(), channel_axis=1) for x in (img, truth))
    return torch.from_numpy(lab - true_lab)[:, 1:].square().sum(1).mean((1, 2)).sqrt()


def colorfulness(img: Tensor) -> Tensor:
    """How colorful each image is: (N, 3, H, W) in [0, 1] -> (N,) float64, 0 for gray. The third measure of Hasler and
    Süsstrunk 2003, on 0 to 255; people called images of 15 slightly, of 45 quite and of 82 highly colorful.
    """
    _check_shapes(img=img)
    _check_range("img", *img.aminmax())
    red, green, blue = (img.double() * 255).unbind(1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue]).flatten(2)
    spread, shift = opponents.std(2, correction=0).norm(dim=0), opponents.mean(2).norm(dim=0)
    return spread + 0.3 * shift


# --- protocols --------------------------------------------------------------------------------------------------------

Protocol = namedtuple("Protocol", "channel shaves window")  # shaves: a border as wide as the scale factor
PROTOCOLS = {
    "literature": Protocol("y", True, "valid"),
    "rgb": Protocol("rgb", False, "valid"),
    "reference": Protocol("rgb", False, "zero"),  # the course document's: SSIM's window is padded with zeros
}


def _rules(name: str) -> Protocol:
    _require(name in PROTOCOLS, f"protocol must be one of {', '.join(PROTOCOLS)}, found {name!r}.")
    return PROTOCOLS[name]


def border_of(protocol: str, scale_factor: int) -> int:
    """How many pixels a protocol shaves off each side."""
    return scale_factor if _rules(protocol).shaves else 0


def quantize(img: Tensor) -> Tensor:
    """The image as a file would hold it: floating point, clamped to [0, 1] and rounded to 8 bits, k / 255."""
    is_finite = img.is_floating_point() and img.isfinite().all()
    _require(is_finite, f"A finite floating-point image was expected, found {img.dtype}, or nan or inf in it.")
    return img.clamp(0, 1).mul(255).round().div(255)


def evaluate(sr_img: Tensor, hr_img: Tensor, protocol: str = "literature", scale_factor: int = 2) -> dict[str, Tensor]:
    """{"psnr_db": (N,), "ssim": (N,)} under a protocol, of sr_img (N, 3, H, W), `quantize`d first. hr_img may be
    (N, 1, H, W), of files stored gray, as one of Set14 is: on luma the literature takes them as they are, not squeezed
    into 16 to 235, so sr_img's full-range luma, 0.299 R + 0.587 G + 0.114 B, stands against them.
    """
    rules, sr_img, channel = _rules(protocol), quantize(sr_img), _rules(protocol).channel
    if sr_img.shape[1:2] == (3,) and hr_img.ndim == 4 and hr_img.shape[1] == 1:
        if channel == "y":
            sr_img, channel = _luma(sr_img) * (255 / 219), "rgb"
        hr_img = hr_img.expand(-1, sr_img.shape[1], -1, -1)
    given = sr_img, hr_img, channel, border_of(protocol, scale_factor)
    return {"psnr_db": psnr(*given), "ssim": ssim(*given, window=rules.window)}


def protocol_label(metric: str, protocol: str = "literature", scale_factor: int = 2) -> str:
    """A metric's name with its protocol, as "PSNR (dB, Y, border 2)". metric: "psnr_db" or "ssim"."""
    rules, border = _rules(protocol), border_of(protocol, scale_factor)
    where = f"{rules.channel.upper()}, " + (f"border {border}" if border else "whole image")
    padded = ", zero-padded" if rules.window == "zero" else ""
    return {"psnr_db": f"PSNR (dB, {where})", "ssim": f"SSIM ({where}{padded})"}[metric]


# --- classification ---------------------------------------------------------------------------------------------------


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of images whose largest logit is the label's. logits: (N, C), labels: (N,) integers."""
    fit = logits.ndim == 2 and len(logits) and labels.shape == logits.shape[:1] and not labels.is_floating_point()
    found = f"{tuple(logits.shape)} and {tuple(labels.shape)} of {labels.dtype}"
    _require(fit, f"logits (N, C) and whole-number labels (N,) were expected, found {found}.")
    _require(logits.isfinite().all(), "finite logits were expected, found nan or inf.")
    return (logits.argmax(1) == labels).sum().item() / len(labels)


def confusion_matrix(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """How often each class was predicted as each: (N,) and (N,) class numbers -> (C, C) int64, rows true."""
    for name, classes in (("predictions", predictions), ("labels", labels)):
        fits = classes.ndim == 1 and len(classes) == len(labels) and not classes.is_floating_point()
        fits = fits and ((classes >= 0) & (classes < num_classes)).all()
        _require(fits, f"{name} must be {len(labels)} class numbers from 0 to {num_classes - 1}, found "
                       f"{tuple(classes.shape)} of {classes.dtype}. Of logits, pass logits.argmax(1).")  # fmt: skip
    cells = labels.long() * num_classes + predictions.long()
    return cells.bincount(minlength=num_classes**2).view(num_classes, num_classes)


# --- paired comparisons on the same test images -----------------------------------------------------------------------


def _differences(a: Tensor, b: Tensor, fit: bool, wanted: str) -> Tensor:
    """a less b by each of S pairs of networks on each image, the mean over axes between the two: (S, N) float64."""
    fit = fit and a.shape == b.shape and 1 <= a.ndim <= 3 and a.numel()
    found = f"{tuple(a.shape)} of {a.dtype} and {tuple(b.shape)} of {b.dtype}"
    _require(fit, f"(N,), (S, N) or (S, D, N) {wanted}, were expected, both alike, found {found}.")
    each = torch.atleast_2d(a.double() - b.double())
    return each.reshape(len(each), -1, each.shape[-1]).mean(1)


def paired_interval(values_a: Tensor, values_b: Tensor) -> tuple[float, float, float]:
    """Mean of a less that of b on the same images, with its 95 % interval: (difference, low, high).

    Of numbers, or bool as right or wrong, (N,) on N images, it covers the choice of images; (S, N) by S pairs of
    networks, each from a random seed of its own: images and seeds, which cross (Owen 2007); (S, D, N) with D
    degradations: the same for an image's mean over them, other degradations are not covered.
    The margin is the root of the sum of two squares (Zou and Donner 2008): that over images of the mean over seeds, and
    that over seeds of the mean over images, with Student's t of S - 1 degrees of freedom (4.30 for three seeds). What
    depends on image and seed together is in both, so the interval covers a little more than 95 %, never less.
    """
    from scipy.special import stdtrit

    gained = _differences(values_a, values_b, values_a.shape[-1] > 1, "numbers, of two or more images")
    num_seeds, num_images = gained.shape
    mean, variance = gained.mean().item(), 1.959964**2 * gained.mean(0).var().item() / num_images
    if num_seeds > 1:
        variance += stdtrit(num_seeds - 1, 0.975).item() ** 2 * gained.mean(1).var().item() / num_seeds
    return mean, mean - variance**0.5, mean + variance**0.5


def compare(correct_a: Tensor, correct_b: Tensor) -> dict[str, float | str | list[float]]:
    """Accuracy of a less that of b in percentage points: "points", its interval "low" to "high" by `paired_interval`,
    and what that "covers", and "by_seed", each pair of networks on its own. (N,), (S, N) or (S, D, N) bool.
    """
    are_bool = correct_a.dtype == correct_b.dtype == torch.bool
    by_seed = _differences(correct_a, correct_b, are_bool, "torch.bool, one entry per image").mean(1)
    points, low, high = (100 * value for value in paired_interval(correct_a, correct_b))
    return {"points": points, "low": low, "high": high, "by_seed": (100 * by_seed).tolist(),
            "covers": "images and seeds" if len(by_seed) > 1 else "images"}  # fmt: skip


def signed(value: float, digits: int = 2) -> str:
    """+0.50, −0.25 (with a minus sign, not a hyphen), and 0.00 for what rounds to it."""
    text = f"{value:+.{digits}f}"
    return text.replace("-", "−") if float(text) else text[1:]
