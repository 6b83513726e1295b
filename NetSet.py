"""Every network of the project, and the blocks that they share.

Images enter and leave as RGB float32 in [0, 1], (N, 3, H, W); `Normalize` alone leaves that range, inside the
classifier's side. Layers follow seed 000; what differs from it is the start (`initialise`, `start_as_enlarger`),
because without batch norm the framework's default start stands still for several epochs.
"""
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
# The std that seed 000 uses is the mean of the images' own stds, not the std of the data; kept for its profile.
SEED_STD = (0.2023, 0.1994, 0.2010)


def conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size: (N, in, H, W) -> (N, out, H, W)."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)


def initialise(module: nn.Module, start: str) -> None:
    """"kaiming": a start for ReLU networks without batch norm that keeps the variance from layer to layer
    (He et al. 2015). "framework": PyTorch's default, as in the seeds; here it stands still for several epochs.
    """
    if start == "framework":
        return
    if start != "kaiming":
        raise ValueError(f"start is 'kaiming' or 'framework' (or 'enlarger', for SRNet); got {start!r}.")
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)


class Encoder(nn.Module):
    """Shallow features, conv 3x3 + ReLU: (N, 3, H, W) -> (N, C, H, W), values >= 0. Source: seed 000."""

    def __init__(self, num_channels: int = 64):
        super().__init__()
        self.conv = conv3x3(3, num_channels)

    def forward(self, img: Tensor) -> Tensor:
        return F.relu(self.conv(img))


class ResidualBlock(nn.Module):
    """conv, ReLU, conv, add, ReLU at constant width: (N, C, H, W) -> (N, C, H, W), values >= 0. Source: seed 000."""

    def __init__(self, num_channels: int):
        super().__init__()
        self.conv1 = conv3x3(num_channels, num_channels)
        self.conv2 = conv3x3(num_channels, num_channels)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(features + self.conv2(F.relu(self.conv1(features))))


class Upsampler(nn.Module):
    """conv 3x3 to s*s times the channels, PixelShuffle: (N, C, H, W) -> (N, C, sH, sW). Source: Shi et al. 2016."""

    def __init__(self, num_channels: int, scale_factor: int = 2):
        super().__init__()
        self.conv = conv3x3(num_channels, num_channels * scale_factor**2)
        self.shuffle = nn.PixelShuffle(scale_factor)

    def forward(self, features: Tensor) -> Tensor:
        return self.shuffle(self.conv(features))


class SRNet(nn.Module):
    """Super-resolution: lr_img (N, 3, H, W) in [0, 1] -> sr_img (N, 3, sH, sW) in (0, 1). Source: seed 000.

    Encoder, widening conv + ReLU, residual blocks, narrowing conv + ReLU, sub-pixel upsampler, conv, sigmoid.
    With the defaults: 2.7 M parameters. start="enlarger" sets initial weights with which the untrained network
    already enlarges nearly as bicubic interpolation does; "kaiming" and "framework": see `initialise`.
    """

    def __init__(
        self, scale_factor: int = 2, num_channels: int = 128, num_blocks: int = 8, start: str = "enlarger"
    ):
        super().__init__()
        if scale_factor < 1 or num_channels < 64 or num_blocks < 0:
            raise ValueError(
                f"SRNet expects scale_factor >= 1, num_channels >= 64 and num_blocks >= 0; "
                f"got {scale_factor}, {num_channels}, {num_blocks}."
            )
        self.scale_factor = scale_factor
        self.encoder = Encoder(64)
        self.widen = conv3x3(64, num_channels)
        self.blocks = nn.Sequential(*[ResidualBlock(num_channels) for _ in range(num_blocks)])
        self.narrow = conv3x3(num_channels, 64)
        self.upsample = Upsampler(64, scale_factor)
        self.to_rgb = conv3x3(64, 3)
        initialise(self, "kaiming" if start == "enlarger" else start)
        if start == "enlarger":
            start_as_enlarger(self)

    @classmethod
    def from_settings(cls, settings: Mapping, **others) -> "SRNet":
        """The network that a run's settings describe, to be filled with its weights."""
        names = ("scale_factor", "num_channels", "num_blocks")
        return cls(**{name: settings[name] for name in names}, **others)

    def forward(self, lr_img: Tensor) -> Tensor:
        features = self.encoder(lr_img)
        features = F.relu(self.widen(features))
        features = self.blocks(features)
        features = F.relu(self.narrow(features))
        features = self.upsample(features)
        with torch.autocast(features.device.type, enabled=False):  # bfloat16 has fewer levels than a picture
            return torch.sigmoid(self.to_rgb(features.float()))


@torch.no_grad()
def start_as_enlarger(sr: SRNet) -> None:
    """Set SRNet's initial weights so that, untrained, it enlarges nearly as bicubic interpolation does.

    The seed's SRNet has no skip from input to output and ends in a sigmoid, so a random start spends its first hour
    learning to copy. Pixels are >= 0 and ReLU passes what is >= 0, so a copy can be set instead of learnt: the first
    feature channels carry ReLU(x - t) of each colour x at three thresholds t; the blocks' second convolutions are
    zero, so features pass; the upsampler interpolates; and the last layer sums those channels into a piecewise
    linear logit(x), which the sigmoid turns back into x. All other channels keep their random start, to learn from.
    """
    # More thresholds would start closer to bicubic, but steeper: Adam's first steps would then undo the start.
    thresholds = torch.tensor([0.0, 0.15, 0.85])
    knots = torch.cat([thresholds, torch.ones(1)])
    heights = torch.logit(knots.clamp(0.02, 0.98))
    slopes = heights.diff() / knots.diff()
    steps = slopes.diff(prepend=torch.zeros(1))  # the change of slope at each threshold
    num_copies = 3 * len(thresholds)

    def pass_through(conv: nn.Conv2d) -> None:
        """The first channels are copied, and only copied; the others hear and say what they like."""
        conv.weight[:num_copies] = 0
        for channel in range(num_copies):
            conv.weight[channel, channel, 1, 1] = 1

    sr.encoder.conv.weight[:num_copies] = 0
    for k, threshold in enumerate(thresholds):
        for colour in range(3):
            sr.encoder.conv.weight[3 * k + colour, colour, 1, 1] = 1
            sr.encoder.conv.bias[3 * k + colour] = -threshold
    sr.encoder.conv.weight[num_copies:] *= 0.1  # quiet at first, so that the optimiser's first steps spare the copy
    for conv in (sr.widen, sr.narrow):
        pass_through(conv)
    for block in sr.blocks:
        nn.init.zeros_(block.conv2.weight)

    kernels = _interpolation_kernels(sr.scale_factor)  # (s*s, 3, 3)
    subpixels = len(kernels)
    sr.upsample.conv.weight[: num_copies * subpixels] = 0
    for channel in range(num_copies):
        sr.upsample.conv.weight[channel * subpixels : (channel + 1) * subpixels, channel] = kernels

    sr.to_rgb.weight *= 0.01  # what the random channels say is noise until they have learnt
    sr.to_rgb.weight[:, :num_copies] = 0
    for k, step in enumerate(steps):
        for colour in range(3):
            sr.to_rgb.weight[colour, 3 * k + colour, 1, 1] = step
    sr.to_rgb.bias[:] = heights[0]


def _interpolation_kernels(scale_factor: int) -> Tensor:
    """(s*s, 3, 3): for each sub-pixel, Keys' cubic (a = -0.5) on the nearest 3x3 pixels; the fourth tap folded in."""
    rows = []
    for i in range(scale_factor):
        offset = (i + 0.5) / scale_factor - 0.5
        distances = (torch.arange(-2, 3) - offset).abs()
        near = 1.5 * distances**3 - 2.5 * distances**2 + 1
        far = -0.5 * distances**3 + 2.5 * distances**2 - 4 * distances + 2
        taps = torch.where(distances <= 1, near, torch.where(distances < 2, far, torch.zeros(())))
        taps[1] += taps[0]
        taps[3] += taps[4]
        rows.append(taps[1:4])
    return torch.stack([torch.outer(vertical, horizontal) for vertical in rows for horizontal in rows])


class Normalize(nn.Module):
    """img (N, 3, H, W) in [0, 1] -> (img - mean) / std per colour. Mean and std are buffers and travel with weights."""

    def __init__(self, mean: tuple[float, ...] = CIFAR10_MEAN, std: tuple[float, ...] = CIFAR10_STD):
        super().__init__()
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"Normalize expects three means and three positive stds; got {mean} and {std}.")
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, img: Tensor) -> Tensor:
        return (img - self.mean) / self.std


class ClassifyNet(nn.Module):
    """Plain classifier without batch norm: img (N, 3, 32, 32) in [0, 1] -> logits (N, num_classes). Source: seed 000.

    Normalize, Encoder, five convolutions in three pooled stages, three linear layers. `num_channels` scales every
    width (64 is the seed's: 2048-256-128 features). `dropout` is (after each pooling, between the linear layers).
    Differs by holding `Normalize` itself, so that no caller can forget it. Other sizes raise: the first linear layer
    counts pixels.
    """

    def __init__(
        self,
        num_classes: int = 10,
        num_channels: int = 64,
        dropout: tuple[float, float] = (0.25, 0.5),
        normalize: Normalize | None = None,
        start: str = "kaiming",
    ):
        super().__init__()
        c, (drop_conv, drop_linear) = num_channels, dropout
        self.normalize = normalize or Normalize()
        self.encoder = Encoder(c)
        self.features = nn.Sequential(
            conv3x3(c, c), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(drop_conv),
            conv3x3(c, c), nn.ReLU(), conv3x3(c, c), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(drop_conv),
            conv3x3(c, 2 * c), nn.ReLU(), conv3x3(2 * c, 2 * c), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(drop_conv),
        )  # fmt: skip
        self.linear = nn.Sequential(
            nn.Flatten(),
            nn.Linear(2 * c * 16, 4 * c), nn.ReLU(), nn.Dropout(drop_linear),
            nn.Linear(4 * c, 2 * c), nn.ReLU(), nn.Dropout(drop_linear),
            nn.Linear(2 * c, num_classes),
        )  # fmt: skip
        initialise(self, start)
        if start == "kaiming":
            nn.init.zeros_(self.linear[-1].weight)  # no opinion at first: the loss starts at ln(num_classes)

    @classmethod
    def from_settings(cls, settings: Mapping, **others) -> "ClassifyNet":
        """The network that a run's settings describe, to be filled with its weights."""
        return cls(num_channels=settings["num_channels"], dropout=settings["dropout"], **others)

    def extract(self, img: Tensor) -> Tensor:
        """What the linear layers read: (N, 3, 32, 32) in [0, 1] -> (N, 2 * num_channels, 4, 4) features, >= 0."""
        if img.ndim != 4 or img.shape[1:] != (3, 32, 32):
            raise ValueError(f"ClassifyNet expects (N, 3, 32, 32); got {tuple(img.shape)}. Resize or enlarge first.")
        features = self.encoder(self.normalize(img))
        return self.features(features)

    def forward(self, img: Tensor) -> Tensor:
        return self.linear(self.extract(img))


class MultiTaskNet(nn.Module):
    """Restore, then classify: lr_img (N, 3, H, W) in [0, 1] -> (sr_img (N, 3, sH, sW) in [0, 1], logits (N, classes)).

    One differentiable chain, SRNet -> Normalize -> ClassifyNet (which begins with Normalize), so the classification
    loss also reaches SRNet. Any module with SRNet's signature may stand in its place: the ladder's control puts
    `BicubicEnlarger` there. Source: seed 000.
    """

    def __init__(self, sr: nn.Module, classifier: nn.Module):
        super().__init__()
        self.sr = sr
        self.classifier = classifier

    def forward(self, lr_img: Tensor) -> tuple[Tensor, Tensor]:
        sr_img = self.sr(lr_img)
        logits = self.classifier(sr_img)
        return sr_img, logits


class SelfEnsemble(nn.Module):
    """An enlarger averaged over eight flips and turns: lr_img (N, 3, H, W) -> (N, 3, sH, sW), both in [0, 1].

    Eight times the cost, no training. Source: Timofte et al. 2016, "Seven ways to improve example-based single image
    super resolution"; named geometric self-ensemble by Lim et al. 2017 (EDSR).
    """

    def __init__(self, sr: nn.Module):
        super().__init__()
        self.sr = sr

    def forward(self, lr_img: Tensor) -> Tensor:
        total = 0
        for turns in range(4):
            for flip in (False, True):
                turned = lr_img.rot90(turns, (-2, -1))
                sr_img = self.sr(turned.flip(-1)).flip(-1) if flip else self.sr(turned)
                total = total + sr_img.rot90(-turns, (-2, -1))
        return total / 8


class BicubicEnlarger(nn.Module):
    """lr_img (N, 3, H, W) in [0, 1] -> (N, 3, sH, sW) in [0, 1]; no weights.

    The framework's bicubic (a = -0.75), as in seed 000's degraded row; overshoots are clipped.
    """

    def __init__(self, scale_factor: int = 2):
        super().__init__()
        self.scale_factor = scale_factor

    def forward(self, lr_img: Tensor) -> Tensor:
        enlarged = F.interpolate(lr_img, scale_factor=self.scale_factor, mode="bicubic", align_corners=False)
        return enlarged.clamp(0, 1)


def count_parameters(model: nn.Module, trainable_only: bool = False) -> int:
    """Number of scalar weights, all of them or only those that training changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)
