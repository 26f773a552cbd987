"""Whether verdicts depend on the seed: python -m benchmarks.other_run FOLDER.

FOLDER is another clone. In its params.yaml, section `published`, the seeds of handwash.training, ntu.training and both
landmark_training were changed (not those of annotations, which draw the splits). Then `make repro` ran there, whole, on
this machine. What networks and claims gave is added to published/other_runs.yaml, with today's date, the commit and the
processor. Notebook 25 compares this run with it.
"""

import datetime
import platform
import subprocess
from pathlib import Path

import typer
import yaml

from health_actions.paths import find_root, write_text


def main(folder: Path) -> None:
    """Add the run in `folder` to published/other_runs.yaml."""
    made = folder / "build" / "claims" / "verdicts" / "run.yaml"
    if not made.is_file():
        raise typer.BadParameter(f"{made} is missing: run make repro in {folder} first")
    found = yaml.safe_load(made.read_text(encoding="utf-8"))
    changed = ask_git(folder, "status", "--porcelain", ".", ":!params.yaml", ":!dvc.lock", ":!reports")
    if changed:
        raise typer.BadParameter(f"{folder} differs from its commit in more than params.yaml and results: {changed}")
    file = find_root() / "published" / "other_runs.yaml"
    runs = (yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None) or []
    if any(run["networks"] == found["networks"] for run in runs):
        raise typer.BadParameter(f"this run is in {file} already")
    runs.append({"measured": datetime.date.today().isoformat(),
                 "commit": ask_git(folder, "rev-parse", "--short", "HEAD"),
                 "processor": read_processor(), **found})
    write_text(file, "# Runs with other seeds, for notebook 25; benchmarks/other_run.py adds whole ones.\n"
               + yaml.safe_dump(runs, sort_keys=False))
    typer.echo(f"{len(runs)} runs in {file}")


def ask_git(folder: Path, *command: str) -> str:
    """What git prints in a folder."""
    done = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise typer.BadParameter(f"{folder} is not a clone: {done.stderr.strip()}")
    return done.stdout.strip()


def read_processor() -> str:
    """The processor's name, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(": ")[2] for line in info.read_text().splitlines() if line.startswith("model name")
             ] if info.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    typer.run(main)
