"""What a run is: all that determines its result, as plain values, and one hash of it.

Gathered are settings, data, degradation, the network as built, and the code that a notebook hands over (loss, batches,
validation) with the functions that it calls and the values that it reads, as far as these stand in notebook cells or in
modules of the project's top folder. Code is compared by its syntax tree without docstrings, so comments and line breaks
change nothing; a tensor by its shape and up to 8,192 of its entries.

Not seen: versions of libraries (run.json names torch's), compiled functions, code in tools/, files that a function
opens, attributes set on objects of a library's class.
"""
import ast
import builtins
import functools
import hashlib
import inspect
import json
import linecache
import os
import sys
import time
import types
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

ROOT, STARTED = Path(__file__).resolve().parent.parent, time.time()
TRAINED = ("network", "generator", "discriminator")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def identity(settings: Mapping, data: Mapping, degradation=None, **handed) -> dict:
    """Of a run, or of an answer that is kept. handed: by its role, what made it: loss=function, network=module."""
    found: dict = {}
    for role, thing in handed.items():
        title = _read(role, thing, found, set())
        found[role] = title or found.get(role)
    return {"settings": plain(settings), "data": plain(data), "degradation": described(degradation), "code": found}


def described(thing) -> dict | None:
    """An object by its label and a hash of its class's code and its parameters."""
    found: dict = {}
    _read("", thing, found, set())
    return None if thing is None else {"name": str(getattr(thing, "name", type(thing).__name__)),
                                       "hash": hash_of(found)}  # fmt: skip


def own_code(function) -> str:
    """A hash of a function's code alone, without what it calls."""
    ours = isinstance(function, types.FunctionType) and _is_ours(function)
    return "#" + hash_of(_dump(_node(function, [function]))) if ours else type(function).__name__


def hash_of(content) -> str:
    """The first 12 hex characters of the SHA-256 of plain values, whatever the order of their names."""
    return hashlib.sha256(json.dumps(plain(content), sort_keys=True).encode()).hexdigest()[:12]


def differences(stored: Mapping, wanted: Mapping) -> list[str]:
    """What differs between two identities, in words: "num_blocks 8 → 4", "sr_loss edited", "data A → B"."""
    words = []
    for part in ("data", "degradation", "settings", "code"):
        before, now = stored.get(part) or {}, wanted.get(part) or {}
        if part in ("data", "degradation") and before != now:
            words.append(f"{part} {before.get('name')} → {now.get('name')}"
                         if before.get("name") != now.get("name") else f"{part} edited")  # fmt: skip
        elif before != now:
            for name in sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)):
                old, new = before.get(name, "none"), now.get(name, "none")
                edited = str(old).startswith("#") and str(new).startswith("#")
                words.append(f"{name} edited" if edited else f"{name} {old} → {new}".replace("→ #", "→ new #"))
    return words


def plain(content):
    """As JSON gives it back, so that stored and present values compare equal; nan and inf become None."""
    if isinstance(content, Mapping):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [plain(value) for value in content]
    content = content.item() if hasattr(content, "item") else content
    return None if isinstance(content, float) and content - content != 0 else content


def _read(name: str, value, found: dict, seen: set) -> str | None:
    """Add a value under its name; code of our own with all that it reads, whose title is returned."""
    if hasattr(value, "not_read"):  # settings and data are parts of their own
        return None
    if isinstance(value, (functools.partial, types.MethodType)):
        inside = [value.args, value.keywords] if isinstance(value, functools.partial) else [value.__self__]
        _read(f"{name} is given", inside, found, seen)
        return _read(name, getattr(value, "func", None) or value.__func__, found, seen)
    if isinstance(value, (types.FunctionType, type)) and _is_ours(value):
        return _read_code(inspect.unwrap(value), found, seen)
    if value is None or isinstance(value, (bool, int, float, str)):
        found[name] = plain(value)
    elif isinstance(value, Tensor):
        entries = value.detach().flatten()
        entries = entries[:: max(1, len(entries) // 4096)].cpu().double().numpy().tobytes()
        found[name] = f"#{value.dtype} {list(value.shape)} {hashlib.sha256(entries).hexdigest()[:12]}"
    elif isinstance(value, (list, tuple, dict)):
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            _read(f"{name}.{key}", entry, found, seen)
    elif known := getattr(value, "identity", None) or getattr(value, "fingerprint", None):
        _read(name, known, found, seen)
    elif isinstance(value, nn.Module):
        layers = [f"{place} {type(layer).__name__} {layer.extra_repr()}" for place, layer in value.named_modules()]
        found[name] = "#" + hash_of([layers, {place: list(part.shape) for place, part in value.state_dict().items()}])
        for kind in {type(layer) for layer in value.modules() if _is_ours(type(layer))}:
            _read_code(kind, found, seen)
        if name not in TRAINED:  # whose weights are what training changes
            _read(f"{name}.weights", list(value.state_dict().values()), found, seen)
    elif _is_ours(type(value)) and id(value) not in seen:
        seen.add(id(value))
        found[name] = _read_code(type(value), found, seen)
        _read(name, vars(value), found, seen)
    else:
        found[name] = getattr(value, "__qualname__", type(value).__qualname__)
    return None


def _read_code(thing, found: dict, seen: set) -> str:
    """The code of a function or class of ours, then all that it reads from outside."""
    is_notebook = thing.__module__ == "__main__"
    title = thing.__qualname__ if is_notebook else f"{thing.__module__}.{thing.__qualname__}"
    if id(thing) in seen:
        return title
    seen.add(id(thing))
    entries = [thing] if isinstance(thing, types.FunctionType) else map(_unwrapped, vars(thing).values())
    functions = [entry for entry in entries if isinstance(entry, types.FunctionType) and _is_ours(entry)]
    for base in thing.__mro__[1:] if isinstance(thing, type) else ():
        found.update({f"{title} from {base.__name__}": _read_code(base, found, seen)} if _is_ours(base) else {})
    node = _node(thing, functions)
    found[title] = "#" + hash_of(_dump(node))
    enclosed = {name: cell.cell_contents for function in functions for name, cell in
                zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
                if name != "__class__"}  # fmt: skip
    own = {entry.id for entry in ast.walk(node) if isinstance(entry, ast.Name) and isinstance(entry.ctx, ast.Store)}
    own |= {entry.arg for entry in ast.walk(node) if isinstance(entry, ast.arg)} | set(vars(builtins))
    outside = sys.modules[thing.__module__].__dict__ if not functions else functions[0].__globals__
    for first, *rest in sorted(_chains(node)):
        if first in enclosed or (first in outside and first not in own):
            value, path = enclosed.get(first, outside.get(first)), first
            while isinstance(value, types.ModuleType) and rest and _is_ours_file(value):
                path, value = f"{path}.{rest[0]}", getattr(value, rest.pop(0), None)
            if not isinstance(value, types.ModuleType):  # F.l1_loss is a library's: its name stands in the code
                path = f"{title}: {path}" if first in enclosed else path
                _read(path if is_notebook or "." in path else f"{thing.__module__}.{path}", value, found, seen)
    return title


def _is_ours(thing) -> bool:
    """Does it stand in a notebook cell, or in a module of the top folder or of the folder one works in?"""
    return thing.__module__ == "__main__" or _is_ours_file(sys.modules.get(thing.__module__))


def _is_ours_file(module) -> bool:
    file = getattr(module, "__file__", None)
    return bool(file) and Path(file).parent in (ROOT, Path.cwd())


def _unwrapped(entry):
    """The function inside a property, a cached property, a class or a static method."""
    inside = (getattr(entry, name, None) for name in ("fget", "func", "__func__"))
    return inspect.unwrap(next(filter(None, inside), entry))


def _chains(node) -> set[tuple[str, ...]]:
    """The dotted names in a piece of code: {("settings", "ssim_weight"), ("F", "l1_loss")}."""
    found = set()
    notes = {id(part) for entry in ast.walk(node) for note in (getattr(entry, "annotation", None),
             getattr(entry, "returns", None)) if note is not None for part in ast.walk(note)}  # fmt: skip
    for entry in ast.walk(node):
        if id(entry) in notes:
            continue
        parts = []
        while isinstance(entry, ast.Attribute):
            parts, entry = [entry.attr, *parts], entry.value
        found |= {(entry.id, *parts)} if isinstance(entry, ast.Name) else set()
    return found


def _dump(node) -> list | str:
    """A syntax tree as lists, without docstrings, annotations, places, and what differs between Python's versions."""
    if not isinstance(node, (ast.AST, list)):
        return repr(node)
    if isinstance(node, list):
        return [_dump(entry) for entry in node]
    is_documented = isinstance(node, FUNCTIONS[:3]) and ast.get_docstring(node, clean=False) is not None
    fields = dict(ast.iter_fields(node)) | ({"body": node.body[1:]} if is_documented else {})
    skipped = ("type_params", "type_comment", "kind", "ctx", "annotation", "returns")
    return [type(node).__name__, *([name, _dump(fields[name])] for name in sorted(fields)
                                   if name not in skipped and fields[name] not in (None, []))]  # fmt: skip


def _node(thing, functions: list):
    """The syntax tree of a function, or of a class with these methods."""
    line = thing.__code__.co_firstlineno if isinstance(thing, types.FunctionType) else None
    file = functions[0].__code__.co_filename if functions else getattr(sys.modules[thing.__module__], "__file__", "")
    if os.path.exists(file) and os.path.getmtime(file) > STARTED:
        raise RuntimeError(f"{Path(file).name} was edited while this program ran: restart it (in a notebook, the "
                           "kernel), so that what you see is what runs.")  # fmt: skip
    for node in _nodes(file, "".join(linecache.getlines(file))):
        lines = (None, node.lineno, *(entry.lineno for entry in getattr(node, "decorator_list", ())))
        if getattr(node, "name", "<lambda>") == thing.__name__ and line in lines:
            return node
    raise ValueError(f"the code of {thing.__qualname__} cannot be read: define it in a notebook cell or in a file.")


@functools.lru_cache(maxsize=256)
def _nodes(file: str, text: str) -> list:
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, FUNCTIONS)]
