"""Files that appear whole or not at all, weights among them, and a lock on a folder."""
import contextlib
import hashlib
import io
import json
import os
import pickle
import uuid
import zipfile
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from filelock import FileLock, SoftFileLock, Timeout
from torch import Tensor, nn


def process_rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def process_count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def broadcast(value):
    """The first process's value, in all of them; they wait for it."""
    shared = [value]
    if process_count() > 1:
        dist.broadcast_object_list(shared)
    return shared[0]


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then move it into place: a reader sees the old file or the new one.
    OSError names the file that could not be written.
    """
    path = Path(path)
    beside = path.with_name(f".{uuid.uuid4().hex[:12]}.part")  # short: beside a name of the greatest length too
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        advice = "What was there before is kept; make room, or choose another folder, and run again."
        raise OSError(f"{path} could not be written ({error.strerror or error}). {advice}") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def check_writable(folder: str | Path) -> None:
    """Before work whose result goes there: OSError where `folder` cannot be made or written to."""
    write_whole(Path(folder) / ".writable", Path.touch)
    (Path(folder) / ".writable").unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def save_tensors(path: Path, content: dict) -> None:
    """torch.save of a dict; the first process alone writes."""
    if process_rank() == 0:
        buffer = io.BytesIO()  # torch's own message on a full disk is "unexpected pos"
        torch.save(content, buffer)
        write_whole(path, lambda beside: beside.write_bytes(buffer.getbuffer()))


def read_tensors(path: str | Path) -> dict:
    """torch.load that runs no code and says in a sentence what is wrong with a file."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There are no weights at {path}. Run the notebook that trains them first.")
    try:
        if zipfile.is_zipfile(path):  # torch itself does not look at the checksums that it writes
            with zipfile.ZipFile(path) as file:
                if damaged := file.testzip():
                    raise ValueError(f"the checksum of {damaged} does not fit")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises all sorts of errors
        reason = str(error).split("\n")[0][:200]
        what = f"cannot be read as weights ({reason}). It is damaged, or holds no weights."
        if isinstance(error, pickle.UnpicklingError):
            what = (f"holds more than tensors, perhaps a whole pickled module ({reason}). It is not opened, since it "
                    f"could run code. Save model.state_dict() instead.")  # fmt: skip
        raise ValueError(f"{path} {what}") from error


POLL = 5.0  # seconds that one try for a lock takes
WRAPPERS = ("best_weights", "params_ema", "params", "state_dict", "model_state_dict", "model", "weights")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")  # DDP, torch.compile, Lightning's usual names


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """Fill `model` from a state dict file, and set it to evaluation mode.

    float16 weights are widened; of a checkpoint.pth the best epoch's are taken. What other tools wrap around a state
    dict ({"state_dict": ...}) and put before its names (`module.`, `_orig_mod.`, ...) is taken off.
    """
    state = read_tensors(path)
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}, no weights by name. Save model.state_dict() instead.")
    for wrapper in WRAPPERS:
        state = state[wrapper] if isinstance(state.get(wrapper), Mapping) else state
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    state = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    while prefix := next((p for p in PREFIXES if state and all(name.startswith(p) for name in state)
                          and not set(state) <= set(wanted)), None):  # fmt: skip
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if wanted != found:
        name, *others = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise ValueError(
            f"{path} holds another network's weights: {1 + len(others)} entries differ from {type(model).__name__}'s; "
            f"{name} is {found.get(name, 'absent')} there and {wanted.get(name, 'absent')} here. "
            f"Build the network with the settings in the run.json beside it."
        )
    model.load_state_dict(state)
    return model.eval()


def cached(path: str | Path, compute: Callable[[], dict[Hashable, Tensor]], key: str,
           restamp: bool = False) -> dict[Hashable, Tensor]:  # fmt: skip
    """What `compute` returned when it was last called with this `key`: a hash of all that it depends on.

    Kept in the file `path`, so that a test set is read once, and a notebook shown again need not compute it anew. A
    folder that cannot be written is said in a line. restamp: take what is there for this key's.
    """
    path = Path(path)
    if path.exists():
        stored = read_tensors(path)
        found = stored.pop("key", None)
        if found != key and restamp:
            save_tensors(path, stored | {"key": key})
        if found == key or restamp:
            return stored
    values = compute()
    with said_only():
        save_tensors(path, values | {"key": key})
    return values


@contextlib.contextmanager
def said_only() -> Iterator[None]:
    """What does not change the result (a figure or an answer that cannot be kept) is one line."""
    try:
        yield
    except OSError as error:
        print(f"Not kept: {error}")


def file_fingerprint(path: str | Path) -> str:
    """The first 16 characters of a file's SHA-256."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def text_checksum(path: Path) -> str:
    """Of a text file, whatever ends its lines."""
    return hashlib.sha256(path.read_text(encoding="utf-8").encode()).hexdigest()[:16]


def plain(content):
    """As JSON gives it back, so that stored and present values compare equal; nan and inf become None."""
    if isinstance(content, Mapping):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [plain(value) for value in content]
    content = content.item() if hasattr(content, "item") else content
    return None if isinstance(content, float) and content - content != 0 else content


def hash_of(content, length: int = 12) -> str:
    """The first hex characters of the SHA-256 of plain values as JSON, whatever the order of their names."""
    return hashlib.sha256(json.dumps(plain(content), sort_keys=True).encode()).hexdigest()[:length]


@contextlib.contextmanager
def locked(folder: Path, wait: Callable[[bool], bool] = lambda held: held) -> Iterator[None]:
    """Nobody else trains in this folder meanwhile; who comes second waits.

    wait: called after each try with whether this process holds the lock; several processes agree there, so that
    none sits in a barrier while the first one waits. A drive without locks gets a lock file instead.
    """
    path = Path(folder) / "run.lock"
    lock, told = None, False
    if process_rank() == 0:
        check_writable(folder)
        lock = FileLock(path)
    while True:
        held = lock is None
        try:
            if lock:
                lock.acquire(timeout=POLL if told else 0)
                held = True
        except Timeout:
            if not told:
                where = f" If none is, delete {lock.lock_file}." if isinstance(lock, SoftFileLock) else ""
                print(f"Another process is training in {folder}; waiting for it.{where}", flush=True)
            told = True
        except (OSError, NotImplementedError):  # ENOLCK, EOPNOTSUPP, ENOSYS: the drive knows no locks
            if isinstance(lock, SoftFileLock):
                raise
            lock = SoftFileLock(path.with_name("run.soft.lock"))  # FileLock leaves its file, which would look held
            continue
        if wait(held):
            break
    try:
        yield
    finally:
        if lock:
            lock.release()
