"""What a run is: every edit that can change a result is seen, in a cell and in a module; no other one is."""
import math
import sys
import time

import pytest
import torch

import NetSet
import training
from tools import identity, notebooks

from .conftest import code, refuses, write_notebook

PAGE = '''
import enum
import functools
import types
import helper
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tools.identity import identity
PASSES, SLOTS = range(2), frozenset({'b', 'a'})
class Kind(enum.Enum):
    FIRST = 5
KIND, OPTIONS, inner = Kind.FIRST, types.SimpleNamespace(share=6), 7
FACTOR, STRENGTH, KERNEL, TABLE = 1.5, 0.5, torch.ones(3), np.arange(4.0)
TERMS = {"l1": 1.0, "tv": [0.1, 0.2]}
distance = F.l1_loss
# %%
def other(a, b):
    return F.l1_loss(a, b)
def smooth(img, factor=FACTOR):
    """Less of it."""
    return helper.scaled(img) * factor + KERNEL.sum() + float(TABLE[0])
@functools.cache
def levels():
    return [1, 2]
def weighted(factor):
    def around(function):
        return functools.wraps(function)(lambda *args: factor * function(*args))
    return around
def power(exponent):
    return lambda img: img ** exponent
square, cube, quad = power(2), power(3), power(3)
pair = (lambda x: x + 1, lambda x: x - 1)
# %%
class Term:
    __slots__, reach, scale = ("size",), functools.partial(max, 8), 1.0
    def __init__(self, size):
        self.size = size
    @property
    def doubled(self):
        return 2 * self.size
    def __call__(self, img):
        return self.scale * self.doubled * img.mean()
term = Term(3)
# %%
@weighted(2.0)
def loss(model, batch):
    # the parts
    KERNELS, img = 0, model(batch["img"])
    inner = OPTIONS.share if isinstance(img, Tensor) and KIND is Kind.FIRST else 0
    img = img * (lambda: inner)()
    total = distance(smooth(img), batch["img"]) * TERMS["l1"] + term(img) + len(levels()) + len(PASSES) + len(SLOTS)
    return total + sum(part(other(total, 0)) for part in (square, cube, quad, *pair)), {"strength": STRENGTH}
def batches(generator):
    yield {"img": helper.WIDTH * torch.rand(2, 3, 4, 4, generator=generator)}
# %%
class Net(nn.Module):
    def __init__(self, gain):
        super().__init__()
        self.gain, self.conv = gain, nn.Conv2d(3, 3, 1)
    def forward(self, img):
        return self.gain * self.conv(img)
GAIN, STD = 1.0, 0.02
def network():
    net = Net(GAIN)
    net.conv.forward = lambda img: 3 * img
    nn.init.normal_(net.conv.weight, std=STD)
    return net
# %%
class Half:
    name = "half"
    def __init__(self, strength):
        self.strength = strength
    def __call__(self, images, generator=None):
        return images // self.strength
settings = {"rate": 0.1, "epochs": 2, "rate_factors": {"sr": 0.5}}
data = {"name": "A", "fingerprint": "00"}
# %%
found = identity(settings, data, Half(2), loss=loss, batches=batches, validate=functools.partial(other, 1, b=2.0),
                 network=network(), **{"network()": network})
'''
HELPER = '''"""A module beside the notebook."""
WIDTH, DEPTH = 3, 4
def scaled(img):
    return deeper(img) / WIDTH
def deeper(img):
    return img - DEPTH
'''


def read(folder, page=PAGE, helper=HELPER) -> dict:
    """The identity that a notebook of these cells comes to."""
    write_notebook(folder / "page.ipynb", *map(code, page.split("# %%")))
    (folder / "helper.py").write_text(helper)
    sys.modules.pop("helper", None)
    try:
        return notebooks.run_cells(folder / "page.ipynb")["found"]
    finally:
        sys.modules.pop("helper", None)


@pytest.fixture(scope="module", autouse=True)
def old_enough():
    """The modules that these tests write count as older than this program; nothing stays compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "STARTED", math.inf)
        patch.setattr(sys, "dont_write_bytecode", True)
        yield


def changed(before: dict, after: dict) -> set[str]:
    """The parts and roles that differ; with none of them the hashes are equal, too."""
    parts = {part for part in ("settings", "data", "degradation") if before[part] != after[part]}
    parts |= {role for role, found in before["roles"].items() if found != after["roles"][role]}
    assert (identity.hash_of(before) == identity.hash_of(after)) is not bool(parts)
    return parts


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> dict:
    return read(tmp_path_factory.mktemp("page"))


@pytest.mark.parametrize("old, new, edited", [
    ("smooth(img), batch", "smooth(img, 1.0), batch", "loss"), ("F.l1_loss(", "F.mse_loss(", "loss validate"),
    ("= F.l1_loss", "= F.mse_loss", "loss"), ("scaled(img) * factor", "scaled(img) + factor", "loss"),
    ("TABLE = 1.5, 0.5", "TABLE = 1.5, 0.6", "loss"), ("TABLE = 1.5", "TABLE = 1.6", "loss"),
    ("torch.ones(3)", "torch.zeros(3)", "loss"),
    ("np.arange(4.0)", "np.arange(1.0, 5.0)", "loss"), ('"tv": [0.1, 0.2]', '"tv": [0.1, 0.3]', "loss"),
    ("return [1, 2]", "return [1, 2, 3]", "loss"), ("@weighted(2.0)", "@weighted(3.0)", "loss"),
    ("factor * function(*args)", "factor + function(*args)", "loss"), ("quad = power(2)", "quad = power(4)", "loss"),
    ("power(3), power(3)", "power(3), power(2)", "loss"), ("lambda x: x - 1", "lambda x: x - 2", "loss"),
    ("1.0\n    def", "2.0\n    def", "loss"), ("term = Term(3)", "term = Term(4)", "loss"),
    ("return 2 * self.size", "return 4 * self.size", "loss"), ("range(2)", "range(3)", "loss"),
    ("FIRST = 5", "FIRST = 4", "loss"), ("share=6", "share=5", "loss"), ("partial(max, 8)", "partial(max, 9)", "loss"),
    ("lambda img: 3 * img", "lambda img: 4 * img", "network network()"),
    ("term = Term(3)", "term = Term(3)\nTerm.__call__ = lambda self, img: img.mean()", "loss"),
    ("KERNELS, img = 0,", "KERNELS, img = 1,", "loss"), ("other, 1, b=2.0", "other, 1, b=3.0", "validate"),
    ("return self.gain * self.conv(img)", "return self.gain + self.conv(img)", "network network()"),
    ("GAIN, STD = 1.0", "GAIN, STD = 2.0", "network network()"), ("STD = 1.0, 0.02", "STD = 1.0, 0.03", "network()"),
    ("nn.Conv2d(3, 3, 1)", "nn.Conv2d(3, 3, 3, padding=1)", "network network()"),
    ("images // self.strength", "images - self.strength", "degradation"), ("Half(2)", "Half(3)", "degradation"),
    ('name = "half"', 'name = "less"', "degradation"), ('"rate": 0.1', '"rate": 0.2', "settings"),
    ('"rate": 0.1, ', "", "settings"), ('"epochs": 2', '"epochs": 2, "decay": 0', "settings"),
    ('"fingerprint": "00"', '"fingerprint": "01"', "data"), ('"name": "A"', '"name": "B"', "data"),
    # what changes nothing
    ("share=6), 7", "share=6), 8", ""),  # the loss has an `inner` of its own
    ("    # the parts\n", "\n    # all of its parts\n\n", ""), ("len(levels())", "len( levels( ) )", ""),
    ('"""Less of it."""', '"""Much less\n    of it."""', ""), ("square, cube,", "unused = 3\nsquare, cube,", ""),
    ("(img, factor=FACTOR):", "(\n    img: torch.Tensor, factor: float = FACTOR\n) -> object:", ""),
    ("batches(generator):", "batches(generator):\n    images = 0", "batches"),
])  # fmt: skip
def test_an_edited_cell_is_seen_where_it_can_change_the_result(tmp_path, before, old, new, edited):
    assert old in PAGE
    assert changed(before, read(tmp_path, PAGE.replace(old, new, 1))) == set(edited.split())


@pytest.mark.parametrize("old, new, edited", [
    ("DEPTH = 3", "DEPTH = 5", "loss batches"), ("DEPTH = 3, 4", "DEPTH = 3, 5", "loss"),
    ("img - DEPTH", "img + DEPTH", "loss"), ('"""A module', 'UNUSED = 3\n"""A module', ""),
    ("def deeper(img):", "# why\n\n\ndef deeper(img):\n    'less'", ""),
])  # fmt: skip
def test_an_edited_module_is_seen_the_same_way(tmp_path, before, old, new, edited):
    assert changed(before, read(tmp_path, helper=HELPER.replace(old, new))) == set(edited.split())


def test_networks_are_compared_as_built_and_those_that_are_not_trained_by_their_weights(monkeypatch):
    def of(role="network", seed=0, **options):
        torch.manual_seed(seed)
        return identity.identity({}, {}, **{role: NetSet.SRResNet(2, 8, **options)})

    assert of() == of(seed=1) and of("teacher") == of("teacher") != of("teacher", seed=1)
    before = of()
    assert before != of(num_blocks=2)
    monkeypatch.setattr(NetSet.SRResNet, "forward", lambda self, lr_img: self.reconstruct(self.extract(lr_img) + 1))
    assert before != of()  # put in its place from outside


def test_the_first_optimizer_of_a_class_is_no_edit(monkeypatch):
    """torch wraps the class's `step` when it makes one: a page that trains and is run again is the same page."""
    step = training.Muon.step
    monkeypatch.setattr(training.Muon, "step", step.__wrapped__ if hasattr(step, "hooked") else step)
    before = identity.identity({}, {}, optimizer=training.make_optimizers)
    training.make_optimizers(NetSet.make({"network": "srnet"}), {"optimizer": "muon", "learning_rate": 1.0})
    assert training.Muon.step.hooked and identity.identity({}, {}, optimizer=training.make_optimizers) == before


def test_code_that_cannot_be_read_or_is_not_what_runs_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "STARTED", time.time() + 60)
    page = PAGE.replace("found =", "import os; os.utime('helper.py', (2e10, 2e10))\nfound =")
    refuses(RuntimeError, r"helper\.py was edited while this ran: restart.*kernel", read, tmp_path, page)
    names = {"__name__": "__main__"}
    exec("def loss(model, batch): return 0, {}", names)
    refuses(ValueError, "the code of loss cannot be read", identity.identity, {}, {}, loss=names["loss"])
