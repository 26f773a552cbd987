"""What holds the project's files together: stages and what they read, versions, the README's table."""

import ast
import json
import re
import subprocess
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml
from conftest import HANDWASH_CLASSES, ROOT

from health_actions.run import list_parameters, read_params

DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
PACKAGE = ROOT / "src" / "health_actions"
# What every stage uses and no result depends on.
PLUMBING = {"__init__.py", "paths.py", "progress.py", "run.py"}


def list_imports(source: str) -> set[Path]:
    """Files of the package that a piece of Python imports, one step deep."""
    files = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("health_actions"):
            place = PACKAGE.joinpath(*node.module.split(".")[1:])
            files.add(place / "__init__.py" if place.is_dir() else place.with_suffix(".py"))
    return files


def follow_imports(source: str) -> set[str]:
    """Files of the package that a piece of Python depends on, as paths from the project's root."""
    found, rest = set(), list_imports(source)
    while rest:
        file = rest.pop()
        if file not in found:
            found.add(file)
            rest |= list_imports(file.read_text())
    return {file.relative_to(ROOT).as_posix() for file in found if file.name not in PLUMBING or "models" in file.parts}


@pytest.mark.parametrize("stage", [name for name in DVC["stages"] if name != "report"])
def test_a_stage_depends_on_every_file_that_its_notebook_imports(stage):
    depends = DVC["stages"][stage]["deps"]
    notebook = json.loads((ROOT / next(dep for dep in depends if dep.endswith(".ipynb"))).read_text())
    code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    missing = [file for file in follow_imports(code)
               if not any(file == dep or file.startswith(f"{dep}/") for dep in depends)]
    assert not missing


@pytest.mark.parametrize("profile", ["laptop", "published"])
def test_every_architecture_has_its_parameters_and_frames_of_its_size(profile):
    study = PARAMS[profile]["handwash"]
    assert set(PARAMS["handwash"]["models"]) <= set(study["architectures"])
    for name, options in study["architectures"].items():
        assert options["size"] in study["frames"]["sizes"], name


@pytest.mark.parametrize("stage", [name for name in DVC["stages"] if name != "report"])
def test_a_notebook_opened_by_hand_starts_with_the_laptop_values(stage):
    command = DVC["stages"][stage]["cmd"].replace("${profile}", "laptop")
    command = command.replace("${item.model}", "cnn_lstm_efficientnet_lite0")
    expected = read_params(ROOT / "params.yaml", re.search(r"--params (\S+)", command)[1].split(","))
    notebook = nbformat.read(ROOT / re.search(r"notebooks/\S+\.ipynb", command)[0], as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body}
    assert {name: values[name] for name in expected} == expected


@pytest.mark.parametrize("profile", ["laptop", "published"])
def test_no_training_value_is_left_to_the_notebooks_own_defaults(profile):
    notebook = nbformat.read(ROOT / "notebooks" / "03_handwash_training.ipynb", as_version=4)
    paths = {"frames", "annotations", "output", "resume", "architecture", "classes"}
    study = PARAMS[profile]["handwash"]
    for name, options in study["architectures"].items():
        assert {*study["train"], *options} == set(list_parameters(notebook)) - paths, name


def test_the_classes_are_those_of_the_paper():
    assert PARAMS["handwash"]["classes"] == HANDWASH_CLASSES


def test_conda_users_get_the_same_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert "-r requirements.txt" in pip
    python = next(item for item in environment["dependencies"] if str(item).startswith("python="))
    required = re.search(r'requires-python = ">=(\d+\.\d+)', (ROOT / "pyproject.toml").read_text())
    assert python == f"python={required[1]}"


def test_every_package_is_pinned():
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines and all(re.match(r"[A-Za-z0-9._-]+==[^ ]+( ;.*)?$", line) for line in lines)
    pinned = {re.split("==", line)[0].lower() for line in lines}
    wanted = re.findall(r'^    "([a-z0-9-]+)",$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert set(wanted) <= pinned


def test_the_readme_shows_the_reports_own_table():
    table = pd.read_csv(ROOT / "reports" / "handwash" / "tables" / "table_1.csv")
    readme = (ROOT / "README.md").read_text()
    for row in table.itertuples():
        published = "-" if pd.isna(row.published) else f"{row.published:.3f}"
        line = (f"| {row.architecture} | {row.weights} | {published} | {row.reproduced:.3f} "
                f"| {row.low:.3f}-{row.high:.3f} | {row.clips} |")
        assert line in readme


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_what_can_be_made_again_is_not_in_git():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not [file for file in files if file.startswith(("build/", "data/", ".venv/", "logs/", ".resume/"))]
    assert sum((ROOT / file).stat().st_size for file in files if file.startswith("storage/")) < 50e6
