"""Networks: shapes and ranges as their docstrings say, layers as in their sources, initial weights, features."""
import hashlib

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import NetSet
from tools import sr

from .conftest import refuses, task_in, write_run

VGG_BLOCKS = torchvision.models.vgg.make_layers([64, 64, "M", 128, 128, "M", *[256] * 4, "M"])


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def small_sr(scale_factor=2, **options):
    return NetSet.SRNet(scale_factor, num_channels=64, num_blocks=1, **options)


def layers(network, kind):
    return [layer for layer in network.modules() if isinstance(layer, kind)]


@pytest.mark.parametrize("network, shape_in, shape_out", [
    (small_sr(1), (1, 3, 5, 7), (1, 3, 5, 7)), (small_sr(3), (1, 3, 6, 5), (1, 3, 18, 15)),
    (NetSet.ResShuffle(3, num_channels=8, num_blocks=1), (1, 3, 4, 7), (1, 3, 12, 21)),
    (NetSet.ResShuffle(8, num_channels=8, num_blocks=1).eval(), (1, 3, 1, 2), (1, 3, 8, 16)),
    (NetSet.Discriminator(4, 8), (3, 3, 17, 30), (3,)),
    (NetSet.UNet(1, 2, (8, 16, 32)), (2, 1, 12, 20), (2, 2, 12, 20)),
    (NetSet.ResNet18(num_classes=7, num_channels=8), (2, 3, 16, 24), (2, 7)),
], ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None)  # fmt: skip
def test_shapes_are_those_of_the_docstrings(network, shape_in, shape_out):
    assert network(torch.rand(shape_in)).shape == shape_out


@pytest.mark.parametrize("network, widths", [  # (outputs, kernel) of each convolution, (outputs,) of each linear layer
    (NetSet.SRNet, [(64, 3), *[(128, 3)] * 17, (64, 3), (256, 3), (3, 3)]),
    (NetSet.ClassifyNet, [*[(64, 3)] * 4, (128, 3), (128, 3), (256,), (128,), (10,)]),
    (NetSet.SRResNet, [(64, 9), *[(64, 3)] * 33, (256, 3), (256, 3), (3, 9)]),
    (NetSet.Discriminator, [(64 * 2 ** (k // 2), 3) for k in range(8)] + [(1024,), (1,)]),
], ids=lambda value: getattr(value, "__name__", ""))  # fmt: skip
def test_layers_are_those_of_the_documents(network, widths):
    assert [layer.weight.shape[::3] for layer in layers(network(), (nn.Conv2d, nn.Linear))] == widths


def test_srgan_has_norms_and_strides_of_the_papers_figure_4_and_resshuffle_no_norm():
    assert len(layers(NetSet.SRResNet(), nn.BatchNorm2d)) == 33 and len(layers(NetSet.SRResNet(), nn.PReLU)) == 19
    assert [conv.stride[0] for conv in layers(NetSet.Discriminator(), nn.Conv2d)] == [1, 2] * 4
    assert not layers(NetSet.ResShuffle(), (nn.BatchNorm2d, nn.PReLU)) and layers(NetSet.ResShuffle(), nn.ReLU)


def test_skip_networks_clip_what_they_show_but_not_what_they_learn_from():
    net, white = NetSet.ResShuffle(2, num_channels=8, num_blocks=1), torch.ones(1, 3, 8, 8)
    nn.init.constant_(net.to_rgb.bias, 0.5)
    assert net.train()(white).max() > 1 >= net.eval()(white).max()


@pytest.mark.parametrize("build", [lambda: small_sr(2), lambda: NetSet.SRResNet(4, 16, 2)])
def test_mixed_precision_keeps_the_levels_of_an_image(build):
    net, img = build().eval(), torch.rand(1, 3, 12, 12)
    for name, weight in net.blocks.named_parameters():  # blocks that add something, as after training
        if weight.ndim > 1 or name.endswith("body.4.weight"):
            nn.init.normal_(weight, std=0.02)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net(img)
    assert mixed.dtype == torch.float32 and (mixed - net(img)).abs().max() < 1 / 255


def test_perceptual_features_stand_still_and_teach_the_image(tmp_path):
    settings = {"num_channels": 8, "dropout": (0.1, 0.1)}
    classifier, img = NetSet.make(settings, "classifynet").eval(), torch.rand(2, 3, 40, 24, requires_grad=True)
    torch.save(classifier.state_dict(), tmp_path / "model.pth")
    first, features = (NetSet.PerceptualFeatures.of_classifier(tmp_path / "model.pth", settings, *layer).train()
                       for layer in ((1, 1), (3, 2)))  # fmt: skip
    torch.testing.assert_close(first(img), classifier.encoder(classifier.normalize(img)))
    found = features.calibrate(img)(img)
    assert found.shape == (2, 16, 10, 6)
    torch.testing.assert_close(found.square().mean(), torch.tensor(1.0))
    found.sum().backward()
    assert img.grad.abs().sum() > 0 and not any(p.requires_grad for p in features.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(features(img), found)  # without dropout, in float32


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_vgg_features_come_from_its_file_alone(tmp_path, monkeypatch, name):
    saved, other = (nn.ModuleDict({"features": torchvision.models.vgg.make_layers([4, 4, "M", 4, 4, "M"])})
                    for _ in range(2))  # VGG's file weighs 548 MB
    monkeypatch.setattr(torchvision.models, name, lambda weights: other)
    torch.save(saved.state_dict(), tmp_path / "weights.pth")
    digest = hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest()
    path = (tmp_path / "weights.pth").rename(tmp_path / f"{name}-{digest[:8]}.pth")
    img, mean, std = torch.rand(1, 3, 32, 32), torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    by_hand = saved["features"][:9]((img - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    torch.testing.assert_close(NetSet.PerceptualFeatures.of_vgg(path, 2, 2)(img), by_hand)
    path.write_bytes(path.read_bytes() + b"!")
    refuses(ValueError, "is not whole, or not torchvision's", NetSet.PerceptualFeatures.of_vgg, path)


@pytest.fixture
def vgg_blocks(tmp_path):
    torch.save(VGG_BLOCKS.state_dict(), tmp_path / "vgg19_blocks1to3.pth")
    return tmp_path / "vgg19_blocks1to3.pth"


def test_vgg_blocks_are_the_authors_convolutions_on_pixels_less_their_mean(vgg_blocks):
    img, mean = torch.rand(1, 3, 16, 16), torch.tensor([123.68, 116.779, 103.939])
    found = NetSet.PerceptualFeatures.of_vgg_blocks(vgg_blocks, 3, 4)(img)
    torch.testing.assert_close(found, VGG_BLOCKS[:18](255 * img - mean.view(3, 1, 1)), atol=1e-3, rtol=1e-4)


def test_a_network_of_ones_own_is_one_entry(monkeypatch):
    monkeypatch.setitem(NetSet.NETWORKS, "mine", NetSet.BicubicUpsampler)
    assert NetSet.make({"network": "srnet", "scale_factor": 5, "width": 3}, "mine").scale_factor == 5
    refuses(ValueError, "no network 'his'; there are srnet, .*, mine", NetSet.make, {"network": "his"})


def test_resnet_18_reads_like_classifynet():
    settings = {"network": "resnet18", "num_channels": 8, "num_classes": 10, "learning_rate": 1e-3}
    net, img = NetSet.make(settings, num_classes=7).eval(), torch.rand(2, 3, 32, 32)  # what is given beside them wins
    features = net.extract(img)
    assert features.shape == (2, 64, 4, 4) and features.min() >= 0 and "normalize.std" in net.state_dict()
    torch.testing.assert_close(net(img), F.linear(features.mean((2, 3)), net.linear.weight, net.linear.bias))
    assert net(img).shape == (2, 7)
    full = NetSet.count_parameters(torchvision.models.resnet18(num_classes=10))
    assert NetSet.count_parameters(NetSet.ResNet18()) == full - 64 * 3 * (49 - 9)  # but for a stem of 3x3


def test_features_are_vggs_where_it_has_that_layer_else_the_classifiers_and_say_so(
    tmp_path, monkeypatch, capsys, vgg_blocks
):
    run = write_run(tmp_path / "task2", settings := {"network": "classifynet", "num_channels": 8},
                    {"name": "ten classes", "fingerprint": "0"}, NetSet.make(settings))  # fmt: skip
    task, ours = task_in(tmp_path, {"classifier_layer": [2, 1]}), "ClassifyNet, ten classes, phi(2, 1), weights "
    for profile, weights, layer, said in (
        ("study", None, [5, 4], ours + run.info["weights"]), ("study", vgg_blocks, [5, 4], ours),
        ("study", vgg_blocks, [3, 4], "VGG19, ImageNet, phi(3, 4)"), ("quick", vgg_blocks, [3, 4], ours),
    ):  # fmt: skip
        task.profile = profile
        monkeypatch.setattr(sr.datasets, "find_vgg", lambda network, root, weights=weights: weights)
        assert sr.perceptual_features(task, "vgg19", layer).name.startswith(said)
    assert "does not serve: phi(5, 4) does not exist" in capsys.readouterr().out


@pytest.mark.parametrize("share", [True, False])
def test_joint_net_restores_and_classifies_in_one_pass(share):
    net, img = NetSet.JointNet(num_classes=7, num_channels=8, share=share), torch.rand(2, 3, 32, 24)
    assert torch.equal(net(img)[0], img)  # before any training
    nn.init.normal_((net.to_rgb if share else net.restorer.last).weight)
    restored, logits = net(img)
    assert restored.shape == img.shape and logits.shape == (2, 7)
    restored.sum().backward()  # whether restoring teaches the extractor is what sharing means
    assert (net.extractor.stages[3][0].conv1.weight.grad is not None) is share
    clipped = net.eval()(img)[0]
    assert clipped.min() == 0 and clipped.max() == 1


def test_colorizer_reads_luma_alone_and_can_keep_it():
    img = 0.25 + torch.rand(2, 3, 16, 16) / 2
    luma = lambda img: (img * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1)  # noqa: E731
    for keep_luma in (True, False):
        net = NetSet.Colorizer(8, keep_luma)
        gray = luma(img)[:, None].expand_as(img)
        assert torch.allclose(net(img), gray, atol=1e-6) is keep_luma  # before any training
        nn.init.normal_(net.unet.last.weight, std=0.01)
        torch.testing.assert_close(net(img), net(gray))
        assert torch.allclose(luma(net(img)), luma(img), atol=1e-5) is keep_luma


@pytest.mark.parametrize("build, said", [
    (lambda: NetSet.SRNet(num_channels=32), "num_channels >= 64"),
    (lambda: NetSet.SRNet(scale_factor=0), "scale_factor >= 1"),
    (lambda: NetSet.SRNet(init="zeros"), "'zeros'"),
    (lambda: NetSet.ResShuffle(5), "scale_factor 2, 3, 4 or 8"),
    (lambda: NetSet.Normalize(std=(1.0, 0.0, 1.0)), "positive stds"),
    (lambda: NetSet.ClassifyNet(num_channels=8)(torch.rand(1, 3, 16, 16)), r"\(1, 3, 16, 16\)"),
    (lambda: NetSet.ClassifyNet(num_channels=8)(torch.rand(3, 32, 32)), r"\(3, 32, 32\)"),
    (lambda: NetSet.UNet(3, 3, (4, 8, 8))(torch.rand(1, 3, 18, 16)), r"halves its input 2 times; got \(1, 3, 18, 16\)"),
])  # fmt: skip
def test_wrong_input_says_what_was_expected_and_found(build, said):
    refuses(ValueError, said, build)


@pytest.mark.parametrize("scale_factor", [2, 3, 4])
@pytest.mark.parametrize("network, options", [(NetSet.SRNet, {"num_channels": 64}), (NetSet.SRResNet, {}),
                                              (NetSet.ResShuffle, {})])  # fmt: skip
def test_untrained_networks_upsample_almost_as_bicubic_does(network, options, scale_factor):
    smooth = F.interpolate(torch.rand(1, 3, 6, 6), size=(24, 24), mode="bicubic", align_corners=False).clamp(0, 1)
    networks = [network(scale_factor, num_blocks=2, **options, init=init) for init in ("bicubic", "kaiming")]
    images = [F.interpolate(smooth, scale_factor=scale_factor), *(net(smooth) for net in networks)]
    bicubic = NetSet.BicubicUpsampler(scale_factor)(smooth)
    nearest, ours, random = ((img - bicubic)[..., 12:-12, 12:-12].abs().mean() for img in images)
    assert ours < 0.5 * nearest < random


def test_the_classifier_has_dropout_after_each_pooling_the_datas_std_and_equal_classes():
    net, img = NetSet.ClassifyNet(num_channels=8, dropout=(0.1, 0.3)), torch.rand(2, 3, 32, 32)
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
    torch.testing.assert_close(net.normalize(img), (img - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    found = layers(net, (nn.MaxPool2d, nn.Dropout))
    assert [getattr(layer, "p", "pool") for layer in found] == ["pool", 0.1] * 3 + [0.3] * 2
    assert torch.equal(net(img), torch.zeros(2, 10))  # before any training
    assert NetSet.ClassifyNet(num_channels=8, init="pytorch").eval()(img).abs().max() > 0
