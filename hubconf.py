"""Every trained network in one line, from a clone: torch.hub.load(FOLDER, "frozen", source="local").

They are named in tools/runs.py, TRAINED. Images go in as RGB floats in [0, 1], (N, 3, H, W).
"""
from functools import partial as _partial  # no entry

from tools.runs import TRAINED, load_network

dependencies = ["torch", "torchvision", "numpy", "PIL", "pandas", "matplotlib", "filelock", "tqdm"]
globals().update({name: _partial(load_network, name) for name in TRAINED})
