"""What every test shares: one thread, no windows, and where the real data is."""

from collections.abc import Callable
from pathlib import Path

import hypothesis
import matplotlib
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent

torch.set_num_threads(1)
matplotlib.use("Agg")  # not through MPLBACKEND: notebooks run by the tests would inherit it and draw nothing
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """real_data("Set5") is the folder DS/Set5; the test is skipped where it is missing."""

    def folder(name: str = "") -> Path:
        path = ROOT / "DS" / name
        if not any(p.name != "README.md" for p in path.glob("*")):
            pytest.skip(f"needs real data in DS/{name}; DS/README.md and `python datasets.py` say how to get it")
        return path

    return folder
