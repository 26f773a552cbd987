"""Kill the pipeline at random moments and check that it ends with the same bytes: `python benchmarks/kill.py`.

The small project runs once undisturbed. Then, from nothing again, each run is ended by SIGKILL, sent to dvc alone or
also to everything that it started, in turn; the last run completes. After that, two runs at once.
"""

import contextlib
import hashlib
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Annotated

import pandas as pd
import psutil
import typer
from small import BIN, ROOT, make_project, run, set_environment, shrink, write_small_clips

# Files that the next run, or a reader, takes for finished.
RESULTS = ("reports/**/*", "build/*/models/**/*", "build/*/pretrained/**/*", "build/*/frames/**/*",
           "build/*/annotations/**/*", "build/*/notebooks/*", "dvc.lock")


def hash_results(project: Path) -> dict[str, str]:
    """File -> hash, of everything that the stages made."""
    files = {path for pattern in RESULTS for path in project.glob(pattern) if path.is_file()}
    return {path.relative_to(project).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def kill(process: subprocess.Popen, *, whole: bool) -> None:
    """SIGKILL to a run; `whole`: to every process that it started, too."""
    parent = psutil.Process(process.pid)
    for one in [*(parent.children(recursive=True) if whole else []), parent]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended with one that was killed before
            one.kill()
    process.wait()


def repro(*targets: str) -> list[str]:
    """How `make repro` mends what a kill left, and its last dvc; without fetching the embedded clips."""
    mend = f'make -s -o .venv/.ready -f "{ROOT}/Makefile" BIN="{BIN}" mend'
    return ["sh", "-c", f'{mend} && exec dvc repro "$@"', "sh", *targets]


def start(project: Path, *targets: str) -> subprocess.Popen:
    log = (project.parent / "disturbed.log").open("a")
    return subprocess.Popen(repro(*targets), cwd=project, env=set_environment(project), stdout=log,
                            stderr=subprocess.STDOUT)


def disturb(project: Path, *targets: str, kills: int, longest: float, shortest: float = 1, seed: int = 0
            ) -> pd.DataFrame:
    """Start and kill runs, then complete one; a row a kill: seconds, whole, running, files (finished by then)."""
    draw, rows = random.Random(seed), []
    for number in range(kills):
        process, seconds = start(project, *targets), draw.uniform(shortest, longest)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        rows.append({"kill": number + 1, "seconds": round(seconds, 1), "whole": bool(number % 2),
                     "running": process.poll() is None})
        if process.poll() is None:
            kill(process, whole=rows[-1]["whole"])
        rows[-1]["files"] = len(hash_results(project))
        print(rows[-1], flush=True)
    run(project, *repro(*targets))
    return pd.DataFrame(rows)


def run_twice_at_once(project: Path, *targets: str) -> list[int]:
    """The exit codes of two runs started together; dvc may end one with the message that the other is at work."""
    runs = [start(project, *targets)]
    time.sleep(1)
    runs.append(start(project, *targets))
    return [process.wait() for process in runs]


def main(kills: Annotated[int, typer.Option(help="How often.")] = 20,
         seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
         longest: Annotated[float | None, typer.Option(
             help="Most seconds until a run is killed; by default a tenth of the undisturbed run.")] = None) -> None:
    """Tried, handled, lost: does a pipeline that was killed end as an undisturbed one does?"""
    work = Path(tempfile.mkdtemp(prefix="kill-"))
    project, other, together = (make_project(work / name / "project", shrink) for name in ("whole", "killed", "two"))
    write_small_clips(project)
    for copy in (other, together):
        shutil.copytree(project / "data", copy / "data")
    started = time.monotonic()
    run(project, *repro())
    expected = hash_results(project)
    undisturbed = time.monotonic() - started
    print(f"undisturbed: {len(expected)} files, {undisturbed:.0f} s", flush=True)
    rows = disturb(other, kills=kills, seed=seed, longest=longest or undisturbed / 10)
    codes = run_twice_at_once(together)
    run(together, *repro())
    lost = 0
    for name, copy in (("killed", other), ("two at once", together)):
        found = hash_results(copy)
        differing = sorted(file for file in expected | found if expected.get(file) != found.get(file))
        lost += bool(differing)
        print(f"{name}: {len(found)} files, {len(differing)} differ {differing[:5]}")
    hit = int(rows["running"].sum())
    print(f"kills: tried {len(rows)}, hit a run {hit}; two at once ended with {codes}; "
          f"tried {len(rows) + 1}, handled {0 if lost else len(rows) + 1}, lost: {lost}")
    if not lost:
        shutil.rmtree(work)
    raise typer.Exit(1 if lost else 0)


if __name__ == "__main__":
    typer.run(main)
