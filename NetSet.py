"""Every network of the project, and the blocks that they share.

Images are RGB float32 in [0, 1], (N, 3, H, W). While a network trains, its images may leave that range, so that every
pixel keeps a gradient. Layers follow the source that each class names; initial weights differ (`init_weights`).
"""
import hashlib
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The course document's std is the mean of the images' own stds, not the std of the data; for its profile alone.
REFERENCE_STD = (0.2023, 0.1994, 0.2010)


class _Float32(nn.Module):
    """What mixed precision leaves in float32: bfloat16 has too few bits for the layers that read or write an image."""

    def forward(self, img: Tensor) -> Tensor:
        with torch.autocast(img.device.type, enabled=False):
            return super().forward(img.float())


class Float32Conv(_Float32, nn.Conv2d):
    """A convolution in float32."""


class Float32Layers(_Float32, nn.Sequential):
    """Several layers in float32, activations among them."""


def conv3x3(in_channels: int, out_channels: int, kind: type[nn.Conv2d] = nn.Conv2d) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size: (N, in, H, W) -> (N, out, H, W)."""
    return kind(in_channels, out_channels, kernel_size=3, padding=1)


def init_weights(network: nn.Module, init: str, as_bicubic: Callable[[nn.Module], None] | None = None) -> None:
    """"kaiming" keeps the variance from layer to layer (He et al. 2015); "pytorch" is the library's default, as in the
    course document, with which networks without batch norm do not learn for several epochs; "bicubic": `as_bicubic`.
    """
    if init not in ("kaiming", "pytorch", "bicubic") or (init == "bicubic" and not as_bicubic):
        raise ValueError(f"init is 'kaiming' or 'pytorch', or 'bicubic' for a network that upsamples; got {init!r}.")
    if init == "pytorch":
        return
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    if init == "bicubic":
        as_bicubic(network)


class Encoder(nn.Module):
    """Shallow features, conv 3x3 + ReLU: (N, 3, H, W) -> (N, C, H, W), values >= 0. Source: the course document."""

    def __init__(self, num_channels: int = 64):
        super().__init__()
        self.conv = conv3x3(3, num_channels, Float32Conv)

    def forward(self, img: Tensor) -> Tensor:
        return F.relu(self.conv(img))


class ResidualBlock(nn.Module):
    """conv, ReLU, conv, add, ReLU: (N, C, H, W) -> (N, C, H, W), values >= 0. Source: the course document."""

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
        self.conv = conv3x3(num_channels, num_channels * scale_factor**2, Float32Conv)
        self.shuffle = nn.PixelShuffle(scale_factor)

    def forward(self, features: Tensor) -> Tensor:
        return self.shuffle(self.conv(features))


class SRNet(nn.Module):
    """lr_img (N, 3, H, W) in [0, 1] -> sr_img (N, 3, sH, sW) in (0, 1). Source: the course document. By default, 2.7 M
    parameters. init="bicubic": untrained, it upsamples nearly as bicubic interpolation does.
    """

    def __init__(self, scale_factor: int = 2, num_channels: int = 128, num_blocks: int = 8, init: str = "bicubic"):
        super().__init__()
        if scale_factor < 1 or num_channels < 64 or num_blocks < 0:
            raise ValueError("SRNet expects scale_factor >= 1, num_channels >= 64 and num_blocks >= 0; "
                             f"got {scale_factor}, {num_channels}, {num_blocks}.")  # fmt: skip
        self.scale_factor = scale_factor
        self.encoder = Encoder(64)
        self.widen = conv3x3(64, num_channels, Float32Conv)
        self.blocks = nn.Sequential(*[ResidualBlock(num_channels) for _ in range(num_blocks)])
        self.narrow = conv3x3(num_channels, 64, Float32Conv)
        self.upsample = Upsampler(64, scale_factor)
        self.to_rgb = conv3x3(64, 3, Float32Conv)
        init_weights(self, init, init_as_bicubic)

    def forward(self, lr_img: Tensor) -> Tensor:
        features = self.encoder(lr_img)
        features = F.relu(self.widen(features))
        features = self.blocks(features)
        features = F.relu(self.narrow(features))
        features = self.upsample(features)
        return torch.sigmoid(self.to_rgb(features))


@torch.no_grad()
def init_as_bicubic(sr: SRNet) -> None:
    """SRNet has no skip from input to output: from random weights it first has to learn to copy. Here instead the first
    feature channels carry ReLU(x - t) of each color x at three thresholds t, the blocks let them pass, the upsampler
    interpolates, and the last layer sums them into a piecewise linear logit(x), which the sigmoid turns back into x.
    All other channels keep random weights, to learn from.
    """
    # More thresholds would start closer to bicubic, but steeper: Adam's first steps would then undo it.
    thresholds = torch.tensor([0.0, 0.15, 0.85])
    knots = torch.cat([thresholds, torch.ones(1)])
    heights = torch.logit(knots.clamp(0.02, 0.98))
    slopes = heights.diff() / knots.diff()
    steps = slopes.diff(prepend=torch.zeros(1))  # the change of slope at each threshold
    num_copies = 3 * len(thresholds)

    # dirac_ lets a channel of the output copy one of the input
    nn.init.dirac_(sr.encoder.conv.weight[:num_copies], groups=len(thresholds))  # each group copies the three colors
    sr.encoder.conv.bias[:num_copies] = -thresholds.repeat_interleave(3)
    sr.encoder.conv.weight[num_copies:] *= 0.1  # small, so that the first steps do not disturb the copy
    for conv in (sr.widen, sr.narrow):
        nn.init.dirac_(conv.weight[:num_copies])
    for block in sr.blocks:
        nn.init.zeros_(block.conv2.weight)
    _interpolate(sr.upsample.conv, num_copies, sr.scale_factor)
    sr.to_rgb.weight *= 0.01  # noise until the random channels have learned
    sr.to_rgb.weight[:, :num_copies] = 0
    for k, step in enumerate(steps.tolist()):
        sr.to_rgb.weight[:, 3 * k : 3 * k + 3, 1, 1].fill_diagonal_(step)
    sr.to_rgb.bias[:] = heights[0]


def _interpolate(conv: nn.Conv2d, num_channels: int, scale_factor: int) -> None:
    """Let an upsampler's convolution interpolate each of its first channels; the others keep random weights."""
    kernels = _interpolation_kernels(scale_factor)
    conv.weight[: num_channels * len(kernels)] = 0
    for channel in range(num_channels):
        conv.weight[channel * len(kernels) : (channel + 1) * len(kernels), channel] = kernels


def _interpolation_kernels(scale_factor: int) -> Tensor:
    """(s*s, 3, 3): for each sub-pixel, Keys' cubic (a = -0.5) on the nearest 3x3 pixels, outer taps folded in."""
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


class SkipBlock(nn.Module):
    """conv, [norm], activation, conv, [norm], add: (N, C, H, W) -> same. Source: Ledig et al. 2017, Lim et al. 2017."""

    def __init__(self, num_channels: int, activation: type[nn.Module], batch_norm: bool):
        super().__init__()
        norm = nn.BatchNorm2d if batch_norm else nn.Identity
        self.body = nn.Sequential(
            conv3x3(num_channels, num_channels), norm(num_channels), activation(),
            conv3x3(num_channels, num_channels), norm(num_channels),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        return features + self.body(features)


class SRResNetBase(nn.Module):
    """What SRResNet and ResShuffle share: lr_img (N, 3, H, W) in [0, 1] -> sr_img (N, 3, sH, sW), clipped in evaluation
    mode. init="bicubic": untrained, the global skip alone upsamples about as bicubic interpolation does.
    """

    activation, batch_norm, activate_upsampled = nn.ReLU, False, False

    def __init__(self, scale_factor: int = 4, num_channels: int = 64, num_blocks: int = 16, init: str = "bicubic"):
        super().__init__()
        if scale_factor not in (2, 3, 4, 8) or num_channels < 3 or num_blocks < 0:
            raise ValueError(f"{type(self).__name__} expects scale_factor 2, 3, 4 or 8, num_channels >= 3 and "
                             f"num_blocks >= 0; got {scale_factor}, {num_channels}, {num_blocks}.")  # fmt: skip
        self.scale_factor = scale_factor
        stages = [3] if scale_factor == 3 else [2] * (scale_factor.bit_length() - 1)
        norm = nn.BatchNorm2d if self.batch_norm else nn.Identity
        self.head = Float32Layers(nn.Conv2d(3, num_channels, kernel_size=9, padding=4), self.activation())
        blocks = [SkipBlock(num_channels, self.activation, self.batch_norm) for _ in range(num_blocks)]
        self.blocks = nn.Sequential(*blocks)
        self.middle = nn.Sequential(conv3x3(num_channels, num_channels), norm(num_channels))
        last = self.activation if self.activate_upsampled else nn.Identity
        self.upsample = Float32Layers(*[nn.Sequential(Upsampler(num_channels, stage), last()) for stage in stages])
        self.to_rgb = Float32Conv(num_channels, 3, kernel_size=9, padding=4)
        init_weights(self, init, init_skip_as_bicubic)

    def forward(self, lr_img: Tensor) -> Tensor:
        return self.reconstruct(self.extract(lr_img))

    def extract(self, lr_img: Tensor) -> Tensor:
        """lr_img (N, 3, H, W) -> features (N, C, H, W)."""
        shallow = self.head(lr_img)
        deep = self.middle(self.blocks(shallow))
        return shallow + deep

    def reconstruct(self, features: Tensor) -> Tensor:
        """features (N, C, H, W) -> sr_img (N, 3, sH, sW)."""
        sr_img = self.to_rgb(self.upsample(features))
        return sr_img if self.training else sr_img.clamp(0, 1)


class SRResNet(SRResNetBase):
    """SRGAN's generator: batch norm and PReLU, 1.5 M parameters at x4. Source: Ledig et al. 2017, fig. 4."""

    activation, batch_norm, activate_upsampled = nn.PReLU, True, True


class ResShuffle(SRResNetBase):
    """SRResNet with ReLU, without batch norm; 1.5 M parameters at x4. Source: Lim et al. 2017 and Shi et al. 2016."""


@torch.no_grad()
def init_skip_as_bicubic(net: SRResNetBase) -> None:
    """The first three channels carry the colors: the 9x9 convolutions copy them, the upsamplers interpolate, the blocks
    add nothing at first. The others keep random weights, small in the layers that touch colors.
    """
    for conv, factor in ((net.head[0], 0.1), (net.to_rgb, 0.01)):
        conv.weight *= factor
    nn.init.dirac_(net.head[0].weight[:3])
    nn.init.dirac_(net.to_rgb.weight[:, :3])
    for block in net.blocks:
        nn.init.zeros_(block.body[4 if net.batch_norm else 3].weight)
    if net.batch_norm:  # which scales every channel to size 1
        net.middle[1].weight *= 0.1
        net.middle[1].weight[:3] = 0
    else:
        net.middle[0].weight[:3] = 0
    for upsampler, _ in net.upsample:
        _interpolate(upsampler.conv, 3, upsampler.shuffle.upscale_factor)


class Discriminator(nn.Module):
    """Real or fake: img (N, 3, H, W) in [0, 1] -> logits (N,), > 0 for "real". H, W >= 16. Source: Ledig et al. 2017,
    fig. 4. Differs by averaging features to 6x6, what 96x96 crops give. The sigmoid is in the loss.
    """

    def __init__(self, num_channels: int = 64, num_hidden: int = 1024):
        super().__init__()
        layers, width = [], 3
        for k in range(8):
            channels = num_channels * 2 ** (k // 2)
            layers.append(nn.Conv2d(width, channels, kernel_size=3, stride=1 + k % 2, padding=1))
            layers += [nn.BatchNorm2d(channels)] if k else []
            layers.append(nn.LeakyReLU(0.2))
            width = channels
        self.features = nn.Sequential(*layers)
        hidden = nn.Linear(width * 36, num_hidden)
        self.linear = nn.Sequential(
            nn.AdaptiveAvgPool2d(6), nn.Flatten(), hidden, nn.LeakyReLU(0.2), nn.Linear(num_hidden, 1))

    def forward(self, img: Tensor) -> Tensor:
        return self.linear(self.features(img)).squeeze(1)


class Normalize(nn.Module):
    """img (N, 3, H, W) in [0, 1] -> (img - mean) / std per color. Mean and std are buffers and travel with weights."""

    def __init__(self, mean: tuple[float, ...] = CIFAR10_MEAN, std: tuple[float, ...] = CIFAR10_STD):
        super().__init__()
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"Normalize expects three means and three positive stds; got {mean} and {std}.")
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, img: Tensor) -> Tensor:
        return (img - self.mean) / self.std


class ClassifyNet(nn.Module):
    """img (N, 3, 32, 32) in [0, 1] -> logits (N, num_classes). dropout: after each pooling, between the linear layers.
    Source: the course document; differs by holding `Normalize` itself, so that no caller can forget it.
    """

    def __init__(self, num_classes: int = 10, num_channels: int = 64, dropout: tuple[float, float] = (0.25, 0.5),
                 normalize: Normalize | None = None, init: str = "kaiming"):
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
        init_weights(self, init)
        if init == "kaiming":
            nn.init.zeros_(self.linear[-1].weight)  # all classes equal at first: the loss starts at ln(num_classes)

    def extract(self, img: Tensor) -> Tensor:
        """The input of the linear layers: (N, 3, 32, 32) in [0, 1] -> (N, 2 * num_channels, 4, 4) features, >= 0."""
        if img.ndim != 4 or img.shape[1:] != (3, 32, 32):
            raise ValueError(f"ClassifyNet expects (N, 3, 32, 32); got {tuple(img.shape)}. Resize it first.")
        features = self.encoder(self.normalize(img))
        return self.features(features)

    def forward(self, img: Tensor) -> Tensor:
        return self.linear(self.extract(img))


class PerceptualFeatures(nn.Module):
    """phi(i, j) of a trained classifier: its features after the j-th convolution (with its activation) before the i-th
    pooling, counted from 1. img (N, 3, H, W) in [0, 1] -> (N, C, h, w). Source: Ledig et al. 2017. `calibrate` divides
    them by their root mean square on real images (the paper by 12.75), so that losses on them are of one size.
    """

    def __init__(self, normalize: Normalize, layers: Sequence[nn.Module], i: int, j: int):
        super().__init__()
        self.normalize = normalize
        self.layers = nn.Sequential(*_cut(layers, i, j))
        self.register_buffer("rms", torch.ones(()))
        self.requires_grad_(False).eval()

    @classmethod
    def of_classifier(cls, weights: str | Path, settings: Mapping, i: int = 2, j: int = 2) -> "PerceptualFeatures":
        """Of the project's own ClassifyNet, from a run's model.pth and settings; it has phi(3, 2) at most."""
        classifier = make(settings, "classifynet")
        classifier.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        layers = [classifier.encoder.conv, nn.ReLU(), *classifier.features]
        return cls(classifier.normalize, layers, i, j)

    @classmethod
    def of_vgg(cls, weights: str | Path, i: int = 5, j: int = 4) -> "PerceptualFeatures":
        """Of VGG19 or VGG16 (Simonyan and Zisserman 2015): vgg19-dcbb9e9d.pth tells how the file's SHA-256 begins."""
        from torchvision import models

        name, _, begins = Path(weights).stem.partition("-")
        digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
        if name not in ("vgg16", "vgg19") or not begins or not digest.startswith(begins):
            raise ValueError(f"{weights} is not whole, or not torchvision's: its SHA-256 is {digest}. Fetch it again.")
        net = getattr(models, name)(weights=None)
        net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        return cls(Normalize(IMAGENET_MEAN, IMAGENET_STD), list(net.features), i, j)

    @classmethod
    def of_vgg_blocks(cls, weights: str | Path, i: int = 2, j: int = 2) -> "PerceptualFeatures":
        """Of VGG19's first blocks, to phi(3, 4), with the authors' weights: for RGB of 0 to 255 less a mean color."""
        from torchvision.models.vgg import make_layers

        state = torch.load(weights, map_location="cpu", weights_only=True)
        layers = make_layers([64, 64, "M", 128, 128, "M", *[256] * 4, "M"])
        layers.load_state_dict(dict(zip(layers.state_dict(), state.values(), strict=True)))  # in the same order
        mean = (123.68 / 255, 116.779 / 255, 103.939 / 255)
        return cls(Normalize(mean, (1 / 255,) * 3), layers, i, j)

    def train(self, mode: bool = True) -> "PerceptualFeatures":
        return super().train(False)

    @torch.no_grad()
    def calibrate(self, img: Tensor) -> "PerceptualFeatures":
        self.rms.fill_(1)
        self.rms.fill_(self(img).square().mean().sqrt())
        return self

    def forward(self, img: Tensor) -> Tensor:
        with torch.autocast(img.device.type, enabled=False):
            return self.layers(self.normalize(img.float())) / self.rms


def _cut(layers: Sequence[nn.Module], i: int, j: int) -> Sequence[nn.Module]:
    """The layers up to the activation behind the j-th convolution before the i-th pooling."""
    pools = convs = 0
    for index, layer in enumerate(layers):
        pools, convs = (pools + 1, 0) if isinstance(layer, nn.MaxPool2d) else (pools, convs)
        convs += isinstance(layer, nn.Conv2d)
        if (pools, convs) == (i - 1, j) and isinstance(layer, nn.ReLU):
            return layers[: index + 1]
    raise ValueError(f"phi({i}, {j}) does not exist: this network has no {j}. convolution before its {i}. pooling.")


class MultiTaskNet(nn.Module):
    """Restore, then classify: lr_img (N, 3, H, W) in [0, 1] -> (sr_img (N, 3, sH, sW) in [0, 1], logits (N, classes)).
    One differentiable chain, so the classification loss also reaches `sr`. Source: the course document.
    """

    def __init__(self, sr: nn.Module, classifier: nn.Module):
        super().__init__()
        self.sr = sr
        self.classifier = classifier

    def forward(self, lr_img: Tensor) -> tuple[Tensor, Tensor]:
        sr_img = self.sr(lr_img)
        logits = self.classifier(sr_img)
        return sr_img, logits


def init_at_zero(conv: nn.Conv2d) -> None:
    """Let a last convolution return 0 at first, where it computes a correction."""
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)


class DoubleConv(nn.Module):
    """conv 3x3, batch norm (not in the paper), ReLU, twice: (N, in, H, W) -> (N, out, H, W). Source: as `UNet`."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.body = nn.Sequential(
            conv3x3(in_channels, out_channels), nn.BatchNorm2d(out_channels), nn.ReLU(),
            conv3x3(out_channels, out_channels), nn.BatchNorm2d(out_channels), nn.ReLU(),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        return self.body(features)


class Decoder(nn.Module):
    """U-Net's way up: features, finest first, [(N, w0, H, W), (N, w1, H/2, W/2), ...] -> (N, w0, H, W). At each step,
    the coarser ones are doubled in size, laid beside the finer ones, and convolved twice.
    """

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, kernel_size=2, stride=2) for fine, coarse in pairs)
        self.mix = nn.ModuleList(DoubleConv(2 * fine, fine) for fine, _ in pairs)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        coarse = features[-1]
        for fine, up, mix in reversed(list(zip(features[:-1], self.up, self.mix, strict=True))):
            coarse = mix(torch.cat([fine, up(coarse)], 1))
        return coarse


class UNet(nn.Module):
    """img (N, in, H, W) -> (N, out, H, W), not clipped; sides halve evenly. Source: Ronneberger et al. 2015."""

    def __init__(self, in_channels: int = 3, out_channels: int = 3, widths: Sequence[int] = (64, 128, 256, 512)):
        super().__init__()
        self.down = nn.ModuleList(DoubleConv(a, b) for a, b in zip((in_channels, *widths), widths, strict=False))
        self.decoder = Decoder(widths)
        self.last = conv3x3(widths[0], out_channels)

    def forward(self, img: Tensor) -> Tensor:
        times = len(self.down) - 1
        if any(side % 2**times for side in img.shape[-2:]):
            raise ValueError(f"UNet halves its input {times} times; got {tuple(img.shape)}. Pad or crop its sides.")
        features = [self.down[0](img)]
        for block in self.down[1:]:
            features.append(block(F.max_pool2d(features[-1], 2)))
        return self.last(self.decoder(features))


class ResNet18Features(nn.Module):
    """ResNet-18 (He et al. 2016) for small images: a stem of stride 1, no first pooling. Normalized img (N, 3, H, W) ->
    four feature maps, (N, w, H, W) to (N, 8w, H/8, W/8), w = num_channels.
    """

    def __init__(self, num_channels: int = 64):
        super().__init__()
        from torchvision.models import resnet

        def stage(width: int, out: int) -> nn.Sequential:
            shortcut = nn.Sequential(resnet.conv1x1(width, out, 2), nn.BatchNorm2d(out)) if out != width else None
            first = resnet.BasicBlock(width, out, out // width, shortcut)
            return nn.Sequential(first, resnet.BasicBlock(out, out))

        self.stem = nn.Sequential(resnet.conv3x3(3, num_channels), nn.BatchNorm2d(num_channels), nn.ReLU())
        widths = [num_channels, *(num_channels * 2**k for k in range(4))]
        self.stages = nn.ModuleList(stage(*pair) for pair in itertools.pairwise(widths))

    def forward(self, img: Tensor) -> list[Tensor]:
        features = [self.stem(img)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features[1:]


class ResNet18(nn.Module):
    """ResNet-18 for small images (He et al. 2016): img (N, 3, H, W) in [0, 1] -> logits (N, num_classes)."""

    def __init__(self, num_classes: int = 10, num_channels: int = 64, normalize: Normalize | None = None):
        super().__init__()
        self.normalize = normalize or Normalize()
        self.features = ResNet18Features(num_channels)
        self.linear = nn.Linear(8 * num_channels, num_classes)

    def extract(self, img: Tensor) -> Tensor:
        """The last features, >= 0: (N, 3, H, W) -> (N, 8 * num_channels, H/8, W/8)."""
        return self.features(self.normalize(img))[-1]

    def forward(self, img: Tensor) -> Tensor:
        return self.linear(self.extract(img).mean((2, 3)))


class JointNet(nn.Module):
    """Classify and restore in one pass: img (N, 3, H, W) in [0, 1], degraded -> (restored (N, 3, H, W), logits (N, C)).

    A linear layer reads the mean of ResNet-18's last features, a U-Net decoder turns them into what is added to the
    image. share=False: a U-Net of its own restores, and the tasks meet in the loss alone, as in the document on joint
    restoration. H and W are multiples of 8; restored is clipped in evaluation mode.
    """

    scale_factor = 1
    receptive_radius = 96  # no restored pixel depends on one further away; a multiple of 8, as tiles must be

    def __init__(self, num_classes: int = 10, num_channels: int = 64, share: bool = True):
        super().__init__()
        widths = [num_channels * 2**k for k in range(4)]
        self.normalize = Normalize()
        self.extractor = ResNet18Features(num_channels)
        self.classifier = nn.Linear(widths[-1], num_classes)
        self.restorer = Decoder(widths) if share else UNet(3, 3, widths)
        self.to_rgb = conv3x3(num_channels, 3) if share else nn.Identity()
        self.share = share
        init_at_zero(self.to_rgb if share else self.restorer.last)  # at first the image stays as it came

    def forward(self, img: Tensor) -> tuple[Tensor, Tensor]:
        normal = self.normalize(img)
        features = self.extractor(normal)
        logits = self.classifier(features[-1].mean((2, 3)))
        restored = img + self.to_rgb(self.restorer(features if self.share else normal))
        return (restored if self.training else restored.clamp(0, 1)), logits


class Colorizer(nn.Module):
    """Colors for a gray image: img (N, 3, H, W) in [0, 1], of which only the luma is read -> (N, 3, H, W), clipped in
    evaluation mode. A U-Net gives all three colors, as in the document on colorization; with keep_luma chroma alone,
    two numbers per pixel, and the luma (BT.601) stays the input's.
    """

    scale_factor = 1
    LUMA = (0.299, 0.587, 0.114)

    def __init__(self, num_channels: int = 64, keep_luma: bool = False, num_levels: int = 4):
        super().__init__()
        self.keep_luma = keep_luma
        self.unet = UNet(1, 2 if keep_luma else 3, [num_channels * 2**k for k in range(num_levels)])
        if keep_luma:
            init_at_zero(self.unet.last)  # at first the image stays gray
        self.register_buffer("luma", torch.tensor(self.LUMA).view(1, 3, 1, 1), persistent=False)

    def forward(self, img: Tensor) -> Tensor:
        gray = (img * self.luma).sum(1, keepdim=True)
        colorized = self.unet(gray)
        if self.keep_luma:
            red, blue = (gray + colorized).split(1, 1)
            green = (gray - self.LUMA[0] * red - self.LUMA[2] * blue) / self.LUMA[1]
            colorized = torch.cat([red, green, blue], 1)
        return colorized if self.training else colorized.clamp(0, 1)


class BicubicUpsampler(nn.Module):
    """lr_img (N, 3, H, W) in [0, 1] -> (N, 3, sH, sW) in [0, 1], by PyTorch's bicubic, as in the course document."""

    def __init__(self, scale_factor: int = 2):
        super().__init__()
        self.scale_factor = scale_factor

    def forward(self, lr_img: Tensor) -> Tensor:
        upsampled = F.interpolate(lr_img, scale_factor=self.scale_factor, mode="bicubic", align_corners=False)
        return upsampled.clamp(0, 1)


def count_parameters(model: nn.Module) -> int:
    """Number of scalar weights."""
    return sum(p.numel() for p in model.parameters())


class Networks(dict):
    """Networks by the name that the setting `network` knows them by. Add one of your own, in a cell too:
    NetSet.NETWORKS["mine"] = MyNet, then changes = {"network": "mine"}.
    """

    not_read = True  # by `identity`: of these the one that is built counts, not the list


NETWORKS = Networks({
    "srnet": SRNet, "srresnet": SRResNet, "resshuffle": ResShuffle,  # lr_img -> sr_img
    "classifynet": ClassifyNet, "resnet18": ResNet18,  # img -> logits
    "jointnet": JointNet, "colorizer": Colorizer,
})  # fmt: skip


def make(settings: Mapping, network: str | None = None, **others) -> nn.Module:
    """The network of this or the settings' name, built with `others` and those settings that it has a parameter for."""
    name = network or settings["network"]
    if name not in NETWORKS:
        raise ValueError(f"there is no network {name!r}; there are {', '.join(NETWORKS)}. Add yours to NETWORKS.")
    known = inspect.signature(NETWORKS[name].__init__).parameters
    return NETWORKS[name](**{key: value for key, value in settings.items() if key in known} | others)
