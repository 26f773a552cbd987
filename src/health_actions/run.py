"""Run a notebook as a stage of dvc.yaml, with the stage's parameters: `python -m health_actions.run NOTEBOOK`."""
# ruff: noqa: E402

import os
import re
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

# nbformat checks web addresses with this module, which takes a second to import; notebooks hold none to check.
sys.modules.setdefault("rfc3987_syntax", None)

import filelock
import nbformat
import papermill
import typer
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from health_actions.params import read_params, read_stage
from health_actions.paths import atomic_write, find_root, parse_yaml
from health_actions.progress import LOG_VARIABLE

# The same bytes at every run on one machine: figures without a date, sums on a GPU in one order.
ENVIRONMENT = {"SOURCE_DATE_EPOCH": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


def match_parameters(notebook: Path, sections: dict) -> dict:
    """Parameters for a notebook: a section whole where the notebook has a dict of that name, else entry by entry.

    Raises:
        ValueError: for one that the notebook's cell tagged `parameters` does not assign.
    """
    known = papermill.inspect_notebook(str(notebook))
    given = {}
    for name, value in sections.items():
        whole = not isinstance(value, dict) or known.get(name, {"default": ""})["default"].startswith("{")
        given |= {name: value} if whole else value
    if "profile" not in known:  # the profile selects values; the report's notebook alone has it as a parameter
        given.pop("profile", None)
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"{notebook.name} has no parameter {', '.join(unknown)}; it has {', '.join(known)}")
    return given


def run_notebook(notebook: Path, output: Path, parameters: dict, *, stage: str) -> None:
    """Execute a notebook with parameters; `output` is written only when it ran to its end.

    The log of its progress and warnings is `logs/<stage>.log`. A notebook that fails is kept there as far as it came.

    Raises:
        RuntimeError: with the notebook, cell and error that stopped it.
    """
    root = find_root()
    log = root / "logs" / f"{stage}.log"
    partial, lock = log.with_suffix(".ipynb"), filelock.FileLock(log.with_suffix(".lock"))
    log.parent.mkdir(exist_ok=True)
    try:  # a pipeline that was killed may have left its stage behind, still writing the same files
        held = lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"{notebook.name} is being run by another process; waiting for its end", file=sys.stderr, flush=True)
        held = lock.acquire()
    with held:
        log.write_text("", encoding="utf-8")
        os.environ.update(ENVIRONMENT | {LOG_VARIABLE: str(log), "MATPLOTLIBRC": str(root / "matplotlibrc")})
        try:
            # The kernel's sockets lie in a folder for this run: a killed run leaves none in the project.
            with follow(log), tempfile.TemporaryDirectory(prefix="kernel-") as sockets:
                kernel = {"transport": "ipc", "ip": f"{sockets}/socket"}
                papermill.execute_notebook(
                    notebook, partial, parameters, kernel_name="python3", cwd=root, progress_bar=False,
                    record_timing=False, coalesce_streams=True, config=Config({"KernelManager": kernel}))
        except (PapermillExecutionError, DeadKernelError) as error:
            reason = "was stopped from outside, most likely because memory ran out"
            if isinstance(error, PapermillExecutionError):  # papermill counts a cell that it adds for parameters
                reason = f"stopped in cell {error.cell_index + (not parameters)}: {error.ename}: {error.evalue}"
            raise RuntimeError(f"{notebook.name} {reason}; as far as it came: {partial.relative_to(root)}") from None
        executed, warnings = clean(nbformat.read(partial, as_version=4), stage.partition("@")[2])
        with log.open("a", encoding="utf-8") as file:
            file.writelines(warnings)
        with atomic_write(output) as temporary:
            nbformat.write(executed, temporary)
        partial.unlink()


def clean(notebook: nbformat.NotebookNode, item: str = "") -> tuple[nbformat.NotebookNode, list[str]]:
    """Take out of an executed notebook what differs between runs or machines; add a title and pictures' texts.

    Returns:
        The notebook, changed in place, and what was written to stderr: warnings name folders of this machine.
    """
    warnings, heading = [], ""
    for name in ("papermill", "language_info"):
        notebook.metadata.pop(name, None)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"
        for name in ("papermill", "execution"):
            cell.metadata.pop(name, None)
        if cell.cell_type == "markdown":
            heading = (re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE) or [heading])[-1]
            notebook.metadata.setdefault("title", f"{heading}: {item}" if item else heading)
        warnings += [output["text"] for output in cell.get("outputs", []) if output.get("name") == "stderr"]
        if "outputs" in cell:
            cell["outputs"] = [output for output in cell.outputs if output.get("name") != "stderr"]
        for place, output in enumerate(cell.get("outputs", [])):
            data = output.get("data", {})
            if "text/html" in data:  # pandas names each styled table at random
                data["text/html"] = re.sub(r"\bT_[0-9a-f]{5}", f"T_{number:02d}_{place}", data["text/html"])
            if "text/plain" in data:  # an object's place in memory
                data["text/plain"] = re.sub(r" at 0x[0-9a-f]+", "", data["text/plain"])
            for kind in {"image/png", "image/jpeg"} & set(data):
                output.metadata[kind] = {**output.metadata.get(kind, {}), "alt": heading}
    return notebook, warnings


@contextmanager
def follow(log: Path):
    """Copy to this terminal what the notebook's process appends to the log."""
    done = threading.Event()

    def copy():
        with log.open(encoding="utf-8", newline="") as file:
            last = False
            while not last:
                last = done.wait(0.5)
                print(file.read(), end="", file=sys.stderr, flush=True)

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def main(
    notebook: Annotated[Path, typer.Argument(help="The notebook, as committed.")],
    stage: Annotated[str, typer.Option(envvar="DVC_STAGE", help="Its stage in dvc.yaml; name@value with a matrix.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="A further parameter, name=value.")] = None,
) -> None:
    """Run one notebook as a stage of dvc.yaml."""
    try:
        root = find_root()
        read_params(root)  # refuses wrong values of all stages before the first one runs
        sections, output = read_stage(root, stage)
        pairs = dict(pair.partition("=")[::2] for pair in set_ or [])
        given = {name: parse_yaml(value, f"--set {name}") for name, value in pairs.items()}
        run_notebook(notebook, root / output, match_parameters(notebook, sections | given), stage=stage)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    typer.run(main)
