"""What a run is: all that determines its result, as plain values, and one hash of it.

Gathered are settings, data, degradation, the network as built, and the code that a notebook hands over (loss, batches,
validation) with the functions that it calls and the values that it reads, as far as these stand in notebook cells or in
modules of the project's top folder. Code is compared by its syntax tree without docstrings and annotations, so comments
and line breaks change nothing; a tensor by its shape and up to 8,192 of its entries.

Not seen: versions of libraries (run.json names torch's), compiled functions, code in tools/, files that a function
opens, what objects of a library's class hold, but for arrays and modules.
"""
import ast
import dis
import functools
import hashlib
import inspect
import json
import linecache
import math
import os
import re
import sys
import time
import types
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor, nn

ROOT, STARTED = str(Path(__file__).resolve().parent.parent), time.time()
TRAINED = ("network", "generator", "discriminator")
NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
DESCRIPTORS = (functools.cached_property, property, classmethod, staticmethod)


def identity(settings: Mapping, data: Mapping, degradation=None, **handed) -> dict:
    """Of a run, or of an answer that is kept. handed: by its role, what made it: loss=function, network=module."""
    reader = _Reader()
    roles = {role: reader.module(thing, trained=True) if role in TRAINED and isinstance(thing, nn.Module)
             else reader.read(thing) for role, thing in handed.items()}  # fmt: skip
    return {"settings": plain(settings), "data": plain(data), "degradation": described(degradation),
            "roles": roles, "code": reader.code}  # fmt: skip


def described(thing) -> dict | None:
    """An object by its label and a hash of its class's code and its parameters."""
    reader = _Reader()
    name = str(getattr(thing, "name", type(thing).__name__))
    return None if thing is None else {"name": name, "hash": hash_of([reader.read(thing), reader.code])}


def own_code(function) -> str:
    """A hash of a function, of those in notebook cells that it calls, and of the numbers and texts that they read: for
    what makes a network, which is compared as built.
    """
    reader = _Reader(cells_only=True)
    return "#" + hash_of([reader.read(function, first=True) or _title(function), reader.code])


def hash_of(content) -> str:
    """The first 12 hex characters of the SHA-256 of plain values, whatever the order of their names."""
    return hashlib.sha256(json.dumps(plain(content), sort_keys=True).encode()).hexdigest()[:12]


def differences(stored: Mapping, wanted: Mapping) -> list[str]:
    """What differs between two identities, in words: "num_blocks 8 → 4", "sr_loss edited", "data A → B"."""
    words = []
    for part in ("data", "degradation"):
        before, now = (each.get(part) or {} for each in (stored, wanted))
        names = [each.get("name") for each in (before, now)]
        if before != now:
            words.append(f"{part} edited" if names[0] == names[1] else f"{part} {names[0]} → {names[1]}")
    for part in ("settings", "roles", "code"):
        words += _changed("", stored.get(part) or {}, wanted.get(part) or {})
    return words


def _changed(name: str, old, new) -> list[str]:
    if old == new:
        return []
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = sorted({*old, *new})
        return [word for key in names for word in _changed(f"{name}.{key}".lstrip("."), old.get(key), new.get(key))]
    if any(str(value).startswith("#") for value in (old, new)):
        return [f"{name} {'added' if old is None else 'removed' if new is None else 'edited'}"]
    return [" → ".join((f"{name} {old}", str(new))).replace("None", "none")]


def plain(content):
    """As JSON gives it back, so that stored and present values compare equal; nan and inf become None."""
    if isinstance(content, Mapping):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [plain(value) for value in content]
    content = content.item() if hasattr(content, "item") else content
    return None if isinstance(content, float) and content - content != 0 else content


class _Reader:
    """Describes values as plain data. Code of our own goes into `code`, by its title: its hash, and all that it reads
    from outside. cells_only: of that, functions of notebook cells, numbers, texts and tensors alone.
    """

    def __init__(self, cells_only: bool = False):
        self.code, self.cells_only = {}, cells_only
        self.seen: dict[int, tuple] = {}  # id: (object, which must not go away meanwhile, its title)

    def read(self, value, first: bool = False):
        """A value as plain data; code by its title."""
        while hasattr(value, "__wrapped__") and not _is_ours(value):  # functools.cache and the like
            value = value.__wrapped__
        if value is None or isinstance(value, (bool, int, float, str)):
            return repr(value) if isinstance(value, float) and not math.isfinite(value) else plain(value)
        if isinstance(value, (Tensor, np.ndarray, np.generic)):
            entries = value.detach().flatten() if isinstance(value, Tensor) else value.reshape(-1)
            entries = entries[:: max(1, len(entries) // 4096)]
            entries = entries.cpu().double().numpy() if isinstance(value, Tensor) else entries
            return f"#{value.dtype} {list(value.shape)} {hashlib.sha256(entries.tobytes()).hexdigest()[:12]}"
        if isinstance(value, functools.partial):
            given = dict(enumerate(value.args)) | value.keywords
            return {"of": self.read(value.func, first)} | {str(key): self.read(part) for key, part in given.items()}
        if isinstance(value, types.FunctionType) and (_is_cell(value) if self.cells_only and not first
                                                      else _is_ours(value)):  # fmt: skip
            return self.function(value)
        if self.cells_only or hasattr(value, "not_read"):  # settings and data are parts of their own
            return None
        if isinstance(value, types.MethodType):
            return {"of": self.read(value.__func__), "self": self.read(value.__self__)}
        value = vars(value) if isinstance(value, types.SimpleNamespace) else value
        value = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        if isinstance(value, (Mapping, list, tuple)):
            parts = value.items() if isinstance(value, Mapping) else enumerate(value)
            found = {str(name): self.read(part) for name, part in parts}
            found = found if isinstance(value, Mapping) else list(found.values())
            return found if len(found) <= 20 else "#" + hash_of(found)
        known = getattr(value, "identity", None) or getattr(value, "fingerprint", None)
        if isinstance(known, (str, Mapping)):
            return self.read(known)
        if isinstance(value, nn.Module):
            return self.module(value)
        if isinstance(value, type) and _is_ours(value):
            return self.kind(value)
        if _is_ours(type(value)) and id(value) not in self.seen:
            self.seen[id(value)] = value, ""
            slots = {name: getattr(value, name, None) for name in getattr(type(value), "__slots__", ())}
            return {"class": self.kind(type(value))} | self.read(slots | getattr(value, "__dict__", {}))
        return repr(value) if type(value) in (range, slice, bytes, complex) else _title(value)

    def name(self, thing) -> str:
        """The title of a function or class; of two that share one, the second's ends in (2)."""
        others = [title for _, title in self.seen.values() if title == _title(thing) or
                  title.startswith(f"{_title(thing)} (")]  # fmt: skip
        title = f"{_title(thing)} ({len(others) + 1})" if others else _title(thing)
        self.seen[id(thing)] = thing, title
        return title

    def note(self, name: str, found) -> None:
        if found not in (None, name):
            while self.code.get(name, found) != found:  # what was called so once, under another name now
                name += "′"
            self.code[name] = found

    def module(self, network: nn.Module, trained: bool = False) -> str:
        """A network as built, and the code of its layers. trained: less its weights, which are what training changes"""
        layers, state = [], network.state_dict()
        for place, layer in network.named_modules():
            ours = _is_ours(type(layer))
            own = {name: self.read(value) for name, value in vars(layer).items()
                   if name == "forward" or (ours and name[0] != "_" and name != "training")}  # fmt: skip
            layers.append([place, self.read(type(layer)), layer.extra_repr(), own])
        weights = None if trained else list(map(self.read, state.values()))
        return "#" + hash_of([layers, {name: list(part.shape) for name, part in state.items()}, weights])

    def kind(self, kind: type) -> str:
        """A class of our own: its bases, methods and values."""
        title = self.seen[id(kind)][1] if id(kind) in self.seen else None
        if title is None:
            title = self.name(kind)
            self.note(title, ["class", *map(self.read, kind.__bases__)])
            for name, entry in vars(kind).items():
                inside = [getattr(entry, place, None) for place in ("fget", "fset", "func", "__func__")]
                for part in filter(None, inside) if isinstance(entry, DESCRIPTORS) else [entry]:
                    is_code = isinstance(part, types.FunctionType)
                    # what a dataclass writes has no source
                    if _has_source(inspect.unwrap(part)) if is_code else not name.startswith("__"):
                        self.note(f"{title}.{name}", self.read(part))
        return title

    def function(self, function: types.FunctionType) -> str:
        """A function of our own: its code, and all that it reads from outside."""
        if id(function) in self.seen:
            return self.seen[id(function)][1]
        code, outside = function.__code__, function.__globals__
        digest, chains, decorators = _source(code)
        title = self.name(function)
        self.note(title, digest)
        self.note(f"{title}: defaults", self.read(function.__defaults__))
        self.note(f"{title}: defaults by name", self.read(function.__kwdefaults__))
        enclosed = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
        for first, *rest in sorted(chains):
            if first in enclosed and first != "__class__":
                value, path = enclosed[first].cell_contents, f"{title}: {first}"
            elif first in outside and first in _global_names(code) | decorators:
                value, path = outside[first], _module_of(function) + first
            else:
                continue
            while rest and (hasattr(value, "not_read") or _is_ours_module(value)):
                is_module = isinstance(value, types.ModuleType)
                path = f"{value.__name__ if is_module else path}.{rest[0]}"
                value = getattr(value if is_module else type(value), rest.pop(0), None)  # of such objects: methods
            if not isinstance(value, types.ModuleType):  # F.l1_loss is a library's: its name stands in the code
                self.note(path, self.read(value))
        return title


def _module_of(thing) -> str:
    """The module that a function or class was written in, whatever a decorator says; "" for a notebook cell."""
    name = thing.__globals__["__name__"] if isinstance(thing, types.FunctionType) else thing.__module__
    return "" if name == "__main__" else f"{name}."


def _title(thing) -> str:
    own = getattr(thing, "__qualname__", type(thing).__qualname__)
    return _module_of(thing) + own if _is_ours(thing) else own


def _is_cell(thing) -> bool:
    return isinstance(thing, (type, types.FunctionType)) and not _module_of(thing)


def _is_ours(thing) -> bool:
    """Does it stand in a notebook cell, or in a module of the top folder or of the folder one works in?"""
    is_code = isinstance(thing, (type, types.FunctionType))
    return is_code and (_is_cell(thing) or _is_ours_module(sys.modules.get(_module_of(thing)[:-1])))


def _is_ours_module(thing) -> bool:
    file = isinstance(thing, types.ModuleType) and getattr(thing, "__file__", None)
    return bool(file) and _folder(file) in (ROOT, os.getcwd())


_folder = functools.cache(lambda file: str(Path(file).resolve().parent))


def _has_source(function: types.FunctionType) -> bool:
    return bool(linecache.getlines(function.__code__.co_filename))


@functools.lru_cache(maxsize=4096)
def _global_names(code: types.CodeType) -> frozenset[str]:
    inner = [_global_names(part) for part in code.co_consts if isinstance(part, types.CodeType)]
    return frozenset(step.argval for step in dis.get_instructions(code)
                     if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")).union(*inner)  # fmt: skip


def _source(code: types.CodeType) -> tuple[str, set, set]:
    """A hash of a function's syntax tree, the dotted names in it, and the names that its decorators read."""
    file = code.co_filename
    if os.path.exists(file) and os.path.getmtime(file) > STARTED:
        raise RuntimeError(f"{Path(file).name} was edited while this program ran: restart it (in a notebook, the "
                           "kernel), so that what you see is what runs.")  # fmt: skip
    found = _hashed("".join(linecache.getlines(file)), code.co_name, code.co_firstlineno)
    if not found:
        raise ValueError(f"the code of {code.co_name} cannot be read: define it in a notebook cell or in a file.")
    return found


@functools.lru_cache(maxsize=4096)
def _hashed(text: str, name: str, line: int) -> tuple[str, set, set] | None:
    nodes = _functions(text).get((name, line), [])  # more than one: lambdas of one line
    dumped = [re.sub(r",? ?\w+=(\[\]|None)", "", ast.dump(node)) for node in nodes]  # written by some Pythons only
    decorators = [entry for node in nodes for entry in getattr(node, "decorator_list", [])]
    return ("#" + hash_of(dumped), _chains(nodes), {first for first, *_ in _chains(decorators)}) if nodes else None


@functools.lru_cache(maxsize=256)
def _functions(text: str) -> dict[tuple[str, int], list]:
    """The syntax trees of a file's or cell's functions by name and first line, without docstrings and annotations."""
    tree, functions = ast.parse(text), {}
    for node in ast.walk(tree):
        vars(node).update({name: None for name in ("annotation", "returns", "kind") if hasattr(node, name)})
        if isinstance(node, NAMED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
        if isinstance(node, (*NAMED[:2], ast.Lambda)):
            line = min([node.lineno, *(entry.lineno for entry in getattr(node, "decorator_list", ()))])
            functions.setdefault((getattr(node, "name", "<lambda>"), line), []).append(node)
    return functions


def _chains(nodes: list) -> set[tuple[str, ...]]:
    """The dotted names in pieces of code: {("settings", "ssim_weight"), ("F", "l1_loss")}."""
    found = set()
    for entry in (part for node in nodes for part in ast.walk(node)):
        parts = []
        while isinstance(entry, ast.Attribute):
            parts, entry = [entry.attr, *parts], entry.value
        found |= {(entry.id, *parts)} if isinstance(entry, ast.Name) else set()
    return found
