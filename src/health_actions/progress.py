"""Progress of long work: in a terminal, in the log of a pipeline stage, or as a bar in JupyterLab.

Bars never go into an executed notebook: they hold times, and what is committed must be the same at every run.
"""

import os
import sys
from collections.abc import Iterable

from tqdm import tqdm
from tqdm.auto import tqdm as notebook_tqdm

LOG_VARIABLE = "HEALTH_ACTIONS_LOG"  # set by `health_actions.run`: the file that a stage's progress is written to


def track(items: Iterable, *, total: int | None = None, title: str = "") -> Iterable:
    """Go through `items` with a progress bar."""
    log = os.environ.get(LOG_VARIABLE)
    if not log:
        yield from notebook_tqdm(items, total=total, desc=title)
        return
    with open(log, "a", encoding="utf-8") as file:
        yield from tqdm(items, total=total, desc=title, file=file, mininterval=2, ncols=100, ascii=True)


def log_message(message: str) -> None:
    """Say how far the work is, on a line of its own, where nothing of it is kept with the results."""
    log = os.environ.get(LOG_VARIABLE)
    if not log:
        print(message, file=sys.stderr, flush=True)
        return
    with open(log, "a", encoding="utf-8") as file:
        print(message, file=file, flush=True)
