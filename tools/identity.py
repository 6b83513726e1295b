"""What a run is: all that determines its result, as plain values, and one hash of it.

Code is compared by its syntax tree without docstrings and annotations, with the functions that it calls and the values
that it reads in notebook cells and modules of the top folder; a tensor by up to 8,192 entries. Not seen: versions of
libraries, compiled functions, code in tools/, files that a function opens, what objects of a library's class hold.
"""
import ast
import dis
import functools
import itertools
import linecache
import os
import re
import sys
import time
import types
from collections.abc import Mapping
from hashlib import sha256

import numpy as np
from torch import Tensor, nn

from tools.files import hash_of, plain

ROOT, STARTED = os.path.dirname(os.path.dirname(os.path.realpath(__file__))), time.time()


def identity(settings: Mapping, data: Mapping, degradation=None, **handed) -> dict:
    """Of a run, or of an answer that is kept. handed: by its role, what made it: loss=function, network=module."""
    reader, trained = _Reader(), ("network", "generator", "discriminator")  # whose weights are what training changes
    roles = {role: reader.module(thing, role not in trained) if isinstance(thing, nn.Module) else reader.read(thing)
             for role, thing in handed.items()}  # fmt: skip
    return plain({"settings": settings, "data": data, "degradation": described(degradation), "roles": roles})


def described(thing) -> dict | None:
    """An object by its label and a hash of its class's code and its parameters."""
    return thing and {"name": str(getattr(thing, "name", type(thing).__name__)), "hash": hash_of(_Reader().read(thing))}


class _Reader:
    """Describes values as plain data; code and objects by a hash of all that they are made of."""

    def __init__(self):
        self.seen: dict[int, tuple] = {}  # id: (the object, which must not go away meanwhile, its description)

    def read(self, value):
        if value is None or isinstance(value, (int, str, float, complex, bytes, range, slice)):
            return value if value is None or isinstance(value, (int, str)) else repr(value)
        if isinstance(value, (Tensor, np.ndarray, np.generic)):
            entries = value.detach().flatten() if isinstance(value, Tensor) else value.reshape(-1)
            entries = entries[:: max(1, len(entries) // 4096)]
            entries = entries.cpu().double().numpy() if isinstance(value, Tensor) else entries
            return f"#{value.dtype} {tuple(value.shape)} {sha256(entries.tobytes()).hexdigest()[:12]}"
        if hasattr(value, "not_read"):  # settings and data are parts of their own
            return None
        if isinstance(value, Mapping):
            return {str(name): self.read(part) for name, part in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return list(map(self.read, sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value))
        if id(value) not in self.seen:
            self.seen[id(value)] = value, "itself"  # where it is met again on the way
            self.seen[id(value)] = value, self.describe(value)
        return self.seen[id(value)][1]

    def describe(self, value) -> str:
        if is_ours(value) and not isinstance(value, types.ModuleType):
            return self.kind(value) if isinstance(value, type) else self.function(value)
        known = [getattr(value, name, None) for name in ("identity", "fingerprint")]  # of runs, data sets, features
        known = [each for each in known if isinstance(each, (str, Mapping))] or getattr(value, "__wrapped__", None)
        known = [value.__func__, value.__self__] if isinstance(value, types.MethodType) else known
        if isinstance(value, nn.Module) and not known:
            return self.module(value)
        if not (known or is_ours(type(value)) or isinstance(value, (functools.partial, types.SimpleNamespace))):
            return getattr(value, "__qualname__", type(value).__qualname__)
        return "#" + hash_of(self.read(known or [type(value), value.__reduce_ex__(2)[1:3]]))

    def module(self, network: nn.Module, with_weights: bool = True) -> str:
        """A network as built, and the code of its layers."""
        ours = [layer for layer in network.modules() if is_ours(type(layer)) and not hasattr(layer, "not_read")]
        own = [[type(layer), {n: v for n, v in vars(layer).items() if n[0] != "_" and n != "training"}]
               for layer in ours] + [vars(layer).get("forward") for layer in network.modules()]  # fmt: skip
        weights = {name: part if with_weights else list(part.shape) for name, part in network.state_dict().items()}
        return "#" + hash_of([repr(network), self.read(own), self.read(weights)])

    def kind(self, kind: type) -> str:
        """A class of our own: its bases, methods and values."""
        parts = {"class": kind.__qualname__, "bases": self.read(kind.__bases__)}
        for name, entry in vars(kind).items():
            entry = entry.__wrapped__ if hasattr(entry, "hooked") else entry  # torch wraps an optimizer's step
            if isinstance(entry, (property, functools.cached_property, classmethod, staticmethod)):
                entry = next(filter(None, (getattr(entry, place, None) for place in ("fget", "func", "__func__"))))
            code = getattr(getattr(entry, "__wrapped__", entry), "__code__", None)  # a dataclass's own have no source
            if linecache.getlines(code.co_filename) if code else not name.startswith("__"):
                parts[name] = self.read(entry)
        return "#" + hash_of(parts)

    def function(self, function: types.FunctionType) -> str:
        """A function of our own: its code, its defaults, and all that it reads from outside."""
        code, file, read = function.__code__, function.__code__.co_filename, {}
        if os.path.exists(file) and os.path.getmtime(file) > STARTED:
            raise RuntimeError(f"{os.path.basename(file)} was edited while this ran: restart the program or kernel.")
        if not (tree := syntax_trees("".join(linecache.getlines(file))).get((code.co_name, code.co_firstlineno))):
            raise ValueError(f"the code of {code.co_name} cannot be read: define it in a notebook cell or in a file.")
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        scope = function.__globals__ | {name: cell.cell_contents for name, cell in cells}
        for first, *rest in sorted(name for name in names_from_outside(code) if name[0] in scope):
            path, value = first, scope[first]
            while rest and (hasattr(value, "not_read") or is_ours(value)):  # of what is not read: its methods
                path += f".{rest[0]}"
                value = getattr(type(value) if hasattr(value, "not_read") else value, rest.pop(0), None)
            if not isinstance(value, types.ModuleType):  # F.l1_loss is a library's: its name stands in the code
                read[path] = self.read(value)
        return "#" + hash_of([tree, self.read([function.__defaults__, function.__kwdefaults__]), read])


def is_ours(thing) -> bool:
    """Code of a notebook cell, or of a module of the top folder or the folder one works in; or such a module."""
    if isinstance(thing, (type, types.FunctionType)):  # what a decorator wraps may name another module than its own
        name = thing.__globals__["__name__"] if isinstance(thing, types.FunctionType) else thing.__module__
        return name == "__main__" or is_ours(sys.modules.get(name))
    return os.path.dirname(os.path.realpath(getattr(thing, "__file__", None) or os.devnull)) in (ROOT, os.getcwd())


@functools.lru_cache(maxsize=4096)
def names_from_outside(code: types.CodeType) -> frozenset[tuple[str, ...]]:
    """The dotted names that a function reads from outside itself: {("metrics", "psnr"), ("STRENGTH",)}."""
    found, steps = set(), [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]
    for place, step in enumerate(steps):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF"):
            rest = itertools.takewhile(lambda step: step.opname in ("LOAD_ATTR", "LOAD_METHOD"), steps[place + 1 :])
            found.add((step.argval, *(step.argval for step in rest)))
    found = found.union(*(names_from_outside(c) for c in code.co_consts if isinstance(c, types.CodeType)))
    return frozenset(chain for chain in found if chain[0] not in code.co_cellvars)


@functools.lru_cache(maxsize=256)
def syntax_trees(text: str) -> dict[tuple[str, int], list[str]]:
    """Of a file's or cell's functions, by name and first line, without docstrings and annotations."""
    trees = {}
    for node in reversed(list(ast.walk(ast.parse(text)))):  # what stands inside a function comes before it
        vars(node).update({name: None for name in ("annotation", "returns", "kind") if hasattr(node, name)})
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):  # lambdas that share a line count together
            line = min([node.lineno, *(entry.lineno for entry in getattr(node, "decorator_list", ()))])
            dumped = re.sub(r",? ?\w+=(\[\]|None)", "", ast.dump(node))  # what some Pythons alone write
            trees.setdefault((getattr(node, "name", "<lambda>"), line), []).append(hash_of(dumped))
    return trees
