"""Every trained network in one line, from a clone: torch.hub.load(FOLDER, "frozen", source="local").

They are named in tools/runs.py, TRAINED. Images go in as RGB floats in [0, 1], (N, 3, H, W).
"""
from tools.runs import TRAINED, load_network

dependencies = ["torch", "torchvision", "numpy", "PIL", "pandas", "matplotlib", "filelock", "tqdm"]


def _entry(name: str):
    def load():
        return load_network(name)

    folder, network = TRAINED[name]
    load.__name__, load.__doc__ = name, f"{network or 'MultiTaskNet'} with the weights of results/{folder}."
    return load


globals().update({name: _entry(name) for name in TRAINED})
