"""What a run is: every edit that can change a result is seen, in a cell and in a module; no other one is."""
import math
import sys
import time

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

import datasets
import ladder
import NetSet
import training
from tools import identity, notebooks

from .conftest import refuses

PAGE = '''
import functools
import helper
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tools.identity import identity, own_code
STRENGTH, KERNEL, TABLE = 0.5, torch.ones(3), np.arange(4.0)
TERMS = {"l1": 1.0, "tv": [0.1, 0.2]}
distance = F.l1_loss
# %%
def other(a, b):
    return F.l1_loss(a, b)
def smooth(img, factor=STRENGTH):
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
    __slots__, scale = ("size",), 1.0
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
    total = distance(smooth(img), batch["img"]) * TERMS["l1"] + term(img) + len(levels())
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
                 network=network(), made=own_code(helper.deeper), **{"network()": own_code(network)})
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
    cells = [new_code_cell(source) for source in page.split("# %%")]
    nbformat.write(new_notebook(cells=cells), folder / "page.ipynb")
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


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> dict:
    return read(tmp_path_factory.mktemp("page"))


@pytest.mark.parametrize("old, new, words", [
    ("smooth(img), batch", "smooth(img, 1.0), batch", ["loss (2) edited"]),  # the first of this name is its wrapper
    ("F.l1_loss(", "F.mse_loss(", ["other edited"]),
    ("= F.l1_loss", "= F.mse_loss", ["distance l1_loss → mse_loss"]),
    ("return helper.scaled(img) * factor", "return helper.scaled(img) + factor", ["smooth edited"]),
    ("TABLE = 0.5", "TABLE = 0.6", ["STRENGTH 0.5 → 0.6", "smooth: defaults [0.5] → [0.6]"]),
    ("torch.ones(3)", "torch.zeros(3)", ["KERNEL edited"]),
    ("np.arange(4.0)", "np.arange(1.0, 5.0)", ["TABLE edited"]),
    ('"tv": [0.1, 0.2]', '"tv": [0.1, 0.3]', ["TERMS.tv [0.1, 0.2] → [0.1, 0.3]"]),
    ("return [1, 2]", "return [1, 2, 3]", ["levels edited"]),
    ("@weighted(2.0)", "@weighted(3.0)", ["loss (2) edited", "loss: factor 2.0 → 3.0"]),
    ("factor * function(*args)", "factor + function(*args)", ["loss edited", "weighted edited"]),
    ("quad = power(2)", "quad = power(4)", ["power.<locals>.<lambda> (3): exponent 2 → 4"]),
    ("power(3), power(3)", "power(4), power(3)", ["power.<locals>.<lambda>: exponent 3 → 4"]),
    ("power(3), power(3)", "power(3), power(2)", ["power.<locals>.<lambda> (2): exponent 3 → 2"]),
    ("lambda x: x - 1", "lambda x: x - 2", ["<lambda> edited", "<lambda> (2) edited"]),  # those of one line are one
    ("1.0\n    def", "2.0\n    def", ["Term.scale 1.0 → 2.0"]),
    ("term = Term(3)", "term = Term(4)", ["term.size 3 → 4"]),
    ("return 2 * self.size", "return 4 * self.size", ["Term.doubled edited"]),
    ("term = Term(3)", "term = Term(3)\nTerm.__call__ = lambda self, img: img.mean()",
     ["<lambda> (3) added", "Term.__call__ edited"]),
    ("return self.gain * self.conv(img)", "return self.gain + self.conv(img)", ["Net.forward edited"]),
    ("GAIN, STD = 1.0", "GAIN, STD = 2.0", ["network edited", "network() edited"]),
    ("STD = 1.0, 0.02", "STD = 1.0, 0.03", ["network() edited"]),
    ("nn.Conv2d(3, 3, 1)", "nn.Conv2d(3, 3, 3, padding=1)", ["network edited", "Net.__init__ edited"]),
    ("images // self.strength", "images - self.strength", ["degradation edited"]),
    ("Half(2)", "Half(3)", ["degradation edited"]), ('name = "half"', 'name = "less"', ["degradation half → less"]),
    ('"rate": 0.1', '"rate": 0.2', ["rate 0.1 → 0.2"]), ('"rate": 0.1, ', "", ["rate 0.1 → none"]),
    ('"epochs": 2', '"epochs": 2, "decay": 0', ["decay none → 0"]),
    ('{"sr": 0.5}', '{"sr": 1}', ["rate_factors.sr 0.5 → 1"]),
    ('"fingerprint": "00"', '"fingerprint": "01"', ["data edited"]), ('"name": "A"', '"name": "B"', ["data A → B"]),
    ("other, 1, b=2.0", "other, 0, b=3.0", ["validate.0 1 → 0", "validate.b 2.0 → 3.0"]),
    ("KERNELS, img = 0,", "KERNELS, img = 1,", ["loss (2) edited"]),
    # what changes nothing
    ("    # the parts\n", "\n    # all of its parts\n\n", []), ("len(levels())", "len( levels( ) )", []),
    ('"""Less of it."""', '"""Much less\n    of it."""', []), ("square, cube,", "unused = 3\nsquare, cube,", []),
    ("(img, factor=STRENGTH):", "(\n    img: torch.Tensor, factor: float = STRENGTH\n) -> object:", []),
])  # fmt: skip
def test_an_edited_cell_is_seen_where_it_can_change_the_result(tmp_path, before, old, new, words):
    assert old in PAGE
    found = read(tmp_path, PAGE.replace(old, new, 1))
    assert identity.differences(before, found) == words
    assert (identity.hash_of(found) == identity.hash_of(before)) is not bool(words)


@pytest.mark.parametrize("old, new, words", [
    ("DEPTH = 3", "DEPTH = 5", ["helper.WIDTH 3 → 5"]), ('"""A module', 'UNUSED = 3\n"""A module', []),
    ("DEPTH = 3, 4", "DEPTH = 3, 5", ["made edited", "helper.DEPTH 4 → 5"]),
    ("img - DEPTH", "img + DEPTH", ["made edited", "helper.deeper edited"]),
    ("def deeper(img):", "# why\n\n\ndef deeper(img):\n    'less'", []),
])  # fmt: skip
def test_an_edited_module_is_seen_the_same_way(tmp_path, before, old, new, words):
    assert identity.differences(before, read(tmp_path, helper=HELPER.replace(old, new))) == words


def test_networks_are_compared_as_built_and_those_that_are_not_trained_by_their_weights(monkeypatch):
    def of(role="network", **options):
        torch.manual_seed(options.pop("seed", 0))
        return identity.identity({}, {}, **{role: NetSet.SRResNet(2, 8, **options)})

    assert of() == of(seed=1) and of("teacher") == of("teacher") != of("teacher", seed=1)
    assert identity.differences(of(), of(num_blocks=2)) == ["network edited"]
    before = of()
    monkeypatch.setattr(NetSet.SRResNet, "forward", lambda self, lr_img: self.reconstruct(self.extract(lr_img) + 1))
    assert identity.differences(before, of()) != []  # put in its place from outside


def test_what_the_arms_hold_and_what_degradations_are_made_of_is_read():
    for name, arm in ladder.ARMS.items():
        found = identity.identity({}, {}, None, arm=arm)
        assert found["roles"]["arm"]["trains_sr"] is arm.trains_sr
        assert ("ladder.soft_labels" in found["code"]) is (arm.extra is ladder.soft_labels), name
    hashes = [identity.described(thing)["hash"] for thing in (*datasets.degradations().values(), datasets.Fuzz(4))]
    assert len(set(hashes)) == len(hashes) and identity.described(None) is None
    assert identity.described(datasets.Fuzz(2)) == identity.described(datasets.Fuzz(2))


def test_it_takes_a_few_milliseconds():
    handed = {"optimizer": training.make_optimizers, "loop": training.train_epoch, "schedule": training.make_schedule}
    network = NetSet.MultiTaskNet(NetSet.SRNet(), NetSet.ClassifyNet())
    for _ in range(2):
        started = time.perf_counter()
        identity.identity({}, {}, datasets.Fuzz(2), network=network, augment=datasets.augment, **handed)
        seconds = time.perf_counter() - started
    assert seconds < 0.5


def test_code_that_cannot_be_read_or_is_not_what_runs_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "STARTED", time.time() + 60)
    page = PAGE.replace("found =", "import os; os.utime('helper.py', (2e10, 2e10))\nfound =")
    refuses(RuntimeError, r"helper\.py was edited while this program ran.*the kernel", read, tmp_path, page)
    names = {"__name__": "__main__"}
    exec("def loss(model, batch): return 0, {}", names)
    refuses(ValueError, "the code of loss cannot be read", identity.identity, {}, {}, loss=names["loss"])


def test_plain_values_and_hashes():
    assert identity.plain({1: (2, float("nan"), torch.tensor(3))}) == {"1": [2, None, 3]}
    assert identity.hash_of({"a": 1, "b": [2]}) == identity.hash_of({"b": (2,), "a": 1}) != identity.hash_of({"a": 1})
