"""datasets.py: loaders against hand-made folders and broken input, and which data is found where."""
import hashlib
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import datasets
from datasets import Area, BicubicPlain, Chain, Choice, Fuzz, Nearest, Noise, imresize
from tools import cifar10, drawn, runs

from .conftest import random_image, refuses, save, seed


@pytest.mark.parametrize("way", [1, Fuzz(2), 3, 4, BicubicPlain(2), Chain(Area(2), Fuzz(2))], ids=str)
def test_lr_crops_are_cut_from_the_whole_degraded_image(way):
    images, at_edge = [random_image(53, 47, seed=1), random_image(24, 61, seed=2)], 0
    for i, img in enumerate(images):  # a pixel's red and green say where it is
        img[0], img[1] = 100 * i + torch.arange(img.shape[1])[:, None], torch.arange(img.shape[2])
    data = datasets.DIV2KDataset(None, 24, way, augment=False, images=images)
    scale, side = data.scale_factor, 24 // data.scale_factor
    for lr, hr in zip(*data.batch(40, seed(0)), strict=True):
        (i, y), x = divmod(int(hr[0, 0, 0]), 100), int(hr[1, 0, 0])
        whole = images[i][:, : images[i].shape[1] // scale * scale, : images[i].shape[2] // scale * scale]
        at_edge += y == 0 or x == 0 or y + 24 == whole.shape[1]
        assert torch.equal(hr, whole[:, y : y + 24, x : x + 24]) and y % scale == x % scale == 0
        assert torch.equal(lr, data.degradation(whole)[:, y // scale :, x // scale :][:, :side, :side])
    assert at_edge > 3


def test_chance_in_a_degradation_moves_no_crop_and_is_another_in_each_batch():
    img, plain, noisy = 96 + random_image(96, 96) // 4, seed(0), seed(0)  # no noise is clipped
    clean, noise = (datasets.DIV2KDataset(None, 24, way, images=[img]) for way in (2, Chain(Fuzz(2), Noise(0.05))))
    pairs = [(clean.batch(10, plain), noise.batch(10, noisy)) for _ in range(2)]
    assert all(torch.equal(hr_img, same) for (_, hr_img), (_, same) in pairs)
    first, second = (noisy_img.int() - lr_img for (lr_img, _), (noisy_img, _) in pairs)
    assert first.abs().float().mean() > 8 and not torch.equal(first, second)


def test_a_test_set_is_the_same_each_time_and_its_images_meet_chance_apart(tmp_path):
    img = random_image(16, 16)
    test_set = datasets.SRTestSet(None, Choice(Fuzz(2), Nearest(2)), images=[img] * 20)
    small, again = ([test_set.pair(i)[0] for i in range(20)] for _ in range(2))
    assert all(map(torch.equal, small, again)) and 2 < sum(torch.equal(one, Fuzz(2)(img)) for one in small) < 18
    save(tmp_path / "HR" / "a.png", img)
    save(tmp_path / "LR_bicubic" / "X2" / "ax2.png", random_image(8, 8, seed=9))  # for bicubic downsampling alone
    assert torch.equal(datasets.SRTestSet(tmp_path, Nearest(2)).pair(0)[0], img[:, ::2, ::2])


def test_a_random_batch_of_crops_keeps_its_bits():
    """The draws and their order are those that trained the networks in results/."""
    images = [random_image(40, 56), random_image(33, 70, seed=1)]
    data = datasets.DIV2KDataset(None, 16, 2, images=images)
    lr_img, hr_img = data.batch(16, seed(7))
    bits = hashlib.sha256(lr_img.numpy().tobytes() + hr_img.numpy().tobytes())
    assert torch.equal(data.image(1), images[1])
    assert bits.hexdigest()[:16] == "43ad30bfa4838c34" and data.fingerprint == "9ea114fa218ef7ec"
    first = datasets.DIV2KDataset(None, 8, 2, images=images, name="two", max_images=1)
    assert first.names == ["0"] and first.name == "two, first 1 images"


class Same(datasets.Degradation):
    """A student's, which forgot to say that it keeps the size, or that it does not."""

    scale_factor = 2

    def __call__(self, images, generator=None):
        return images


@pytest.mark.parametrize("side, options, message", [
    (20, {"crop_size": 32}, "image a has sides of 20 and 64, smaller than a crop of 32"),
    (64, {"crop_size": 15}, "no multiple of scale_factor"),
    (64, {"root": None, "images": [torch.rand(3, 32, 32)]}, "float32 .*expected uint8"),
    (64, {"crop_size": 8, "degradation": Same()}, "Same made .*expected uint8 and the sides divided by its scale_fac"),
])  # fmt: skip
def test_sets_refuse_what_does_not_fit(tmp_path, side, options, message):
    save(tmp_path / "a.png", random_image(side, 64))
    refuses(ValueError, message, lambda: datasets.DIV2KDataset(**{"root": tmp_path} | options).batch(1))


def test_test_set_of_plain_images_and_of_pairs(tmp_path):
    img = random_image(41, 30)
    save(tmp_path / "plain" / "cat.png", img)
    plain, hr_img = datasets.SRTestSet(tmp_path / "plain", 4), img[:, :40, :28]
    assert (plain[0][2], plain.name, len(plain)) == ("cat", "plain", 1)
    assert torch.equal(plain.pair(0)[1], hr_img) and torch.equal(plain.pair(0)[0], imresize(hr_img, 0.25))
    assert datasets.SRTestSet(None, 4, images=[img]).fingerprint == plain.fingerprint

    root, lr = tmp_path / "Set5", random_image(20, 15, seed=9)
    save(root / "HR" / "img_001.png", img)
    save(root / "LR_bicubic" / "X2" / "img_001x2.png", lr)
    pairs = datasets.SRTestSet(root, 2)
    assert torch.equal(pairs[0][0], datasets.to_float(lr)) and pairs[0][1].shape == (3, 40, 30)
    assert datasets.SRTestSet(root, 3)[0][0].shape == (3, 13, 10)  # no X3 files: made from HR
    (tmp_path / "Set14").symlink_to(root)
    assert datasets.SRTestSet(tmp_path / "Set14", 2).name == "Set14"  # the name it has here, not where the link leads

    save(root / "LR_bicubic" / "X2" / "img_001x2.png", random_image(21, 15))
    refuses(ValueError, r"21x15.*makes 20x15", lambda: pairs[0])
    save(root / "HR" / "img_002.png", img)
    refuses(FileNotFoundError, "lacks the LR file of img_002", datasets.SRTestSet, root, 2)


def test_two_images_of_one_name_are_both_there_and_what_is_not_read_is_said(tmp_path, capsys):
    (tmp_path / "text").mkdir()
    for i, name in enumerate(("IMG_1.jpg", "IMG_1.png", "IMG_2.png", "more/IMG_3.png", "image_SRF_2/a.png")):
        save(tmp_path / name, random_image(8, 8, seed=i))
    for _ in range(2):
        assert datasets.SRTestSet(tmp_path, 2).names == ["IMG_1.jpg", "IMG_1.png", "IMG_2"]
        assert datasets.DIV2KDataset(tmp_path, 8, 2).image(1).equal(random_image(8, 8, seed=1))
    assert re.fullmatch(r".*: image_SRF_2, more not read; DS/README.md .*\n", capsys.readouterr().out)
    (tmp_path / "LR_bicubic/X2").mkdir(parents=True)
    save(tmp_path / "LR_bicubic/X2/IMG_1x2.png", random_image(4, 4))
    refuses(FileNotFoundError, "lacks the LR file of IMG_1.jpg, IMG_1.png, IMG_2", datasets.SRTestSet, tmp_path, 2)


@pytest.mark.parametrize(("hr", "lr"), [("a", "ax2"), ("a", "a_LR"), ("a", "a_SRF_2"), ("a_SRF_2_HR", "a_SRF_2_LR")])
def test_names_that_leave_open_which_is_hr_are_refused(tmp_path, hr, lr):
    save(tmp_path / f"{hr}.png", random_image(8, 8))
    save(tmp_path / f"{lr}.png", random_image(4, 4))
    refuses(ValueError, f"{hr} and {lr}.*put HR into HR/", datasets.SRTestSet, tmp_path, 2)


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Both layouts of a CIFAR-10 of 6 x 20 images; returns (folder of each, images, labels)."""
    monkeypatch.setattr(cifar10, "BATCH", 20)
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


def test_the_real_cifar_has_the_published_statistics_and_the_study_s_order(real_data):
    data = datasets.CIFAR10Dataset(real_data("CIFAR10"))
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


def test_a_data_set_of_ones_own_has_one_list_of_classes(tmp_path, capsys):
    left, right, big = random_image(32, 32, seed=1), random_image(32, 32, seed=2), random_image(49, 64, seed=3)
    wide = torch.cat([left[:, :, :10], right, left[:, :, -10:]], 2)  # its middle square is `right`
    for place, img in {"train/cow": left, "train/ant": wide, "train/bee": big, "train/bee/more": big,
                       "test/ant": left, "test/cow": left}.items():  # fmt: skip
        save(tmp_path / "my" / place / "a.png", img)
    train, test = (datasets.find_classification(tmp_path, part, "my") for part in (True, False))
    assert train.classes == test.classes == ("ant", "bee", "cow") and train.name == test.name == "my"
    assert train.labels.tolist() == [0, 1, 2] and test.labels.tolist() == [0, 2]
    assert torch.equal(train.images, torch.stack([right, imresize(big[:, :, 7:56], 32 / 49)[:, :32, :32], left]))
    printed = capsys.readouterr().out
    assert "train/bee: more not read" in printed and "test has no images of bee" in printed
    for part, train in (("train", True), ("test", False)):
        (tmp_path / "my" / part / f"dog in {part}").mkdir()
        refuses((ValueError, FileNotFoundError), "no images of dog in train|dog in test, which is none of .* ant",
                datasets.find_classification, tmp_path, train, "my")  # fmt: skip
    refuses(FileNotFoundError, "holds no folders: put", datasets.labelled_folder, tmp_path / "my" / "train" / "ant")
    refuses(FileNotFoundError, r"no data set yours: looked for .*yours/train/CLASS/ and .*yours/test/CLASS/",
            datasets.find_classification, tmp_path, True, "yours")  # fmt: skip
    refuses(FileNotFoundError, "run.py data cifar10", datasets.find_classification, tmp_path, True, "CIFAR10")


@pytest.mark.parametrize("kind, broken, message", [
    ("py", lambda good: b"cos\nmkdir\n(S'ran'\ntR.", r"test_batch.*would run code"),
    ("py", lambda good: good[: len(good) // 2], "test_batch was not read"),
    ("py", lambda good: pickle.dumps({b"data": np.zeros((20, 3072), np.uint8)}), "not read .b'labels'"),
    ("py", lambda good: pickle.dumps({b"data": np.zeros((20, 3072)), b"labels": [0] * 20}), "float64"),
    ("bin", lambda good: good[:-1], r"61,459 bytes instead of 61,460.*run.py data cifar10"),
    ("bin", lambda good: bytes([10]) + good[1:], r"labels outside 0\.\.9"),
    ("bin", None, r"lacks test_batch.bin.*half-extracted.*run.py data cifar10"),
])  # fmt: skip
def test_a_broken_or_hostile_cifar_is_refused(cifar, tmp_path, monkeypatch, kind, broken, message):
    monkeypatch.chdir(tmp_path)
    folder, (file,) = cifar[0][kind], cifar[0][kind].glob("test_batch*")
    file.write_bytes(broken(file.read_bytes())) if broken else file.unlink()
    refuses((ValueError, FileNotFoundError), message,  # no silent fallback
            datasets.find_classification, folder.parent.parent, train=False)  # fmt: skip
    assert not Path("ran").exists()


def test_the_drawn_set_keeps_its_bits_and_learns_from_no_photograph_behind_its_test_images():
    """Figures made with other images are not comparable."""
    prints = [datasets.DrawnDataset(train, size).fingerprint for train, size in ((True, 200), (False, 50))]
    assert prints == ["2cd4b5fb02492419", "39ea2afe3458e16d"]
    learned_from = {*drawn.BACKGROUNDS["train"], *datasets.PHOTOGRAPHS["train"]}
    assert not learned_from & {*drawn.BACKGROUNDS["test"]}
    refuses(ValueError, r"multiple of 10.*found 15", datasets.DrawnDataset, size=15)


def test_a_folder_that_a_person_typed_counts_from_there_or_from_home_and_must_exist(tmp_path, monkeypatch):
    for place in ("photographs/train", "my/train/cat", "my/test/cat"):
        save(tmp_path / "photos" / place / "a.png", random_image(128, 128))
    monkeypatch.setenv("HOME", str(tmp_path)), monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for root in ("photos", "~/photos"):
        assert datasets.find_sr_train(root).name == "photographs/train"
        assert datasets.find_classification(root, True, "my").classes == ("cat",)
        assert datasets.labelled_folder(f"{root}/my/test").name == "my/test"
        assert datasets.DIV2KDataset(f"{root}/photographs/train", 8).names == ["a"]
        task = runs.begin("task1", "quick", root, "~/out")
        assert task.data_root.samefile(tmp_path / "photos") and task.results_root == tmp_path / "out"
    for find in (datasets.find_classification, datasets.find_sr_train, datasets.find_sr_valid, datasets.find_sr_test,
                 lambda root: datasets.fetch_missing(["Set5"], root), lambda root: datasets.main(["--root", root]),
                 lambda root: runs.begin("task1", "quick", root)):  # fmt: skip
        refuses(FileNotFoundError, r"/none is no folder", find, "~/none")


def test_sample_takes_every_image_once_before_any_twice():
    steps = list(datasets.sample(23, 5, 12, seed(2)))
    first, second, _ = torch.cat(steps).split(23)
    assert [len(index) for index in steps] == [5] * 12 and not torch.equal(first, second)
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(23))


def test_center_crops_are_the_middle_of_both_sizes():
    test_set = datasets.SRTestSet(None, 2, images=[random_image(40, 52), random_image(64, 36)])
    lr_img, hr_img = datasets.center_crops(test_set, 16)
    assert lr_img.shape == (2, 3, 8, 8) and torch.equal(lr_img[1], test_set[1][0][:, 12:20, 5:13])
    assert hr_img.shape == (2, 3, 16, 16) and torch.equal(hr_img[0], test_set[0][1][:, 12:28, 18:34])
    refuses(ValueError, "smaller than 42 pixels", datasets.center_crops, test_set, 42)


@pytest.mark.parametrize(("part", "find"), [("train", datasets.find_sr_train), ("valid", datasets.find_sr_valid)])
def test_photographs_are_taken_where_they_come_first(tmp_path, part, find):
    assert find(tmp_path).name == "photographs inside scikit-image"
    for place in ("CID22", "photographs"):  # the second goes before the first
        file = save(tmp_path / place / part / f"{place} 图.png", random_image(128, 128))
        assert find(tmp_path).names == [f"{place} 图"] and find(tmp_path).name == f"{place}/{part}"
    file.rename(file.with_suffix(".txt"))
    refuses(FileNotFoundError, "holds no image", find, tmp_path)  # there, but broken: nothing else in its stead


@pytest.mark.parametrize("place", ["train", "DIV2K_train_HR"])
def test_of_div2k_no_image_trains_validates_and_tests(tmp_path, place):
    for i in range(13):
        save(tmp_path / "DIV2K" / place / f"{i:04}.png", random_image(16, 16, seed=i))
    for i in range(2):
        save(tmp_path / "DIV2K" / "valid" / f"{i + 801:04}.png", random_image(16, 16, seed=100 + i))
    save(tmp_path / "photographs" / "valid" / "a.png", random_image(16, 16, seed=200))
    train, valid = datasets.find_sr_train(tmp_path, 16), datasets.find_sr_valid(tmp_path)
    (test,) = datasets.find_sr_test(tmp_path, div2k=True)
    seen = [{datasets.to_float(img).sum().item() for img in images} for images in (
        map(train.image, range(len(train))), *([data.pair(i)[1] for i in range(len(data))] for data in (valid, test)))]
    assert [len(part) for part in seen] == [3, 10, 2] and len(set.union(*seen)) == 15
    assert (train.names, valid.names[0], test.name) == (["0000", "0001", "0002"], "0003", "DIV2K/valid")
    assert "without its last 10" in train.name and "its last 10" in valid.name


@pytest.mark.parametrize("there, find, unread", [
    ("set14/a.png", datasets.find_sr_test, "set14"), ("Set5_HR.tar.gz", datasets.find_sr_test, "Set5_HR.tar.gz"),
    ("CIFAR-10/data_batch_1.bin", datasets.find_classification, "CIFAR-10"),
    ("CIFAR10/cifar.tar.gz", datasets.find_classification, "cifar.tar.gz"),
    ("DIV2K/Train/0001.png", datasets.find_sr_train, "Train"),
    ("DIV2K/valid/0801.png", datasets.find_sr_valid, None),  # the test set
])  # fmt: skip
def test_a_set_under_another_name_is_not_passed_over_silently(tmp_path, capsys, monkeypatch, there, find, unread):
    monkeypatch.setattr(datasets, "DrawnDataset", lambda train: None)
    (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / there).touch()
    find(tmp_path), find(tmp_path)
    printed = capsys.readouterr().out
    assert re.fullmatch(rf".*: {unread} not read; DS/README.md has the layout\n" if unread else "", printed)


def test_vgg_is_found_beside_the_data_or_where_torchvision_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    assert datasets.find_vgg("vgg19", tmp_path) is None
    for place in ("vgg19_blocks1to3.pth", "hub/checkpoints/vgg19-dcbb9e9d.pth", "vgg19-dcbb9e9d.pth"):  # best last
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
        assert datasets.find_vgg("vgg19", tmp_path) == tmp_path / place
    assert datasets.find_vgg("vgg16", tmp_path) is None


def test_the_listing_names_what_is_there_missing_or_broken(tmp_path, capsys):
    save(tmp_path / "Set14" / "HR" / "a.png", random_image(32, 32))
    (tmp_path / "B100" / "notes").mkdir(parents=True)
    assert datasets.main(["--root", str(tmp_path)]) == 0
    listing = capsys.readouterr().out
    assert re.search(r"Set14 +\S*Set14, 1 images", listing) and re.search("B100 +BROKEN.*holds no image", listing)
    assert re.search(r"CIFAR10 +missing: 162 MB, python3 run.py data cifar10", listing)
