"""datasets.py: loaders against hand-made folders and broken input, and which data is found where."""
import hashlib
import io
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import datasets
from datasets import imresize

from .conftest import random_image, refuses, save


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_lr_crops_are_cut_from_the_whole_downsampled_image(scale):
    images, side, at_edge = [random_image(53, 47, seed=1), random_image(24, 61, seed=2)], 24 // scale, 0
    for i, img in enumerate(images):  # a pixel's red and green say where it is
        img[0], img[1] = 100 * i + torch.arange(img.shape[1])[:, None], torch.arange(img.shape[2])
    data = datasets.DIV2KDataset(None, 24, scale, augment=False, images=images)
    for lr, hr in zip(*data.batch(40, torch.Generator().manual_seed(0)), strict=True):
        (i, y), x = divmod(int(hr[0, 0, 0]), 100), int(hr[1, 0, 0])
        whole = images[i][:, : images[i].shape[1] // scale * scale, : images[i].shape[2] // scale * scale]
        at_edge += y == 0 or x == 0 or y + 24 == whole.shape[1]
        assert torch.equal(hr, whole[:, y : y + 24, x : x + 24]) and y % scale == x % scale == 0
        assert torch.equal(lr, imresize(whole, 1 / scale)[:, y // scale :, x // scale :][:, :side, :side])
    assert at_edge > 3


def test_augmented_pairs_are_all_eight_moves_of_the_same_place():
    def moves(img):
        return [move for turned in (torch.rot90(img, r, (1, 2)) for r in range(4)) for move in (turned, turned.flip(2))]

    img = random_image(16, 16)
    data = datasets.DIV2KDataset(None, 16, 2, images=[img])  # only one place fits: the moves alone differ
    pairs = list(zip(moves(imresize(img, 0.5)), moves(img), strict=True))
    batch = zip(*data.batch(200, torch.Generator().manual_seed(1)), strict=True)
    found = [next(i for i, pair in enumerate(pairs) if all(map(torch.equal, pair, crops))) for crops in batch]
    assert set(found) == set(range(8))


def test_a_random_batch_of_crops_keeps_its_bits():
    """The draws and their order are those that trained the networks in results/."""
    data = datasets.DIV2KDataset(None, 16, 2, images=[random_image(40, 56), random_image(33, 70, seed=1)])
    lr_img, hr_img = data.batch(16, torch.Generator().manual_seed(7))
    bits = hashlib.sha256(lr_img.numpy().tobytes() + hr_img.numpy().tobytes())
    assert torch.equal(data.image(1), random_image(33, 70, seed=1))
    assert bits.hexdigest()[:16] == "43ad30bfa4838c34" and data.fingerprint == "9ea114fa218ef7ec"


def test_images_weigh_by_area_and_the_first_may_be_taken_alone():
    sources = {"images": [torch.zeros(3, 16, 16).byte(), torch.full((3, 48, 16), 255).byte()], "names": ["a", "b"]}
    data = datasets.DIV2KDataset(None, 8, 2, **sources)
    (batch,) = data.batches(400, 1)(torch.Generator().manual_seed(5))
    assert batch["lr_img"].shape == (400, 3, 4, 4) and abs(batch["hr_img"].mean().item() - 0.75) < 0.07
    assert data[1][0].shape == (3, 4, 4) and data[1][1].min() == 1 and len(list(data)) == 2
    first = datasets.DIV2KDataset(None, 8, 2, **sources, name="two", max_images=1)
    assert first.names == ["a"] and first.name == "two, first 1 images" and first.batch(9)[1].max() == 0


def test_sets_refuse_what_does_not_fit(tmp_path):
    save(tmp_path / "a.png", random_image(64, 64))
    save(tmp_path / "tiny.png", random_image(20, 64))
    for message, options in {
        "image tiny has sides of 20 and 64, smaller than a crop of 32": {"root": tmp_path, "crop_size": 32},
        "more than max_gigabytes": {"root": tmp_path, "crop_size": 16, "max_gigabytes": 1e-6},
        "no multiple of scale_factor": {"root": tmp_path, "crop_size": 15},
        "float32 .*expected uint8": {"images": [torch.rand(3, 32, 32)]},
        "0 images": {"images": []},
    }.items():
        refuses(ValueError, message, datasets.DIV2KDataset, **options)


def test_test_set_of_plain_images_and_of_pairs(tmp_path):
    img = random_image(41, 30)
    save(tmp_path / "plain" / "cat.png", img)
    plain, hr_img = datasets.SRTestSet(tmp_path / "plain", 4), img[:, :40, :28]
    assert (plain[0][2], plain.name, len(plain)) == ("cat", "plain", 1)
    assert torch.equal(plain.pair(0)[1], hr_img) and torch.equal(plain.pair(0)[0], imresize(hr_img, 0.25))
    memory = datasets.SRTestSet(None, 4, images=[img], names=["cat"], name="mine")
    assert memory.fingerprint == plain.fingerprint and memory.name == "mine"

    root, lr = tmp_path / "Set5", random_image(20, 15, seed=9)
    save(root / "HR" / "img_001.png", img)
    save(root / "LR_bicubic" / "X2" / "img_001x2.png", lr)
    pairs = datasets.SRTestSet(root, 2)
    assert torch.equal(pairs[0][0], datasets.to_float(lr)) and pairs[0][1].shape == (3, 40, 30)
    assert datasets.SRTestSet(root, 3)[0][0].shape == (3, 13, 10)  # no X3 files: made from HR
    (tmp_path / "Set14").symlink_to(root)
    assert datasets.SRTestSet(tmp_path / "Set14", 2).name == "Set14"  # the name it has here, not where the link leads

    save(root / "LR_bicubic" / "X2" / "img_001x2.png", random_image(21, 15))
    with pytest.raises(ValueError, match=r"21x15.*makes 20x15"):
        pairs[0]
    save(root / "HR" / "img_002.png", img)
    refuses(FileNotFoundError, "lacks the LR file of img_002", datasets.SRTestSet, root, 2)


@pytest.mark.parametrize("folder", ["", "image_SRF_2"])
def test_pairs_in_one_folder(tmp_path, folder):
    hr, lr = random_image(8, 12), random_image(4, 6, seed=5)
    save(tmp_path / folder / "a_SRF_2_HR.png", hr)
    save(tmp_path / folder / "a_SRF_2_LR.png", lr)
    save(tmp_path / folder / "a_SRF_2_bicubic.png", hr)  # what others made of it is no image of the set
    pairs = datasets.SRTestSet(tmp_path, 2)
    assert pairs.names == ["a"] and all(map(torch.equal, pairs.pair(0), (lr, hr)))
    assert torch.equal(datasets.SRTestSet(tmp_path, 4).pair(0)[0], imresize(hr, 0.25))  # LR is of scale 2
    assert datasets.DIV2KDataset(tmp_path, 8, 2).names == ["a"]


@pytest.mark.parametrize(("hr", "lr"), [("a", "ax2"), ("a", "a_LR"), ("a", "a_SRF_2"), ("a_HR", "b")])
def test_names_that_leave_open_which_is_hr_are_refused(tmp_path, hr, lr):
    save(tmp_path / f"{hr}.png", random_image(8, 8))
    save(tmp_path / f"{lr}.png", random_image(4, 4))
    refuses(ValueError, f"{lr}.*put HR into HR/", datasets.SRTestSet, tmp_path, 2)


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Both layouts of a CIFAR-10 of 6 x 20 images; returns (folder of each, images, labels)."""
    monkeypatch.setattr(datasets, "CIFAR10_BATCH", 20)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (6, 20, 3072), dtype=np.uint8), rng.integers(0, 10, (6, 20))
    binary, python = (tmp_path / kind / "CIFAR10" / f"cifar-10-batches-{kind}" for kind in ("bin", "py"))
    binary.mkdir(parents=True), python.mkdir(parents=True)
    for i, name in enumerate([f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]):
        records = np.concatenate([labels[i][:, None].astype(np.uint8), images[i]], 1)
        (binary / f"{name}.bin").write_bytes(records.tobytes())
        # protocol 2 with numpy's old module name and text bytes through _codecs.encode, as Python 2 wrote it
        batch = {b"batch_label": b"x", b"labels": labels[i].tolist(), b"data": images[i], b"filenames": [b"a"]}
        (python / name).write_bytes(pickle.dumps(batch, protocol=2).replace(b"numpy._core.", b"numpy.core."))
    return {"bin": binary, "py": python}, torch.from_numpy(images), torch.from_numpy(labels)


@pytest.mark.parametrize("kind", ["bin", "py"])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_cifar_reads_both_layouts_from_three_places_in_one_order(cifar, kind, level):
    folders, images, labels = cifar
    root = [folders[kind], *folders[kind].parents][level]
    for train, part in ((True, slice(0, 5)), (False, slice(5, 6))):
        data = datasets.find_classification(root, train)
        records = zip(labels[part].flatten().tolist(), images[part].reshape(-1, 3072).numpy(), strict=True)
        by_hash = sorted(records, key=lambda r: hashlib.sha256(bytes([r[0]]) + r[1].tobytes()).digest())
        assert data.labels.tolist() == [label for label, _ in by_hash] and data.labels.dtype == torch.int64
        assert np.array_equal(data.images.view(-1, 3072).numpy(), np.stack([pixels for _, pixels in by_hash]))
        assert data.name == "CIFAR-10" and data.classes == datasets.CLASSES
    img, label = data[3]
    assert torch.equal(img, data.images[3] / 255) and label == data.labels[3]


def test_the_real_cifar_has_the_published_statistics_and_the_study_s_order(real_data):
    data = datasets.CIFAR10Dataset(real_data("CIFAR10"))
    assert data.images.shape == (50_000, 3, 32, 32) and data.labels.bincount().tolist() == [5000] * 10
    assert np.allclose(data.images.double().mean((0, 2, 3)) / 255, (0.4914, 0.4822, 0.4465), atol=5e-5)
    assert data.fingerprint == "6d29dd6841b94a2c"  # what the runs in results/ have seen, in their order


def test_class_folders_of_cifar_are_the_same_data(cifar, tmp_path):
    folders, images, labels = cifar
    train = tmp_path / "png/CIFAR10/train"
    for i, (img, label) in enumerate(zip(images[:5].reshape(-1, 3, 32, 32), labels[:5].flatten(), strict=True)):
        save(train / datasets.CLASSES[label] / f"{i}.png", img)
    (train / "Thumbs.db").touch()
    copy = datasets.find_classification(tmp_path / "png")
    assert copy.fingerprint == datasets.CIFAR10Dataset(folders["bin"]).fingerprint and copy.name == "CIFAR-10"
    (train / "frog").rename(train / "toad")
    refuses(ValueError, r"toad, truck instead of airplane", datasets.find_classification, tmp_path / "png")


def test_a_folder_of_ones_own_classes(tmp_path):
    left, right, big = random_image(32, 32, seed=1), random_image(32, 32, seed=2), random_image(49, 64, seed=3)
    wide = torch.cat([left[:, :, :10], right, left[:, :, -10:]], 2)  # its middle square is `right`
    for place, img in {"cow/0": left, "ant/1": wide, "bee/2": big}.items():
        save(tmp_path / "mine" / f"{place}.png", img)
    data = datasets.labelled_folder(tmp_path / "mine")
    assert data.classes == ("ant", "bee", "cow") and data.labels.tolist() == [0, 1, 2] and data.name == "mine"
    assert torch.equal(data.images, torch.stack([right, imresize(big[:, :, 7:56], 32 / 49)[:, :32, :32], left]))
    with pytest.raises(FileNotFoundError, match="holds no folders: put the images of each class"):
        datasets.labelled_folder(tmp_path / "mine" / "ant")


@pytest.mark.parametrize("kind, broken, message", [
    ("py", lambda good: b"cos\nmkdir\n(S'ran'\ntR.", r"test_batch.*would run code"),
    ("py", lambda good: good[: len(good) // 2], "test_batch was not read"),
    ("py", lambda good: pickle.dumps({b"data": np.zeros((20, 3072), np.uint8)}), "not read .b'labels'"),
    ("py", lambda good: pickle.dumps({b"data": np.zeros((20, 3072)), b"labels": [0] * 20}), "float64"),
    ("bin", lambda good: good[:-1], r"61,459 bytes instead of 61,460.*download cifar10"),
    ("bin", lambda good: bytes([10]) + good[1:], r"labels outside 0\.\.9"),
    ("bin", None, r"lacks test_batch.bin.*half-extracted.*download cifar10"),
])  # fmt: skip
def test_a_broken_or_hostile_cifar_is_refused(cifar, tmp_path, monkeypatch, kind, broken, message):
    monkeypatch.chdir(tmp_path)
    (file,) = cifar[0][kind].glob("test_batch*")
    file.write_bytes(broken(file.read_bytes())) if broken else file.unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        datasets.find_classification(cifar[0][kind].parent.parent, train=False)  # no silent fallback
    assert not Path("ran").exists()


def test_only_without_any_cifar_the_drawn_set_stands_in(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "DrawnDataset", lambda train: ("drawn", train))
    assert datasets.find_classification(tmp_path / "none") == ("drawn", True)
    (tmp_path / "CIFAR10").mkdir()
    (tmp_path / "CIFAR10" / "Thumbs.db").touch()
    assert datasets.find_classification(tmp_path, train=False) == ("drawn", False)
    for found, message in (("notes.txt", "no part of CIFAR-10"), ("cifar-10-python.tar.gz", "is not unpacked")):
        (tmp_path / "CIFAR10" / found).touch()
        refuses(FileNotFoundError, message, datasets.find_classification, tmp_path)
    refuses(FileNotFoundError, r"python datasets\.py download cifar10", datasets.CIFAR10Dataset, tmp_path / "none")


def test_sample_takes_every_image_once_before_any_twice():
    steps = list(datasets.sample(23, 5, 12, torch.Generator().manual_seed(2)))
    first, second, _ = torch.cat(steps).split(23)
    assert [len(index) for index in steps] == [5] * 12 and not torch.equal(first, second)
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(23))


def test_centre_crops_are_the_middle_of_both_sizes():
    test_set = datasets.SRTestSet(None, 2, images=[random_image(40, 52), random_image(64, 36)])
    lr_img, hr_img = datasets.centre_crops(test_set, 16)
    assert lr_img.shape == (2, 3, 8, 8) and torch.equal(lr_img[1], test_set[1][0][:, 12:20, 5:13])
    assert hr_img.shape == (2, 3, 16, 16) and torch.equal(hr_img[0], test_set[0][1][:, 12:28, 18:34])
    refuses(ValueError, "smaller than 42 pixels", datasets.centre_crops, test_set, 42)


@pytest.mark.parametrize(("part", "find"), [("train", datasets.find_sr_train), ("valid", datasets.find_sr_valid)])
def test_photographs_are_taken_where_they_come_first(tmp_path, part, find):
    assert find(tmp_path).name == "photographs inside scikit-image"
    for place in ("CID22/{}", "photographs/{}", "DIV2K/DIV2K_{}_HR", "DIV2K/{}"):  # each goes before the earlier ones
        file = save(tmp_path / place.format(part) / f"{len(place)} 图.png", random_image(128, 128))
        assert find(tmp_path).names == [f"{len(place)} 图"]
        assert find(tmp_path).name == (f"DIV2K/{part}" if "DIV2K" in place else place.format(part))
    file.rename(file.with_suffix(".txt"))
    refuses(FileNotFoundError, "holds no image", find, tmp_path)  # there, but broken: nothing else in its stead


@pytest.mark.parametrize("there, find, line", [
    ("set14/a.png", datasets.find_sr_test, "set14 is not read: it must be .*/Set14"),
    ("BSDS100/a.png", datasets.find_sr_test, "BSDS100 is not read: it must be .*/B100"),
    ("Set5_HR.tar.gz", datasets.find_sr_test, "Set5_HR.tar.gz is not read: unpack it"),
    ("CIFAR-10/data_batch_1.bin", datasets.find_classification, "CIFAR-10 is not read: it must be .*/CIFAR10"),
    ("DIV2K_train_HR/0001.png", datasets.find_sr_train, "DIV2K_train_HR is not read: it must be .*/DIV2K/train"),
    ("div2k/train/0001.png", datasets.find_sr_train, "div2k is not read: it must be .*/DIV2K$"),
    ("DIV2K/Train/0001.png", datasets.find_sr_train, "Train is not read: it must be .*/DIV2K/train"),
    ("DIV2K/DIV2K_valid_HR.zip", datasets.find_sr_valid, "DIV2K_valid_HR.zip is not read: unpack it"),
    ("DIV2K/DIV2K_valid_HR.zip", datasets.find_sr_train, None),  # the other part
    ("cifar-100-python/train", datasets.find_classification, None),
])  # fmt: skip
def test_a_set_under_another_name_is_not_passed_over_silently(tmp_path, capsys, monkeypatch, there, find, line):
    monkeypatch.setattr(datasets, "DrawnDataset", lambda train: None)
    (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / there).touch()
    if (tmp_path / there.split("/")[0].swapcase()).exists():
        pytest.skip("this file system does not tell small letters from capitals")
    find(tmp_path), find(tmp_path)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == (line is not None) and (not line or re.search(line, printed[0]))


def test_vgg_is_found_beside_the_data_or_where_torchvision_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    assert datasets.find_vgg("vgg19", tmp_path) is None
    for place in ("vgg19_blocks1to3.pth", "hub/checkpoints/vgg19-dcbb9e9d.pth", "vgg19-dcbb9e9d.pth"):  # best last
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
        assert datasets.find_vgg("vgg19", tmp_path) == tmp_path / place
    assert datasets.find_vgg("vgg16", tmp_path) is None


def test_test_sets_that_are_there_and_how_to_get_the_others(tmp_path):
    for name in ("Set14/a", "DIV2K/valid/b", "B100/a"):
        save(tmp_path / f"{name}.png", random_image(8, 8))
    (tmp_path / "B100" / "a.png").rename(tmp_path / "B100" / "Thumbs.db")  # as good as empty
    absent = datasets.absent_sr_test(tmp_path)
    assert list(absent) == ["Set5", "B100", "Urban100"] and datasets.is_there("Set14", tmp_path)
    assert all(how.split()[-1] in datasets.ARCHIVES for how in absent.values())
    assert [test_set.name for test_set in datasets.find_sr_test(tmp_path, 4, div2k=True)] == ["Set14", "DIV2K/valid"]


def test_the_listing_of_a_broken_set_on_a_console_that_cannot_write_chinese(tmp_path, monkeypatch):
    for name in ("Set14/HR", "B100"):
        save(tmp_path / "数据" / name / "a.png", random_image(32, 32))
    (tmp_path / "数据" / "B100" / "a.png").rename(tmp_path / "数据" / "B100" / "notes.txt")
    console = io.TextIOWrapper(io.BytesIO(), "cp1252", write_through=True)
    monkeypatch.setattr("sys.stdout", console)
    assert datasets.main(["--root", str(tmp_path / "数据")]) == 0
    listing = console.buffer.getvalue().decode()
    assert re.search(r"Set14 +\S*Set14, 1 images", listing) and re.search("B100 +BROKEN.*holds no image", listing)
    assert re.search(r"CIFAR10 +missing: 162 MB, python datasets.py download cifar10", listing)
