"""The old name of tools/tables.py, until run.py, the notebooks and tools/notebooks.py use the new one."""
from tools.tables import *  # noqa: F403
from tools.tables import answers


def answer(task: str, results: object = None) -> str:
    """README's answer on a task; KeyError where it has none."""
    return dict(answers("README.md"))[task]
