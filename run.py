"""One command for everything:  python3 run.py [--no-venv] [--offline] [COMMAND]

  quick [NOTEBOOK ...]   the default: run the three notebooks in minutes, on the data that is there
  studies                the same for the neighboring studies: SRGAN, ResShuffle, joint restoration, colorization
  train NOTEBOOK [--arm NAME] [--seed N] [--profile P] [--sweep NAME=A,B,C] [NAME=VALUE ...]
                         train a notebook's runs that are missing, or one of them; NAME=VALUE sets a parameter of the
                         notebook or a setting; --sweep trains one run for each value, then lists them
  list [TASK]            every finished run: what differs from its profile, scores, epochs, time
  study [NOTEBOOK ...]   train what results/ lacks (hours on a CPU), then run the notebooks in place; --list says what
                         is missing and what it costs, --jobs N trains N runs at a time
  accept [NOTEBOOK ...]  after code of the study was rewritten to the same effect (the tests hold its numbers):
                         take the runs in results/ as those of the code as it stands
  upscale IMAGE ...      images of your own through a trained network (--model NAME, --out PLACE), or --test-sets
  data [NAME]            what data are here; NAME fetches a set
  test [PYTEST OPTION]   every check: ruff, then pytest; with --long first the faults of tests/faults.py in full
  bench                  speed, beside the alternatives in one run: results/bench.json (minutes)
  table                  write the figures of results/ into README.md, README.zh.md and docs/
  setup                  only make the environment, with what the checks need

The first run makes .venv beside this file and installs requirements.txt into it; later runs find it there.
--no-venv uses the Python that runs this file, as it is.
--offline fetches no data.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.settings import NEEDS, NOTEBOOKS

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
LAB = ROOT / "results" / "lab"
MAIN = ("task1", "task2", "multi")
BUILDS_ON = {"multi": ("task1", "task2"), "colorization": ("task2",)}  # tasks whose runs a notebook uses
TASKS = {name: task for task, name in NOTEBOOKS.items()}


def make_environment(dev: bool) -> None:
    """Make .venv where it is missing or broken, and install the requirements where they changed."""
    if not python_version():
        print(f"making {VENV}", flush=True)
        own_pip = [] if importlib.util.find_spec("ensurepip") else ["--without-pip"]
        if not own_pip or importlib.util.find_spec("pip"):
            subprocess.run([sys.executable, "-m", "venv", "--clear", *own_pip, str(VENV)])
        if not python_version():
            sys.exit("run.py: this Python cannot make a virtual environment. On Debian and Ubuntu: `apt install "
                     "python3-venv`, then the same command again. Or use an environment of your own: --no-venv.")
    names = ["requirements.txt", "requirements-dev.txt"][: 1 + dev]
    stamp = VENV / f"installed-{names[-1]}"  # what it was made of
    wanted = "\n".join([python_version(), *((ROOT / name).read_text(encoding="utf-8") for name in names)])
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    print(f"installing {names[-1]} into .venv (the first time fetches up to 3 GB)", flush=True)
    pip = [str(VENV_PYTHON), "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True).returncode:
        pip = [sys.executable, "-m", "pip", "--python", str(VENV_PYTHON)]
    if subprocess.run([*pip, "install", "--disable-pip-version-check", "-r", str(ROOT / names[-1])]).returncode:
        sys.exit(f"run.py: installing {names[-1]} failed, see above. It needs a network, 6 GB of disk and a Python "
                 f"that torch supports (this is {python_version()}); the same command goes on from here.")
    stamp.write_text(wanted, encoding="utf-8")


def python_version() -> str:
    """'3.11' of the environment's Python, '' where it is missing or does not run."""
    command = [str(VENV_PYTHON), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return ""


def find_notebook(name: str) -> Path:
    """A notebook by its path from here, or by its name beside this file."""
    for path in (Path(name), ROOT / name):
        if path.is_file():
            return path.resolve()
    there = ", ".join(sorted(p.name for p in ROOT.glob("*.ipynb"))) or "none"
    sys.exit(f"run.py: no notebook {name}; there are: {there}.")


def run_notebooks(names: list[str], folder: Path | None, parameters: dict | None) -> None:
    """Execute notebooks in order, into copies in `folder` or, where that is None, in place."""
    from tools.files import check_writable
    from tools.notebooks import execute

    paths = [find_notebook(name) for name in names]
    for place in {folder} if folder else {path.parent for path in paths}:
        check_writable(place)
    for path in paths:
        print(path.name, flush=True)
        start = time.monotonic()
        execute(path, folder and folder / path.name, parameters)
        print(f"{path.name}: {time.monotonic() - start:.0f} s", flush=True)


def quick(args: list[str]) -> int:
    names = args or [NOTEBOOKS[task] for task in MAIN]
    run_notebooks(names, LAB / "notebooks", {"profile": "quick"})
    tasks = [TASKS[name] for name in map(os.path.basename, names) if name in TASKS]
    print(f"\n{summarize(tasks)}\n\nexecuted notebooks: {LAB / 'notebooks'}\nfigures, weights: {LAB}")
    return 0


def train(args: list[str]) -> int:
    """A notebook's cells up to its training, as plain Python: needs no Jupyter and works under torchrun."""
    from tools.notebooks import run_cells
    from tools.settings import PROFILES, TABLES

    parser = argparse.ArgumentParser(prog="run.py train", description="Train a notebook's runs that are missing.")
    parser.add_argument("notebook")
    parser.add_argument("--arm", help="this arm alone")
    parser.add_argument("--seed", type=int, help="this random seed alone")
    parser.add_argument("--profile", default="study", choices=("auto", *PROFILES))
    parser.add_argument("--sweep", metavar="NAME=A,B,C", help="one run for each value of a setting")
    parser.add_argument("parameters", nargs="*", metavar="NAME=VALUE", help="parameters of the notebook, or settings")
    options = parser.parse_intermixed_args(args)
    path = find_notebook(options.notebook)
    table, changes, parameters = TABLES.get(TASKS.get(path.name), {}), {}, {"profile": options.profile}
    if not all("=" in pair for pair in [*options.parameters, options.sweep or "="]):
        parser.error("parameters are NAME=VALUE pairs.")
    for name, _, text in (pair.partition("=") for pair in options.parameters):
        place = changes if name in table else parameters
        place[name] = str(Path(text).expanduser().absolute()) if name.endswith("_root") else value_of(text)
    if not isinstance(of_notebook := parameters.pop("changes", {}), dict):
        parser.error(f"changes must be a dict of settings, found {of_notebook!r}.")
    changes = of_notebook | changes
    if options.arm or (options.seed is not None and "seeds" in table):  # these alone, unless more is asked for
        changes = {name: type(table[name][0])() for name in ("sweep", "adapt_lengths", "labels")
                   if name in table} | changes  # fmt: skip
    if options.arm:
        changes["arms"] = [options.arm]
    if options.seed is not None:
        changes |= {"seeds": [options.seed], "arm_seeds": {}} if "seeds" in table else {"seed": options.seed}
    if missing := [name for name in ("arms", "seed", "seeds") if name in changes and name not in table]:
        parser.error(f"{path.name} has no {missing[0]} to choose from.")
    name, _, text = (options.sweep or "").partition("=")
    several = value_of(f"{text},")  # (1, 2), or lists; words are no Python
    several = several if isinstance(several, tuple) else [value_of(word) for word in text.split(",")]
    for each in [changes | {name: value} for value in several] if options.sweep else [changes]:
        run_cells(path, parameters | ({"changes": each} if each else {}), until="training")
    return list_runs([TASKS.get(path.name)]) if options.sweep else 0


def value_of(text: str):
    """A number, list or dict as Python writes it; a plain word stays text."""
    with contextlib.suppress(ValueError, SyntaxError):
        return ast.literal_eval(text)
    return text


def list_runs(args: list[str]) -> int:
    from tools import runs

    if unknown := [task for task in args if task not in NOTEBOOKS]:
        sys.exit(f"run.py: there is no task {unknown[0]}; there are {', '.join(NOTEBOOKS)}.")
    print(runs.table(args[0] if args else None, ROOT / "results").to_string())
    return 0


def missing_runs(name: str) -> list[tuple[str, list[str], str]]:
    """The runs of a study that results/ lacks: (which, what `train` is told of it, what such a run took before)."""
    from tools.runs import read_info
    from tools.settings import choose

    task, found = TASKS[name], []
    s, folder = choose(task, "study"), ROOT / "results" / task
    parts = {"": [], **({"srresnet": []} if task == "srgan_x4" else {})}
    if "seeds" in s:
        parts = {f"seed{seed}/{arm}": ["--arm", arm, "--seed", str(seed)] for arm in s.arms for seed in s.seeds_of(arm)}
    elif "arms" in s:
        parts = {arm if arm != s.arms[-1] else "": ["--arm", arm] for arm in s.arms}
    if task == "multi":
        of_seed = {seed: ["--seed", str(seed)] for seed in s.seeds}
        parts |= {f"seed{s.seeds[0]}/lambda_{weight:g}": [*of_seed[s.seeds[0]], "arms=[]", f"sweep=[{weight}]"]
                  for weight in s.sweep}  # fmt: skip
        parts |= {f"seed{seed}/adapted_srnet_{epochs}_epochs":
                  [*of_seed[seed], "arms=['control', 'frozen']", f"adapt_lengths={{'{epochs}': [{seed}]}}"]
                  for epochs, seeds in s.adapt_lengths.items() for seed in seeds}  # fmt: skip
        parts |= {f"labels/seed{seed}/{percent}/frozen": ["--seed", "0", "arms=[]", f"labels={{'{percent}': [{seed}]}}"]
                  for percent, seeds in s.labels.items() for seed in seeds}  # fmt: skip
    for part, args in parts.items():
        if not (read_info(folder / part) or {}).get("finished"):
            pattern = re.sub(r"seed\d+", "*", f"{part}/run.json").lstrip("/")
            alike = [read_info(path.parent) for path in folder.glob(pattern)]
            took = [f"{info['time_seconds'] / 3600:.1f} h on {info['environment']['device']}"
                    for info in alike if info["finished"]]  # fmt: skip
            found.append((f"{task} {part}".strip(), [name, *args], took[0] if took else "unknown"))
    return found


def train_at_once(missing: list[tuple[str, list[str], str]], jobs: int) -> None:
    """Train these runs, so many at a time, each in a process with its share of the cores."""
    missing = [*{tuple(args): (which, args, took) for which, args, took in missing}.values()]  # one command, two runs
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    with ThreadPoolExecutor(jobs) as pool:
        codes = pool.map(lambda run: python("run.py", "--no-venv", "train", *run[1], OMP_NUM_THREADS=threads), missing)
    if failed := [which for (which, *_), code in zip(missing, codes, strict=True) if code]:
        sys.exit(f"run.py: failed, see above: {', '.join(failed)}.")


def study(args: list[str]) -> int:
    from tools.folders import is_there

    parser = argparse.ArgumentParser(prog="run.py study", description="Train what results/ lacks, run the notebooks.")
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK")
    parser.add_argument("--list", action="store_true", help="only say what is missing, and what such a run took before")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="train N runs at a time, each on its own")
    options = parser.parse_args(args)
    names = [find_notebook(name).name for name in options.notebooks] or list(TASKS)
    if other := [name for name in names if name not in TASKS]:
        sys.exit(f"run.py: study takes {', '.join(TASKS)}; found {', '.join(other)}.")
    if options.list:
        found = [run for name in names for run in missing_runs(name)]
        print("\n".join(f"{which}: {took}" for which, _, took in found) or "nothing is missing")
        return 0
    needed = {part for name in names for task in (TASKS[name], *BUILDS_ON.get(TASKS[name], ())) for part in NEEDS[task]}
    if absent := sorted(part for part in needed if not is_there(part, ROOT / "DS")):
        sys.exit(f"run.py: study needs {' and '.join(absent)} in DS/: see `python3 run.py data`.")
    for name in names:
        print(f"{name}: training what results/ lacks", flush=True)
        if options.jobs > 1:
            train_at_once(missing_runs(name), options.jobs)
        train([name])
        run_notebooks([name], None, None)
    return 0


def accept(args: list[str]) -> int:
    from tools.runs import ACCEPT

    os.environ[ACCEPT] = "1"
    run_notebooks(args or list(TASKS), None, None)
    return 0


def python(*command: str, **environment: str) -> int:
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=os.environ | environment).returncode


def test(args: list[str]) -> int:
    if "--long" in args and (failed := python("-m", "tests.faults")):
        return failed
    if ruff := python("-m", "ruff", "check", "."):
        print("ruff check failed, see above; the tests follow all the same", flush=True)
    at_once = ["-n", "auto", "--maxprocesses=4", "--dist=worksteal"]  # each process imports torch
    return python("-m", "pytest", *at_once, *(arg for arg in args if arg != "--long")) or ruff


def summarize(tasks: list[str]) -> str:
    """The "summary" of each task's newest run, {label: value} or a list of rows, under the name of its data."""
    import pandas as pd

    from tools.runs import read_info

    parts = []
    for task in tasks:
        found = sorted((LAB / task).glob("*/run.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        if run := next((info for path in found if (info := read_info(path.parent)).get("summary")), None):
            rows, tested_on = run["summary"], run.get("test_data", run["data"]["name"])
            tested_on = ", ".join(tested_on) if isinstance(tested_on, list) else tested_on
            table = pd.DataFrame(rows if isinstance(rows, list) else [rows])
            values = table.to_string(index=False, na_rep="-", float_format=lambda x: f"{x:.{4 if abs(x) < 1 else 2}f}")
            parts.append(f"{task}, on {tested_on} (trained on {run['data']['name']})\n{values}\n")
    return "\n".join(parts) or f"no summary in {LAB}"


COMMANDS = {
    "quick": quick, "train": train, "list": list_runs, "study": study, "accept": accept, "test": test,
    "studies": lambda args: quick(args or [name for name, task in TASKS.items() if task not in MAIN]),
    "setup": lambda args: print(f"ready: {sys.executable}"), "bench": lambda args: python("-m", "tests.bench"),
    **{name: lambda args, module=module: importlib.import_module(module).main(args)
       for name, module in (("upscale", "tools.upscale"), ("data", "datasets"), ("table", "tools.tables"))},
}  # fmt: skip


def main(argv: list[str]) -> int | None:
    if "--offline" in argv:
        os.environ["NO_DOWNLOAD"] = "1"
    name, *args = [arg for arg in argv if arg not in ("--no-venv", "--offline")] or ["quick"]
    if {"-h", "--help"} & {name, *args} and name not in ("train", "study", "upscale", "data"):  # which have their own
        print(__doc__)
        return 0
    if name not in COMMANDS:
        print(f"{__doc__}\nunknown command {name!r}", file=sys.stderr)
        return 2
    if sys.platform.startswith("linux") and name != "upscale":  # whose memory is to stay small
        # glibc hands large blocks back after every step; page faults then cost 10-15 % in training
        os.environ.setdefault("MALLOC_MMAP_MAX_", "0")
        os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(16 << 30))
    # torchrun's processes must not install side by side
    if "--no-venv" not in argv and "RANK" not in os.environ:
        make_environment(dev=name in ("test", "bench", "setup"))
        if Path(sys.prefix).resolve() != VENV.resolve():
            command = [str(VENV_PYTHON), str(ROOT / "run.py"), "--no-venv", name, *args]
            if os.name == "nt":  # execv would return to the shell before the work is done
                return subprocess.run(command).returncode
            os.execv(command[0], command)
    return COMMANDS[name](args)


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # Jupyter's streams have no encoding
            stream.reconfigure(errors="backslashreplace")  # a file's name never stops a command
    if sys.version_info < (3, 10):  # noqa: UP036
        sys.exit(f"run.py: Python 3.10 or newer is needed, this is {sys.version.split()[0]}")
    try:
        sys.exit(main(sys.argv[1:]))
    except BrokenPipeError:  # `run.py list | head`
        sys.exit(1)
    # a full disk, a damaged file, a setting that cannot be, a loss that is not finite, a weight too large for float16
    except (OSError, ValueError, FloatingPointError, OverflowError) as error:
        cells = [f"{place}, line {line}" for place, line, *_ in traceback.extract_tb(error.__traceback__)
                 if ".ipynb " in place]  # fmt: skip
        sys.exit(f"run.py: error: {error}" + (f" ({cells[-1]})" if cells else ""))
    except ModuleNotFoundError as error:
        sys.exit(f"run.py: {error.name} is not installed in {sys.executable}: install it, or drop --no-venv")
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again, it resumes", file=sys.stderr)
        sys.exit(130)
