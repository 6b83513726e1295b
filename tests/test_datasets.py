"""datasets.py: loaders against hand-made folders and broken input, and which data is found where."""

import hashlib
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import datasets
from datasets import imresize

PROJECT = Path(datasets.__file__).resolve().parent


def random_image(height=40, width=56, seed=0, batch=()):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*batch, 3, height, width), dtype=torch.uint8, generator=generator)


def save(path, img):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(img.permute(1, 2, 0).numpy()).save(path)
    return path


# --- super-resolution sets -------------------------------------------------------------------------------------------


def places_of(crop, whole):
    """Every (y, x) at which the crop stands in the whole image."""
    windows = whole.unfold(1, crop.shape[1], 1).unfold(2, crop.shape[2], 1)
    return [tuple(p) for p in (windows == crop[:, None, None]).all(-1).all(-1).all(0).nonzero().tolist()]


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_lr_crops_are_cut_from_the_whole_downsampled_image(scale):
    images = [random_image(53, 47, seed=1), random_image(24, 61, seed=2)]
    data = datasets.DIV2KDataset(None, 24, scale, augment=False, images=images)
    wholes = [img[:, : img.shape[1] // scale * scale, : img.shape[2] // scale * scale] for img in images]
    downsampled = [imresize(img, 1 / scale) if scale > 1 else img for img in wholes]
    lr_img, hr_img = data.batch(40, torch.Generator().manual_seed(0))
    assert lr_img.shape == (40, 3, 24 // scale, 24 // scale) and hr_img.shape == (40, 3, 24, 24)
    at_edge = 0
    for lr, hr in zip(lr_img, hr_img, strict=True):
        for whole, small in zip(wholes, downsampled, strict=True):
            for y, x in places_of(hr, whole):
                at_edge += y == 0 or x == 0 or y + 24 == whole.shape[1]
                cut = small[:, y // scale :, x // scale :][:, : 24 // scale, : 24 // scale]
                assert y % scale == x % scale == 0 and torch.equal(lr, cut)
                break
            else:
                continue
            break
        else:
            raise AssertionError("an HR crop that stands in no image")
    assert at_edge > 3


def test_augmented_pairs_are_all_eight_moves_of_the_same_place():
    img = random_image(16, 16)
    data = datasets.DIV2KDataset(None, 16, 2, images=[img])  # only one place fits: the moves alone differ
    lr_img, hr_img = data.batch(200, torch.Generator().manual_seed(1))
    moves = [m for r in range(4) for t in [torch.rot90(img, r, (1, 2))] for m in (t, t.flip(2))]
    found = {next(i for i, m in enumerate(moves) if torch.equal(m, hr)) for hr in hr_img}
    assert found == set(range(8))
    small = imresize(img, 0.5)
    small_moves = [m for r in range(4) for t in [torch.rot90(small, r, (1, 2))] for m in (t, t.flip(2))]
    for lr, hr in zip(lr_img, hr_img, strict=True):
        assert any(torch.equal(lr, s) and torch.equal(hr, m) for s, m in zip(small_moves, moves, strict=True))


def test_batches_repeat_with_the_generator_and_images_weigh_by_area():
    images = [torch.zeros(3, 16, 16, dtype=torch.uint8), torch.full((3, 48, 16), 255, dtype=torch.uint8)]
    data = datasets.DIV2KDataset(None, 8, 2, images=images, names=["dark", "light"])
    first, second = (data.batch(400, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert abs(first[1].float().mean().item() / 255 - 0.75) < 0.07
    torch.manual_seed(0)
    lr_img, hr_img = data[1]
    assert lr_img.shape == (3, 4, 4) and hr_img.dtype == torch.float32 and hr_img.max() == 1
    assert len(data) == 2 and data.names == ["dark", "light"] and data.to("cpu") is data
    with pytest.raises(IndexError):
        data[2]


def test_training_set_from_a_folder(tmp_path):
    images = [random_image(20 + 2 * i, 30 - i, seed=i) for i in range(3)]
    for i, img in enumerate(images):
        save(tmp_path / "CID22" / "train" / f"{i} 图.png", img)
    data = datasets.find_sr_train(tmp_path, crop_size=16)
    assert data.name == "CID22/train" and len(data) == 3
    assert all(torch.equal(data.image(i), img) for i, img in enumerate(images))
    same = datasets.DIV2KDataset(None, 16, images=images)
    assert re.fullmatch("[0-9a-f]{16}", data.fingerprint) and data.fingerprint == same.fingerprint
    assert data.fingerprint != datasets.DIV2KDataset(None, 16, images=images[::-1]).fingerprint


def test_training_set_refuses_what_does_not_fit(tmp_path):
    save(tmp_path / "a.png", random_image(64, 64))
    save(tmp_path / "tiny.png", random_image(20, 64))
    with pytest.raises(ValueError, match=r"image tiny are 20 and 64, smaller than a crop of 32.*smaller crop_size"):
        datasets.DIV2KDataset(tmp_path, 32)
    with pytest.raises(ValueError, match="more than max_gigabytes"):
        datasets.DIV2KDataset(tmp_path, 16, max_gigabytes=1e-6)
    with pytest.raises(ValueError, match="no multiple of scale_factor"):
        datasets.DIV2KDataset(tmp_path, 15, 2)
    with pytest.raises(ValueError, match="either root"):
        datasets.DIV2KDataset()
    with pytest.raises(ValueError, match=r"float32 .*expected uint8"):
        datasets.DIV2KDataset(None, 16, images=[torch.rand(3, 32, 32)])
    with pytest.raises(ValueError, match="0 images"):
        datasets.SRTestSet(images=[])
    (tmp_path / "bad.png").write_text("no")
    with pytest.raises(ValueError, match=r"bad.png cannot be read"):
        datasets.DIV2KDataset(tmp_path, 16)


def test_max_images_takes_the_first_by_name_and_says_so():
    images = [random_image(32, 32) for _ in range(4)]
    some = datasets.DIV2KDataset(None, 8, 2, images=images, names=list("abcd"), name="four", max_images=3)
    assert len(some) == 3 and some.names == ["a", "b", "c"] and some.name == "four, first 3 images"
    alike = datasets.DIV2KDataset(None, 8, 2, images=images, names=list("abcd"), name="four", max_images=9)
    assert len(alike) == 4 and alike.name == "four"


def test_a_header_that_announces_another_size_is_an_error(tmp_path, monkeypatch):
    save(tmp_path / "a.png", random_image(20, 30))
    monkeypatch.setattr(datasets, "announced_sides", lambda path: [15, 40])  # as many pixels
    with pytest.raises(ValueError, match=r"a\.png is 20x30, but its header says 15 and 40"):
        datasets.DIV2KDataset(tmp_path, 8)


def test_test_set_of_plain_images_and_of_pairs(tmp_path):
    img = random_image(41, 30)
    save(tmp_path / "plain" / "cat.png", img)
    plain = datasets.SRTestSet(tmp_path / "plain", 4)
    lr_img, hr_img, name = plain[0]
    assert name == "cat" and plain.name == "plain" and len(plain) == 1
    assert torch.equal(hr_img, datasets.to_float(img[:, :40, :28]))
    assert torch.equal(lr_img, datasets.to_float(imresize(img[:, :40, :28], 0.25)))

    root = tmp_path / "Set5"
    save(root / "HR" / "img_001.png", img)
    lr = random_image(20, 15, seed=9)
    save(root / "LR_bicubic" / "X2" / "img_001x2.png", lr)
    pairs = datasets.SRTestSet(root, 2)
    assert torch.equal(pairs[0][0], datasets.to_float(lr)) and pairs[0][1].shape == (3, 40, 30)
    assert datasets.SRTestSet(root, 3)[0][0].shape == (3, 13, 10)  # no X3 files: made from HR
    assert pairs.fingerprint == datasets.SRTestSet(root, 2).fingerprint != plain.fingerprint
    memory = datasets.SRTestSet(None, 4, images=[img], names=["cat"], name="mine")
    assert memory.fingerprint == plain.fingerprint and memory.name == "mine"
    (tmp_path / "Set14").symlink_to(root)
    assert datasets.SRTestSet(tmp_path / "Set14", 2).name == "Set14"  # the name it has here, not where the link leads

    save(root / "LR_bicubic" / "X2" / "img_001x2.png", random_image(21, 15))
    with pytest.raises(ValueError, match=r"21x15.*makes 20x15"):
        pairs[0]
    save(root / "HR" / "img_002.png", img)
    with pytest.raises(FileNotFoundError, match="lacks the LR file of img_002"):
        datasets.SRTestSet(root, 2)


def test_pairs_in_one_folder(tmp_path):
    hr, lr = random_image(8, 12), random_image(4, 6, seed=5)
    for folder in ("flat", "set/image_SRF_2"):
        save(tmp_path / folder / "a_SRF_2_HR.png", hr)
        save(tmp_path / folder / "a_SRF_2_LR.png", lr)
        save(tmp_path / folder / "a_SRF_2_bicubic.png", hr)  # what others made of it is no image of the set
        root = tmp_path / folder.split("/")[0]
        pairs = datasets.SRTestSet(root, 2)
        assert pairs.names == ["a"] and all(map(torch.equal, pairs.pair(0), (lr, hr)))
        assert torch.equal(datasets.SRTestSet(root, 4).pair(0)[0], imresize(hr, 0.25))  # LR is of scale 2
    assert datasets.DIV2KDataset(tmp_path / "flat", 8, 2).names == ["a"]
    save(tmp_path / "flat" / "b_SRF_2_HR.png", hr)
    with pytest.raises(FileNotFoundError, match="lacks the LR file of b"):
        datasets.SRTestSet(tmp_path / "flat", 2)


@pytest.mark.parametrize(("hr", "lr"), [("a", "ax2"), ("a", "a_LR"), ("a", "a_SRF_2"), ("a_HR", "b")])
def test_names_that_leave_open_which_is_hr_are_refused(tmp_path, hr, lr):
    save(tmp_path / f"{hr}.png", random_image(8, 8))
    save(tmp_path / f"{lr}.png", random_image(4, 4))
    with pytest.raises(ValueError, match=f"{lr}.*put HR into HR/"):
        datasets.SRTestSet(tmp_path, 2)


# --- CIFAR-10 --------------------------------------------------------------------------------------------------------


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Both layouts of a CIFAR-10 of 6 x 20 images; returns (root, images, labels) of the training part."""
    monkeypatch.setattr(datasets, "CIFAR10_BATCH", 20)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 20, 3072), dtype=np.uint8)
    labels = rng.integers(0, 10, (6, 20))
    folders = [tmp_path / kind / "CIFAR10" / f"cifar-10-batches-{kind}" for kind in ("bin", "py")]
    for folder in folders:
        folder.mkdir(parents=True)
    for i, name in enumerate([f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]):
        records = np.concatenate([labels[i][:, None].astype(np.uint8), images[i]], 1)
        (folders[0] / f"{name}.bin").write_bytes(records.tobytes())
        batch = {
            b"batch_label": b"x",
            b"labels": labels[i].tolist(),
            b"data": images[i],
            b"filenames": [b"a"],
        }
        (folders[1] / name).write_bytes(pickle.dumps(batch, protocol=2))
    return tmp_path, torch.from_numpy(images), torch.from_numpy(labels)


@pytest.mark.parametrize("kind", ["bin", "py"])
@pytest.mark.parametrize("level", ["", "CIFAR10", "CIFAR10/cifar-10-batches-{}"])
def test_cifar_reads_both_layouts_from_three_places(cifar, kind, level):
    root, images, labels = cifar
    root = root / kind / level.format(kind)
    for train, part in ((True, slice(0, 5)), (False, slice(5, 6))):
        data = datasets.find_classification(root, train)
        records = zip(labels[part].flatten().tolist(), images[part].reshape(-1, 3072).numpy(), strict=True)
        by_hash = sorted(records, key=lambda r: hashlib.sha256(bytes([r[0]]) + r[1].tobytes()).digest())
        assert data.labels.tolist() == [label for label, _ in by_hash] and data.labels.dtype == torch.int64
        assert np.array_equal(data.images.view(-1, 3072).numpy(), np.stack([pixels for _, pixels in by_hash]))
        assert data.is_cifar10 and data.name == "CIFAR-10" and data.classes == datasets.CLASSES
    img, label = data[3]
    assert torch.equal(img, data.images[3] / 255) and label == data.labels[3]


def write_classes(root, images, labels, classes):
    for i, (img, label) in enumerate(zip(images, labels, strict=True)):
        save(root / classes[label] / f"{i}.png", img)


def test_class_folders_of_cifar_are_the_same_data(cifar, tmp_path):
    root, images, labels = cifar
    binary = datasets.CIFAR10Dataset(root / "bin")
    write_classes(root / "png/CIFAR10/train", images[:5].reshape(-1, 3, 32, 32), labels[:5].flatten(), datasets.CLASSES)
    (root / "png/CIFAR10/train/Thumbs.db").touch()
    copy = datasets.find_classification(root / "png")
    assert copy.fingerprint == binary.fingerprint and copy.name == "CIFAR-10" and copy.is_cifar10
    (root / "png/CIFAR10/train/frog").rename(root / "png/CIFAR10/train/toad")
    with pytest.raises(ValueError, match=r"toad, truck instead of CIFAR-10's classes"):
        datasets.find_classification(root / "png")


def test_a_folder_of_ones_own_classes(tmp_path):
    left, right = random_image(32, 32, seed=1), random_image(32, 32, seed=2)
    wide = torch.cat([left[:, :, :10], right, left[:, :, -10:]], 2)  # its middle square is `right`
    big = random_image(49, 64, seed=3)
    write_classes(tmp_path / "mine", [left, wide, big], [2, 0, 1], ["ant", "bee", "cow"])
    data = datasets.labelled_folder(tmp_path / "mine")
    assert data.classes == ("ant", "bee", "cow") and data.labels.tolist() == [0, 1, 2] and data.name == "mine"
    assert data.images.shape == (3, 3, 32, 32) and not data.is_cifar10 and data[2][1] == 2
    assert torch.equal(data.images[0], right) and torch.equal(data.images[2], left)
    assert torch.equal(data.images[1], imresize(big[:, :, 7:56], 32 / 49)[:, :32, :32])
    with pytest.raises(FileNotFoundError, match="holds no folders: put the images of each class"):
        datasets.labelled_folder(tmp_path / "mine" / "ant")


def test_a_pickle_from_python_2_is_read(cifar):
    folder = cifar[0] / "py" / "CIFAR10" / "cifar-10-batches-py"
    # protocol 2 with numpy's old module name and text bytes through _codecs.encode, as old files have them
    text = (folder / "test_batch").read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert b"_codecs" in text and b"cnumpy.core.multiarray\n" in text
    (folder / "test_batch").write_bytes(text)
    assert len(datasets.CIFAR10Dataset(folder, train=False)) == 20


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_hostile_pickle_is_refused_and_not_run(cifar, tmp_path):
    folder = cifar[0] / "py" / "CIFAR10" / "cifar-10-batches-py"
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": Hostile(tmp_path / "ran"), b"labels": []}))
    with pytest.raises(ValueError, match=r"test_batch.*would run code"):
        datasets.CIFAR10Dataset(folder, train=False)
    assert not (tmp_path / "ran").exists()
    (folder / "test_batch").write_bytes(b"cbuiltins\neval\n(S'1+1'\ntR.")
    with pytest.raises(ValueError, match="would run code"):
        datasets.CIFAR10Dataset(folder, train=False)


def test_broken_cifar_says_what_to_do(cifar):
    root = cifar[0]
    binary, python = (root / k / "CIFAR10" / f"cifar-10-batches-{k}" for k in ("bin", "py"))
    good = (binary / "test_batch.bin").read_bytes()
    (binary / "test_batch.bin").write_bytes(good[:-1])
    with pytest.raises(ValueError, match=r"61,459 bytes instead of 61,460.*download cifar10"):
        datasets.CIFAR10Dataset(root / "bin", train=False)
    (binary / "test_batch.bin").write_bytes(bytes([10]) + good[1:])
    with pytest.raises(ValueError, match=r"labels outside 0\.\.9"):
        datasets.CIFAR10Dataset(root / "bin", train=False)
    (binary / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks data_batch_3.bin.*half-extracted.*download cifar10"):
        datasets.find_classification(root / "bin")  # broken, so no silent fallback

    whole = (python / "test_batch").read_bytes()
    (python / "test_batch").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="test_batch was not read"):
        datasets.CIFAR10Dataset(root / "py", train=False)
    (python / "test_batch").write_bytes(pickle.dumps({b"data": np.zeros((20, 3072), np.uint8)}, protocol=2))
    with pytest.raises(ValueError, match="no entry b'labels'"):
        datasets.CIFAR10Dataset(root / "py", train=False)
    (python / "test_batch").write_bytes(pickle.dumps({b"data": np.zeros((20, 3072)), b"labels": [0] * 20}, protocol=2))
    with pytest.raises(ValueError, match="float64"):
        datasets.CIFAR10Dataset(root / "py", train=False)
    with pytest.raises(FileNotFoundError, match=r"python datasets\.py download cifar10"):
        datasets.CIFAR10Dataset(root / "nowhere")


def test_a_shuffled_copy_of_cifar_is_the_same_data(real_data, tmp_path):
    test = datasets.CIFAR10Dataset(real_data("CIFAR10"), train=False)
    order = np.random.default_rng(4).permutation(len(test))
    records = np.concatenate([test.labels.numpy()[:, None], test.images.view(-1, 3072).numpy()], 1).astype(np.uint8)
    records[order].tofile(tmp_path / "test_batch.bin")
    assert datasets.CIFAR10Dataset(tmp_path, train=False).fingerprint == test.fingerprint


@pytest.mark.parametrize(
    ("found", "message"),
    [("cifar-10-python.tar.gz", "is not unpacked: unpack it there"), ("notes.txt", "neither a batch of CIFAR-10")],
)
def test_what_is_no_cifar_is_no_silent_fallback(tmp_path, found, message):
    (tmp_path / "CIFAR10").mkdir()
    (tmp_path / "CIFAR10" / found).write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match=message):
        datasets.find_classification(tmp_path)


def test_without_cifar_the_drawn_set_stands_in(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "DrawnDataset", lambda train: ("drawn", train))
    (tmp_path / "CIFAR10").mkdir()
    for junk in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / "CIFAR10" / junk).touch()
    assert datasets.find_classification(tmp_path, train=False) == ("drawn", False)
    assert datasets.find_classification(tmp_path / "none") == ("drawn", True)


def test_the_real_cifar_has_the_published_statistics(real_data):
    data = datasets.CIFAR10Dataset(real_data("CIFAR10"))
    assert data.images.shape == (50_000, 3, 32, 32) and data.labels.bincount().tolist() == [5000] * 10
    mean = [data.images[:, c].double().mean().item() / 255 for c in range(3)]
    assert np.allclose(mean, (0.4914, 0.4822, 0.4465), atol=5e-5)
    assert data.fingerprint == "6d29dd6841b94a2c"  # what the runs in results/ have seen, in their order


# --- batches ---------------------------------------------------------------------------------------------------------


def test_sample_takes_every_image_once_before_any_twice():
    steps = list(datasets.sample(23, 5, 12, torch.Generator().manual_seed(2)))
    assert [len(index) for index in steps] == [5] * 12
    whole = torch.cat(steps)
    assert torch.equal(whole[:23].sort().values, torch.arange(23))
    assert torch.equal(whole[23:46].sort().values, torch.arange(23)) and not torch.equal(whole[:23], whole[23:46])
    assert torch.equal(whole, torch.cat(list(datasets.sample(23, 5, 12, torch.Generator().manual_seed(2)))))
    with pytest.raises(ValueError, match="1 to 4 of the 4 images; found batch_size 5"):
        next(datasets.sample(4, 5, 1))


def test_centre_crops_are_the_middle_of_both_sizes():
    images = [random_image(40, 52), random_image(64, 36)]
    test_set = datasets.SRTestSet(None, 2, images=images, names=["a", "b"], name="two")
    lr_img, hr_img = datasets.centre_crops(test_set, 16)
    assert lr_img.shape == (2, 3, 8, 8) and hr_img.shape == (2, 3, 16, 16)
    assert torch.equal(datasets.to_uint8(hr_img[0]), images[0][:, 12:28, 18:34])
    assert torch.equal(lr_img[1], test_set[1][0][:, 12:20, 5:13])
    with pytest.raises(ValueError, match="a of two is smaller than 42 pixels"):
        datasets.centre_crops(test_set, 42)


def test_split_is_fixed_and_disjoint():
    train_idx, val_idx = datasets.split_indices(100, 10)
    assert len(train_idx) == 90 and len(val_idx) == 10
    assert sorted([*train_idx.tolist(), *val_idx.tolist()]) == list(range(100))
    assert torch.equal(val_idx, datasets.split_indices(100, 10)[1])
    assert not torch.equal(val_idx, datasets.split_indices(100, 10, seed=1)[1])
    with pytest.raises(ValueError, match=r"0\.\.5"):
        datasets.split_indices(5, 6)


# --- what is found ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["train", "valid"])
def test_photographs_are_taken_where_they_come_first(tmp_path, part):
    names = ["DIV2K/{}", "DIV2K/DIV2K_{}_HR", "photographs/{}", "CID22/{}"]
    for name in reversed(names):  # each goes before those that were put there earlier
        folder = tmp_path / name.format(part)
        folder.mkdir(parents=True)
        find = {"train": datasets.find_sr_train, "valid": datasets.find_sr_valid}[part]
        before = find(tmp_path)
        save(folder / f"{len(name)}.png", random_image(128, 128))
        assert before.name != find(tmp_path).name or name == "DIV2K/{}"
        assert find(tmp_path).name == ("DIV2K/{}" if "DIV2K" in name else name).format(part)
        assert find(tmp_path).names == [str(len(name))]
    (folder / "notes.txt").touch()
    (folder / f"{len(name)}.png").unlink()
    with pytest.raises(FileNotFoundError, match="holds no image"):  # there, but broken: nothing else in its stead
        find(tmp_path)


@pytest.mark.parametrize(
    ("there", "find", "line"),
    [
        ("set14/a.png", datasets.find_sr_test, "set14 is not read: it must be .*/Set14"),
        ("BSDS100/a.png", datasets.find_sr_test, "BSDS100 is not read: it must be .*/B100"),
        ("Set5_HR.tar.gz", datasets.find_sr_test, "Set5_HR.tar.gz is not read: unpack it"),
        ("CIFAR-10/data_batch_1.bin", datasets.find_classification, "CIFAR-10 is not read: it must be .*/CIFAR10"),
        ("cifar-10-python.tar.gz", datasets.find_classification, "python.tar.gz is not read: unpack it"),
        ("DIV2K_train_HR/0001.png", datasets.find_sr_train, "DIV2K_train_HR is not read: it must be .*/DIV2K/train"),
        ("div2k/train/0001.png", datasets.find_sr_train, "div2k is not read: it must be .*/DIV2K$"),
        ("DIV2K/Train/0001.png", datasets.find_sr_train, "Train is not read: it must be .*/DIV2K/train"),
        ("DIV2K/DIV2K_valid_HR.zip", datasets.find_sr_valid, "DIV2K_valid_HR.zip is not read: unpack it"),
        ("DIV2K/DIV2K_valid_HR.zip", datasets.find_sr_train, None),  # the other part
        ("cifar-100-python/train", datasets.find_classification, None),
        ("Set14/Thumbs.db", datasets.find_sr_test, None),
    ],
)
def test_a_set_under_another_name_is_not_passed_over_silently(tmp_path, capsys, monkeypatch, there, find, line):
    monkeypatch.setattr(datasets, "DrawnDataset", lambda train: None)
    (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / there).touch()
    if (tmp_path / there.split("/")[0].swapcase()).exists():
        pytest.skip("this file system does not tell small letters from capitals")
    find(tmp_path), find(tmp_path)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == (line is not None) and (not line or re.search(line, printed[0]))


def test_is_there(tmp_path):
    for folder, file in (("Set14", "HR"), ("CIFAR10", "cifar-10-batches-bin")):
        assert not datasets.is_there(folder, tmp_path)
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "Thumbs.db").touch()
        assert not datasets.is_there(folder, tmp_path)  # as good as empty
        (tmp_path / folder / file).mkdir()
        assert datasets.is_there(folder, tmp_path)


def test_vgg_is_found_beside_the_data_or_where_torchvision_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    assert datasets.find_vgg("vgg19", tmp_path) is None
    for place in ("vgg19_blocks1to3.pth", "hub/checkpoints/vgg19-dcbb9e9d.pth", "vgg19-dcbb9e9d.pth"):  # best last
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
        assert datasets.find_vgg("vgg19", tmp_path) == tmp_path / place
    assert datasets.find_vgg("vgg16", tmp_path) is None


def test_embedded_photographs_need_no_network(monkeypatch, tmp_path):
    monkeypatch.setattr("socket.socket.connect", lambda *a: (_ for _ in ()).throw(AssertionError("network")))
    names = {part: datasets.embedded_photographs(part)[1] for part in ("train", "valid", "test")}
    assert len(set().union(*names.values())) == sum(len(n) for n in names.values()) == 12  # split by image
    assert names["test"] == ["chelsea", "coffee"]
    train, valid = datasets.find_sr_train(tmp_path, 64), datasets.find_sr_valid(tmp_path)
    (test,) = datasets.find_sr_test(tmp_path, 4)
    assert {d.name for d in (train, valid, test)} == {"photographs inside scikit-image"}
    assert len(train) == 8 and train.batch(2)[1].shape == (2, 3, 64, 64)
    assert test[0][1].shape == (3, 300, 448) and test[0][2] == "chelsea"
    with pytest.raises(ValueError, match="train, valid, test"):
        datasets.embedded_photographs("all")


def test_absent_test_sets_are_named_with_the_command_that_brings_them(tmp_path):
    assert list(datasets.absent_sr_test(tmp_path)) == ["Set5", "Set14", "B100", "Urban100", "DIV2K/valid"]
    save(tmp_path / "Set14" / "a.png", random_image(8, 8))
    save(tmp_path / "DIV2K" / "valid" / "b.png", random_image(8, 8))
    absent = datasets.absent_sr_test(tmp_path)
    assert list(absent) == ["Set5", "B100", "Urban100"]
    assert all(how.split()[-1] in datasets.ARCHIVES for how in absent.values())
    assert [test_set.name for test_set in datasets.find_sr_test(tmp_path, 4, div2k=True)] == ["Set14", "DIV2K/valid"]


def test_the_command_line(tmp_path):
    """From any folder, on a console that cannot write Chinese, with a set that is broken."""
    root = tmp_path / "数据"
    save(root / "Set14" / "HR" / "a.png", random_image(32, 32))
    (root / "B100").mkdir()
    (root / "B100" / "notes.txt").touch()
    command = [sys.executable, str(PROJECT / "datasets.py")]
    how = {"capture_output": True, "text": True, "cwd": tmp_path, "env": {**os.environ, "PYTHONIOENCODING": "cp1252"}}
    listing = subprocess.run([*command, "--root", str(root)], check=True, **how).stdout
    assert re.search(r"Set14 +\S*Set14, 1 images", listing) and re.search("B100 +BROKEN.*holds no image", listing)
    assert re.search(r"CIFAR10 +missing: 162 MB, python datasets.py download cifar10", listing)
    assert "chelsea, coffee" in listing
    (tmp_path / "copy").mkdir()
    for name in ("datasets.py", "download.py", "drawn.py", "images.py"):
        shutil.copy(PROJECT / name, tmp_path / "copy")
    save(tmp_path / "copy" / "DS" / "Set5" / "a.png", random_image(8, 8))
    listing = subprocess.run([sys.executable, str(tmp_path / "copy" / "datasets.py")], check=True, **how).stdout
    assert re.search("Set5 .*Set5, 1 images", listing) and "missing" in listing  # DS beside the file


@pytest.mark.parametrize("wrong", ["download", "download imagenet", "upload"])
def test_wrong_commands_name_what_is_right(capsys, wrong):
    with pytest.raises(SystemExit, match="2"):
        datasets.main(wrong.split())
    assert ("set14" if "download" in wrong else "download") in capsys.readouterr().err
