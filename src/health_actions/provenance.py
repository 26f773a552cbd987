"""Where a result comes from: its notebook and cell, its stage with parameters and inputs, as dvc.lock has them."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import nbformat

from health_actions.paths import read_yaml


@dataclass(frozen=True)
class Stage:
    """One stage as it last ran.

    Args:
        name: of the stage, with `@` and the model where there is one for each.
        command: that DVC ran.
        parameters: dotted name -> value, of params.yaml.
        inputs, outputs: path from the project's root -> hash (MD5; of folders ending in .dir).
        notebook: path of the executed notebook, from the project's root; None where the stage runs none.
        data: hash of the study's clips.
    """

    name: str
    command: str
    parameters: dict
    inputs: dict[str, str]
    outputs: dict[str, str]
    notebook: str | None
    data: str | None

    @property
    def digest(self) -> str:
        """One hash of everything that the stage's result depends on."""
        text = json.dumps([self.command, self.parameters, self.inputs], sort_keys=True)
        return hashlib.md5(text.encode()).hexdigest()


@dataclass(frozen=True)
class Origin:
    """What made a file: stage, notebook (file name without ending) and cell (from 0; None for the notebook's page)."""

    stage: Stage | None
    notebook: str
    cell: int | None


def read_stages(root: Path) -> dict[str, Stage]:
    """The stages of dvc.lock, in the order of dvc.lock; none where there is no such file."""
    file = Path(root) / "dvc.lock"
    entries = (read_yaml(file) or {}).get("stages", {}) if file.is_file() else {}
    stages = {}
    for name, entry in entries.items():
        inputs, outputs = ({item["path"]: item.get("md5", "") for item in entry.get(kind, [])}
                           for kind in ("deps", "outs"))
        parameters = {key: value for values in entry.get("params", {}).values() for key, value in values.items()}
        study = name.partition("_")[0]
        frames = entries.get(f"{study}_frames", {}).get("deps", [])
        data = [item.get("md5", "") for item in frames if item["path"] == f"data/{study}"]
        stages[name] = Stage(name, " ".join(entry["cmd"].split()), parameters, inputs, outputs,
                             next((path for path in outputs if path.endswith(".ipynb")), None), next(iter(data), None))
    return stages


def trace_files(root: Path, stages: dict[str, Stage]) -> dict[str, Origin]:
    """File that a notebook wrote, from the project's root -> its origin, for all executed notebooks in `build/`."""
    by_notebook = {stage.notebook: stage for stage in stages.values() if stage.notebook}
    origins = {}
    for path in sorted((Path(root) / "build").glob("*/notebooks/*.ipynb")):
        written = nbformat.read(path, as_version=4).metadata.get("stage", {}).get("written", {})
        stage = by_notebook.get(path.relative_to(root).as_posix())
        origins |= {file: Origin(stage, path.stem, cell) for file, cell in written.items()}
    return origins


def describe_files(reports: Path, origins: dict[str, Origin]) -> dict:
    """The manifest of `reports/`: each file's MD5 and origin.

    Args:
        origins: path from `reports` -> origin; files without one were made by the report stage itself.

    Returns:
        {"files": {path: {"md5", "stage", "notebook", "cell"}}}.
    """
    files = {}
    for path in sorted(path for path in Path(reports).rglob("*") if path.is_file()):
        name = path.relative_to(reports).as_posix()
        if name == "provenance.json" or path.name.startswith("."):
            continue
        origin = origins.get(name)
        files[name] = {"md5": hashlib.md5(path.read_bytes()).hexdigest(),
                       "stage": origin.stage.name if origin and origin.stage else "report",
                       "notebook": origin.notebook if origin else None, "cell": origin.cell if origin else None}
    return {"files": files}
