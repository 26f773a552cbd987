"""Run a notebook as a pipeline stage: `python -m health_actions.run NOTEBOOK OUTPUT --params a,b --set name=value`."""
# ruff: noqa: E402

import ast
import hashlib
import json
import os
import re
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

# Whoever checks web addresses builds a grammar for them, a second at each start; notebooks hold none to be checked.
sys.modules.setdefault("rfc3987_syntax", None)

import filelock
import nbformat
import papermill
import typer
import yaml
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from health_actions.paths import WRITTEN_VARIABLE, atomic_write, find_root, read_yaml
from health_actions.progress import LOG_VARIABLE

# Numerical libraries give the same bytes on the same machine, figures carry no date.
ENVIRONMENT = {"SOURCE_DATE_EPOCH": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
# What a report is made of; frames and weights are kept from run to run.
RESULTS = re.compile(r"reports/|build/[^/]+/(?!frames/|models/|pretrained/)")


class StageError(ValueError):
    """The stage cannot run as asked; the message is for the person who wrote params.yaml or dvc.yaml."""


def read_params(file: Path, keys: list[str], whole: list[str] | None = None) -> dict:
    """Pick notebook parameters from params.yaml.

    Args:
        file: params.yaml.
        keys: dotted names; a section gives all its entries, anything else itself under its last name.
        whole: dotted names of sections that are one parameter each, under their last name.

    Raises:
        StageError: for a missing file or key, or YAML that is none.
    """
    try:
        params = read_yaml(file)
    except FileNotFoundError:
        raise StageError(f"no {file.name} in {file.parent}") from None
    except ValueError as error:
        raise StageError(str(error)) from None
    chosen = {}
    for key in [*keys, *(whole or [])]:
        value = params
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                known = ", ".join(value) if isinstance(value, dict) else "nothing"
                raise StageError(f"{file.name} has no {key!r}: at {part!r} it knows {known}")
            value = value[part]
        chosen |= value if isinstance(value, dict) and key in keys else {key.split(".")[-1]: value}
    return chosen


def list_parameters(notebook: nbformat.NotebookNode) -> list[str]:
    """Names that the notebook's cell tagged `parameters` assigns."""
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    tree = ast.parse("\n".join(cell.source for cell in cells))
    return [target.id for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])]


def run_notebook(notebook: Path, output: Path, parameters: dict) -> None:
    """Execute a notebook with parameters; `output` is written only when it ran to its end.

    A notebook that fails is kept as far as it came in `logs/`, beside the log of its progress and of all warnings.

    Raises:
        StageError: for an unknown parameter, or with the notebook, cell and error that stopped it.
    """
    root = find_root()
    known = list_parameters(nbformat.read(notebook, as_version=4))
    unknown = [name for name in parameters if name not in known]
    if unknown:
        raise StageError(f"{notebook.name} has no parameter {', '.join(unknown)}; it has {', '.join(known)}")
    log = root / "logs" / f"{output.stem}.log"
    log.parent.mkdir(exist_ok=True)
    # A pipeline that was killed may have left its stage behind, still at work on the same files.
    with waited(filelock.FileLock(log.with_suffix(".lock")), notebook.name):
        execute(root, notebook, output, parameters, log)


def execute(root: Path, notebook: Path, output: Path, parameters: dict, log: Path) -> None:
    """`run_notebook` once nobody else runs it."""
    log.write_text("", encoding="utf-8")
    partial, written = log.with_suffix(".ipynb"), log.with_suffix(".written")
    written.unlink(missing_ok=True)
    os.environ.update(ENVIRONMENT | {LOG_VARIABLE: str(log), WRITTEN_VARIABLE: str(written),
                                     "MATPLOTLIBRC": str(root / "matplotlibrc")})
    try:
        # Sockets as files of a folder of their own: a killed run leaves none in the project, two runs share none.
        with followed(log), tempfile.TemporaryDirectory(prefix="kernel-") as sockets:
            kernel = {"transport": "ipc", "ip": f"{sockets}/socket"}
            papermill.execute_notebook(
                notebook, partial, parameters, kernel_name="python3", cwd=root, progress_bar=False,
                record_timing=False, coalesce_streams=True, config=Config({"KernelManager": kernel}))
    except PapermillExecutionError as error:
        number = error.cell_index + (not parameters)  # from 1, as in the committed notebook: papermill adds a cell
        lines = [f"{notebook.name} stopped in cell {number}: {error.ename}: {error.evalue}",
                 f"as far as it came: {partial.relative_to(root)}"]
        raise StageError("\n".join(lines)) from None
    except DeadKernelError:
        raise StageError(f"{notebook.name} was stopped from outside, most likely because memory ran out; as far as it "
                         f"came: {partial.relative_to(root)}") from None
    executed = nbformat.read(partial, as_version=4)
    origins = read_origins(written, executed)
    executed = clean(executed)
    executed.metadata["stage"] = {"sources": hash_sources(root, os.environ.get("DVC_STAGE", "")), "written": origins}
    with log.open("a", encoding="utf-8") as file:
        file.writelines(take_warnings(executed))
    with atomic_write(output) as temporary:
        nbformat.write(executed, temporary)
    partial.unlink()
    written.unlink(missing_ok=True)


def hash_sources(root: Path, stage: str) -> str:
    """A hash of the files in git that a stage of dvc.yaml depends on; empty outside of a stage.

    It stands in the executed notebook, so that a report is written anew when code changes and its results do not.
    """
    stages = (read_yaml(root / "dvc.yaml") or {}).get("stages", {})
    deps = [root / path for path in stages.get(stage.partition("@")[0], {}).get("deps", [])
            if not path.startswith(("build/", "data/"))]
    files = [file for path in deps for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    return hashlib.md5(b"".join(file.read_bytes() for file in files)).hexdigest() if files else ""


def read_origins(written: Path, executed: nbformat.NotebookNode) -> dict[str, int]:
    """Result, from the project's root -> number of the cell (from 0) of an executed notebook that wrote it last.

    Results are in build/ and reports/; what else is written, such as checkpoints, has names that change with the code.
    Files that are kept from run to run are left out, too, since not every run writes them.
    """
    cells = {cell.get("execution_count"): number for number, cell in enumerate(executed.cells)
             if cell.cell_type == "code"}
    lines = written.read_text(encoding="utf-8").splitlines() if written.exists() else []
    notes = [json.loads(line) for line in lines]
    return {note["file"]: cells[note["count"]] for note in sorted(notes, key=lambda note: note["file"])
            if note["count"] in cells and RESULTS.match(note["file"])}


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Take out what differs between two runs: times, random names of cells and tables, the interpreter's version."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("language_info", None)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"
        for name in ("papermill", "execution"):
            cell.metadata.pop(name, None)
        for place, output in enumerate(cell.get("outputs", [])):
            data = output.get("data", {})
            if "text/html" in data:  # pandas names each styled table at random
                data["text/html"] = re.sub(r"\bT_[0-9a-f]{5}", f"T_{number:02d}_{place}", data["text/html"])
            if "text/plain" in data:  # an object's place in memory
                data["text/plain"] = re.sub(r" at 0x[0-9a-f]+", "", data["text/plain"])
    return notebook


def take_warnings(notebook: nbformat.NotebookNode) -> list[str]:
    """Take what was written to stderr out of a notebook: libraries' warnings name folders of this machine."""
    taken = []
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        taken += [output["text"] for output in outputs if output.get("name") == "stderr"]
        if outputs:
            cell["outputs"] = [output for output in outputs if output.get("name") != "stderr"]
    return taken


@contextmanager
def waited(lock: filelock.FileLock, name: str):
    """Hold a lock; says so where it has to wait for it."""
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"{name} is being run by another process; waiting for its end", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def followed(log: Path):
    """Copy what is appended to the log to this process's terminal while the notebook's own process writes it."""
    done = threading.Event()

    def follow():
        with log.open(encoding="utf-8", newline="") as file:
            while True:
                last_round = done.wait(0.5)
                text = file.read()
                if text:
                    print(text, end="", file=sys.stderr, flush=True)
                if last_round:
                    return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def main(
    notebook: Annotated[Path, typer.Argument(help="The notebook, as committed.")],
    output: Annotated[Path, typer.Argument(help="Where the executed notebook goes.")],
    params: Annotated[str, typer.Option(help="Sections or values of params.yaml, dotted, comma-separated.")] = "",
    whole: Annotated[str, typer.Option(help="Sections that are one parameter each.")] = "",
    set_: Annotated[list[str] | None, typer.Option("--set", help="A further parameter, name=value.")] = None,
) -> None:
    """Run one notebook as a pipeline stage."""
    try:
        keys, sections = ([key for key in names.split(",") if key] for names in (params, whole))
        parameters = read_params(find_root() / "params.yaml", keys, sections)
        for pair in set_ or []:
            name, _, value = pair.partition("=")
            parameters[name] = yaml.safe_load(value)
        run_notebook(notebook, output, parameters)
    except yaml.YAMLError as error:
        print(f"error: --set {pair} is no plain value: {' '.join(str(error).split())}", file=sys.stderr)
        raise typer.Exit(1) from None
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    typer.run(main)
