"""Run the notebooks without a browser, and what they share.

`execute` runs one as Jupyter would and writes it with its outputs; `run_cells` runs its code cells as plain Python,
under torchrun as well; the `show_` functions and `report` are for the notebooks themselves.
Settings go in after the one cell tagged `parameters`; a name that this cell does not assign is refused.
"""

import ast
import asyncio
import contextlib
import dis
import inspect
import json
import linecache
import os
import re
import signal
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pandas as pd

from tools import files, plots, runs
from tools.identity import names_from_outside
from tools.settings import NOTEBOOKS

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def execute(path: str | Path, out: str | Path | None = None, parameters: dict[str, Any] | None = None) -> Path:
    """Run a notebook in a kernel of this very Python, its own folder as working directory, and write it.

    out: where the executed copy goes; None writes into the notebook itself, which takes no parameters, since
    what is committed is the notebook as it stands. parameters: {name: text, number, list, dict ...}.
    Raises ValueError when a cell fails; the cells run so far are then kept in `out` for reading, while a
    notebook run in place stays as it was. Returns the path written.
    """
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    path = Path(path).resolve()
    out = path if out is None else Path(out).resolve()
    if out == path and parameters:
        raise ValueError(f"{path.name} runs in place without parameters: give another file as `out`.")
    book = nbformat.from_dict(_inject(_read(path), parameters, path.name))
    total, started = sum(map(_is_code, book.cells)), 0.0
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None

    def before_cell(cell: Any, **_: Any) -> None:
        nonlocal started
        started = time.monotonic()
        first_line = cell.source.strip().splitlines()[0][:70]
        print(f"  [{client.code_cells_executed + 1:>2}/{total}] {first_line} ... ", end="", flush=True)
        with contextlib.suppress(NotImplementedError, RuntimeError):  # Windows, or not the main thread
            # Ctrl-C stops the cell as in Jupyter, so that training in it can leave its files in order
            asyncio.get_running_loop().add_signal_handler(
                signal.SIGINT, lambda: asyncio.ensure_future(client.km.interrupt_kernel())
            )

    client = NotebookClient(
        book, resources={"metadata": {"path": str(path.parent)}}, record_timing=False, store_widget_state=False,
        km=AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[])),  # of this Python, not another's
        coalesce_streams=True,  # of a progress bar the last state stays
        on_cell_execute=before_cell,
        on_cell_executed=lambda **_: print(f"{time.monotonic() - started:.1f} s", flush=True),
    )  # fmt: skip
    # figures go into the notebook whatever backend the shell asks for
    env, failure = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}, ""
    try:
        client.execute(env=env)
    except CellExecutionError as error:
        if error.ename == "KeyboardInterrupt":
            raise KeyboardInterrupt from None
        print("\n" + "\n".join(ANSI.sub("", error.traceback).splitlines()[-20:]), flush=True)
        failure = f"code cell {client.code_cells_executed}, {error.ename}: {ANSI.sub('', error.evalue)}"
    except DeadKernelError:
        failure = "its Python process died, most often for want of memory"
    for cell in book.cells:
        if cell.cell_type == "code":  # no output that shows nothing
            cell.outputs = [o for o in cell.outputs if o.output_type != "stream" or o.text.strip()]
    book.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                     "language_info": {"name": "python", "file_extension": ".py",
                                       "mimetype": "text/x-python"}}  # nothing of this machine
    if failure and out == path:
        raise ValueError(f"{path.name} failed: {failure}. The file is as it was.")
    files.write_whole(out, lambda beside: beside.write_text(nbformat.writes(book) + "\n", encoding="utf-8"))
    if failure:
        raise ValueError(f"{path.name} failed: {failure}. The cells run so far are in {out}.")
    return out


def run_cells(path: str | Path, parameters: dict[str, Any] | None = None, until: str | None = None) -> dict[str, Any]:
    """Run a notebook's code cells in this process as plain Python and return their namespace.

    Needs no Jupyter. The notebook's folder is the working directory and importable meanwhile; figures are drawn off
    screen; a last expression is printed. until: stop after the first cell with this tag, and leave out the cells tagged
    "lesson", unless another one needs what they define. Exceptions of the cells pass through, with the cell's lines in
    the traceback.
    """
    path = Path(path).resolve()
    cells = [cell for cell in _inject(_read(path), parameters, path.name)["cells"] if _is_code(cell)]
    stop = next((i for i, cell in enumerate(cells) if until in _tags(cell)), None)
    if until is not None and stop is None:
        raise ValueError(f"{path.name} has no code cell tagged {until!r}.")
    os.environ.setdefault("MPLBACKEND", "Agg")
    namespace: dict[str, Any] = {"__name__": "__main__", "display": print}
    folder, number = os.getcwd(), 0
    os.chdir(path.parent)
    sys.path.insert(0, str(path.parent))
    cells = cells[: None if stop is None else stop + 1]
    with_lesson = until is None or _builds_on_lesson(cells)
    try:
        for cell in cells:
            number += (is_own := "injected-parameters" not in _tags(cell))
            if "lesson" in _tags(cell) and not with_lesson:
                continue
            _run_source(cell["source"], f"{path.name} {f'cell {number}' if is_own else 'parameters'}", namespace)
    finally:
        os.chdir(folder)
        with contextlib.suppress(ValueError):
            sys.path.remove(str(path.parent))
    return namespace


def require_run(name: str, task: Any) -> Any:
    """The finished run (runs.Run) of another notebook's task, in this task's profile: the study's, or else what the
    notebook's cells up to the one tagged "training" find, or train, here and now. task: what runs.begin returned.
    """
    if task.profile == "study" and (run := runs.read_run(task.results_root / name)) and run.has_weights:
        return run
    print(f"{NOTEBOOKS[name]}: its cells up to training run here, now, unless that run is finished.")
    changes = {key: value for key, value in task.changes.items() if key == "dataset" and name != "task1"}
    parameters = {"profile": task.profile, "data_root": str(task.data_root.absolute()),
                  "results_root": str(task.results_root.absolute()), "changes": changes}  # fmt: skip
    return run_cells(Path(__file__).parent.parent / NOTEBOOKS[name], parameters, until="training")["run"]


def show_source(*objects: Any) -> None:
    """The code of functions or classes, in a notebook: what a cell calls can be read where it is called."""
    source = "\n\n".join(textwrap.dedent(inspect.getsource(thing)).rstrip() for thing in objects)
    plots.display_markdown(f"```python\n{source}\n```")


def snapshot(step: int, values: dict, run: Any, img: Any, truth: Any, every: int) -> None:
    """A `report` of `training.fit`: every so many epochs and after the last, in the run's folder, comparison/, loss/
    and metrics/ (figures), param/ (the weights), shown/ (what the network makes of `img`), output.log, as the plan for
    colorization lists them.
    """
    from datasets import to_uint8
    from training import predict

    epoch = values.get("epoch", 0)
    if not epoch or (epoch % every and epoch != run.settings["num_epochs"]):
        return
    output, name, history = predict(run.eval_model, img), f"epoch{epoch:02d}", pd.DataFrame(run.rows)
    images = {"input": img, "output": output, "truth": truth}
    made = {"comparison": plots.panel(images), "loss": plots.curves(history, ["loss", "mse"]),
            "metrics": plots.curves(history, ["psnr_db", "ssim"])}  # fmt: skip
    for kind, fig in made.items():
        plots.show(fig, name, run.folder / kind, photo=kind == "comparison", quiet=True)
    weights = {layer: value.cpu() for layer, value in run.eval_model.state_dict().items()}
    files.save_tensors(run.folder / "param" / f"{name}.pth", weights)
    files.save_tensors(run.folder / "shown" / f"{name}.pth", to_uint8(output))
    (run.folder / "output.log").write_text(history.round(5).to_string(index=False) + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    """A notebook as nbformat 4 JSON, every source joined to one string."""
    if not path.is_file():
        raise FileNotFoundError(f"No notebook at {path}.")
    try:
        book = json.loads(path.read_text(encoding="utf-8"))
        for cell in book["cells"]:
            cell["source"] = "".join(cell["source"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name} is not a notebook (nbformat 4): {error!r}.") from None
    return book


def _is_code(cell: dict[str, Any]) -> bool:
    return cell["cell_type"] == "code" and bool(cell["source"].strip())


def _tags(cell: dict[str, Any]) -> list[str]:
    return cell.get("metadata", {}).get("tags", [])


def _builds_on_lesson(cells: list[dict[str, Any]]) -> bool:
    """Whether a cell reads a name that only those tagged "lesson" make."""
    taught, known, read = set(), set(), set()
    for cell in cells:
        code = compile(cell["source"], "cell", "exec")
        made = {step.argval for step in dis.get_instructions(code) if step.opname == "STORE_NAME"}
        if "lesson" in _tags(cell):
            taught |= made
        else:
            known |= made
            read |= {first for first, *_ in names_from_outside(code)}
    return bool(read & taught - known)


def _inject(book: dict[str, Any], parameters: dict[str, Any] | None, name: str) -> dict[str, Any]:
    """Assign the parameters in a new cell after the one tagged `parameters`, which must know their names."""
    if not parameters:
        return book
    cells = book["cells"]
    places = [i for i, cell in enumerate(cells) if _is_code(cell) and "parameters" in _tags(cell)]
    if len(places) != 1:
        raise ValueError(f"{name} has {len(places)} cells tagged 'parameters', expected exactly one.")
    stored = (n for n in ast.walk(ast.parse(cells[places[0]]["source"])) if isinstance(n, ast.Name))
    known = [node.id for node in stored if isinstance(node.ctx, ast.Store)]
    if unknown := [key for key in parameters if key not in known]:
        raise ValueError(f"{name} has no parameter {', '.join(unknown)}; it has {', '.join(dict.fromkeys(known))}.")
    values = {key: str(value) if isinstance(value, Path) else value for key, value in parameters.items()}
    cell = {"cell_type": "code", "metadata": {"tags": ["injected-parameters"]}, "outputs": [], "execution_count": None,
            "source": "\n".join(f"{key} = {value!r}" for key, value in values.items())}  # fmt: skip
    if "id" in cells[0]:  # nbformat 4.5
        cell["id"] = "injected-parameters"
    return book | {"cells": [*cells[: places[0] + 1], cell, *cells[places[0] + 1 :]]}


def _run_source(source: str, title: str, namespace: dict[str, Any]) -> None:
    """One cell: its statements, then its last expression printed as a notebook would show it."""
    linecache.cache[title] = (len(source), None, source.splitlines(keepends=True), title)
    body = ast.parse(source, title).body
    is_shown = body and isinstance(body[-1], ast.Expr) and not source.rstrip().endswith(";")
    last = body.pop() if is_shown else None
    exec(compile(ast.Module(body, []), title, "exec"), namespace)
    if last:
        value = eval(compile(ast.Expression(last.value), title, "eval"), namespace)
        if value is not None:
            print(value.to_string() if hasattr(value, "to_string") else repr(value))  # tables as text
