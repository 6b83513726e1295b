"""CIFAR-10's files: where they lie, and their records, from the binary or the Python version.

The Python version is a set of pickles, which can run code: arrays, numbers and text are read, all else is refused.
"""

import pickle
from pathlib import Path

import numpy as np

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCH = 10_000  # images a file
HELP = "delete it and run `python3 run.py data cifar10`"


def find(root: Path) -> Path | None:
    """Where batches or class folders lie: `root`, `root`/CIFAR10, or a cifar-10-batches-* in one of them; else None."""
    for base in (root, root / "CIFAR10"):
        for folder in (base / "cifar-10-batches-bin", base / "cifar-10-batches-py"):
            if folder.is_dir():
                return folder
        batches = any(base.glob("data_batch_*")) or any(base.glob("test_batch*"))
        if batches or any((base / part / name).is_dir() for part in ("train", "test") for name in CLASSES):
            return base
    return None


def read(folder: Path, train: bool) -> np.ndarray:
    """uint8 (N, 3073): a label byte, then R, G, B, each 32x32. Raises where a file is missing or broken."""
    suffix = ".bin" if any(folder.glob("*.bin")) else ""
    names = [f"data_batch_{i}" for i in range(1, 6)] if train else ["test_batch"]
    files = [folder / (name + suffix) for name in names]
    if missing := [f.name for f in files if not f.is_file()]:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}, half-extracted: {HELP}")
    records = np.empty((len(files), BATCH, 3073), np.uint8)
    for i, file in enumerate(files):
        batch = np.fromfile(file, np.uint8) if suffix else _read_pickle(file)
        if batch.size != records[i].size:
            raise ValueError(f"{file} has {batch.size:,} bytes instead of {records[i].size:,}: {HELP}")
        records[i] = batch.reshape(-1, 3073)
        if records[i, :, 0].max() > 9:
            raise ValueError(f"{file} has labels outside 0..9: {HELP}")
    return records.reshape(-1, 3073)


_HARMLESS = {("numpy", "ndarray"), ("numpy", "dtype"), ("numpy", "_reconstruct"), ("_codecs", "encode")}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module.split(".")[0], name) not in _HARMLESS:
            raise ValueError(f"it would run code ({module}.{name})")
        return super().find_class(module, name)


def _read_pickle(path: Path) -> np.ndarray:
    try:
        with open(path, "rb") as file:
            batch = _ArrayUnpickler(file, encoding="bytes").load()
        data, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # a broken pickle raises all sorts of errors
        raise ValueError(f"{path} was not read ({error}): {HELP}") from error
    if data.dtype != np.uint8 or data.shape != (BATCH, 3072) or labels.shape != (BATCH,):
        raise ValueError(f"{path} holds {data.dtype} {data.shape} and {labels.shape} labels: {HELP}")
    return np.concatenate([labels.clip(-1, 10)[:, None].astype(np.uint8), data], 1)  # -1 becomes 255: out of range
