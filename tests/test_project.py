"""What holds the project's files together: stages and what they read, versions, the README's table."""

import ast
import json
import re
import subprocess
from pathlib import Path

import nbformat
import pytest
import yaml
from conftest import HANDWASH_CLASSES, ROOT

from health_actions.contents import HANDWASH_CONTENTS, NTU_CONTENTS, STUDIES
from health_actions.data.clips import NTU_ACTIONS
from health_actions.data.splits import NTU_PROTOCOLS, PROTOCOLS
from health_actions.data.transforms import AUGMENTATIONS
from health_actions.learning.recipe import Recipe
from health_actions.readme import MARK, TABLES, fill_tables
from health_actions.report import PAGES
from health_actions.run import list_parameters, read_params

DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
PACKAGE = ROOT / "src" / "health_actions"
STAGES = [name for name in DVC["stages"] if name != "report"]
PROFILES = ["laptop", "published"]
MODELS = PARAMS["handwash"]["models"]
NETWORKS = PARAMS["ntu"]["models"]
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


def describe_stage(stage: str, profile: str = "laptop", model: str | None = None) -> dict:
    """A stage with its variables filled in."""
    model = model or ("squeezenet" if stage.startswith("ntu") else "cnn_lstm_efficientnet_lite0")
    text = json.dumps(DVC["stages"][stage]).replace("${profile}", profile).replace("${item.model}", model)
    return json.loads(text)


def list_keys(stage: dict, option: str = "params") -> list[str]:
    """What a stage's notebook takes from params.yaml: sections, and single values; or sections that are taken whole."""
    found = re.search(rf"--{option} (\S+)", stage["cmd"])
    return found[1].split(",") if found else []


def read_values(stage: dict) -> dict:
    """The values of params.yaml that a stage's notebook gets."""
    return read_params(ROOT / "params.yaml", list_keys(stage), list_keys(stage, "whole"))


def read_notebook(stage: dict) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / re.search(r"notebooks/\S+\.ipynb", stage["cmd"])[0], as_version=4)


def read_defaults(stage: dict) -> dict:
    """The values in the notebook's cell of parameters."""
    cell = next(cell for cell in read_notebook(stage).cells if "parameters" in cell.metadata.get("tags", []))
    return {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body}


def list_paths(stage: dict) -> dict[str, str]:
    """Those parameters of a stage's notebook that are files and folders."""
    return {name: value for name, value in read_defaults(stage).items() if isinstance(value, str) and "/" in value}


def test_every_notebook_has_its_stage():
    named = {re.search(r"notebooks/\S+\.ipynb", DVC["stages"][stage]["cmd"])[0] for stage in STAGES}
    assert named == {path.relative_to(ROOT).as_posix() for path in (ROOT / "notebooks").glob("*.ipynb")}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_every_file_that_its_notebook_imports(stage):
    depends = DVC["stages"][stage]["deps"]
    cells = read_notebook(describe_stage(stage)).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    missing = [file for file in follow_imports(code)
               if not any(file == dep or file.startswith(f"{dep}/") for dep in depends)]
    assert not missing


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_knows_every_file_and_folder_of_its_notebook(stage):
    described = describe_stage(stage)
    made = {next(iter(out)) for out in [*described["outs"], *described.get("metrics", [])]}
    # Checkpoints, and times that differ from run to run.
    no_results = {f"{folder}/{study.name}{times}" for study in STUDIES
                  for folder, times in ((".resume", ""), ("build", "/times"))}
    assert set(list_paths(described).values()) <= made | no_results | set(described["deps"])


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_again_when_a_value_that_it_takes_changes(stage, profile):
    described = describe_stage(stage, profile)
    assert described["params"] == list_keys(described) + list_keys(described, "whole")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("stage", STAGES)
def test_a_notebook_takes_every_value_from_params_and_none_that_it_does_not_know(stage, profile):
    for model in NETWORKS if stage.startswith("ntu") else MODELS:
        described = describe_stage(stage, profile, model)
        taken = {*read_values(described),
                 *re.findall(r"--set (\w+)=", described["cmd"])}
        paths = {*list_paths(described)}
        assert taken - paths == {*list_parameters(read_notebook(described))} - paths, model


@pytest.mark.parametrize("stage", STAGES)
def test_a_notebook_opened_by_hand_starts_with_the_laptop_values(stage):
    described = describe_stage(stage)
    expected, values = read_values(described), read_defaults(described)
    assert {name: values[name] for name in expected} == expected, stage


def test_the_report_depends_on_the_results_of_every_notebook():
    folders = {next(iter(out)) for stage in STAGES for out in DVC["stages"][stage]["outs"]}
    results = {folder for folder in folders if not folder.endswith(".ipynb")}
    # Of frames it shows the index, and nothing of the weights.
    inner = {f"build/{study.name}/frames" for study in STUDIES} | {
        f"build/{folder}/${{item.model}}" for folder in ("handwash/models", "ntu/models")} | {"build/ntu/pretrained"}
    assert results - inner <= set(DVC["stages"]["report"]["deps"])


@pytest.mark.parametrize("contents", [HANDWASH_CONTENTS, NTU_CONTENTS])
def test_the_report_shows_nothing_twice(contents):
    files = [item.file for item in contents]
    assert len(files) == len(set(files))
    assert {item.page for item in contents} <= {"key", "tables", *PAGES}


@pytest.mark.parametrize("profile", PROFILES)
def test_every_architecture_has_its_parameters(profile):
    assert set(MODELS) <= set(PARAMS[profile]["handwash"]["architectures"])


@pytest.mark.parametrize("profile", PROFILES)
def test_frames_are_extracted_at_every_size_that_is_asked_for(profile):
    study = PARAMS[profile]["handwash"]
    settings = study["settings"]
    sizes = {options["size"] for options in study["architectures"].values()}
    sizes |= {*settings["sizes"], settings["grid_size"], settings["augmentation_size"]} - {None}
    assert sizes <= set(study["frames"]["sizes"])


@pytest.mark.parametrize("profile", PROFILES)
def test_the_values_of_an_architecture_make_a_recipe(profile):
    study = PARAMS[profile]["handwash"]
    for name, options in study["architectures"].items():
        values = study["train"] | options
        for key in ("folds_trained", "accelerator", "devices", "num_nodes", "compile"):
            values.pop(key)
        assert Recipe(architecture=name, **values).size == options["size"]


@pytest.mark.parametrize("profile", PROFILES)
def test_every_network_has_its_parameters_and_they_make_a_recipe(profile):
    study = PARAMS[profile]["ntu"]
    for name in NETWORKS:
        values = study["train"] | study["architectures"][name] | study["training"][name]
        for key in ("accelerator", "devices", "num_nodes", "compile", "starts"):
            values.pop(key)
        assert Recipe(architecture=name, **values).stride == study["train"]["stride"]
        assert set(study["pretraining"][name]) == {"epochs", "released"}
    assert study["annotations"]["protocol"] in {**PROTOCOLS, **NTU_PROTOCOLS}
    assert set(study["evaluation"]["detailed"].values()) <= set(NETWORKS)
    assert {*study["evaluation"]["alerts"], study["behaviour"]["falling"], study["behaviour"]["hand_action"]} <= set(
        PARAMS["ntu"]["classes"])


def test_the_published_profile_is_the_papers_protocol():
    study = PARAMS["published"]["ntu"]
    expected = {"window": 16, "stride": 2, "size": 112, "batch_size": 64, "optimizer": "sgd", "learning_rate": 0.001,
                "schedule": "steps", "milestones": [40], "gamma": 0.1}
    assert {name: study["train"][name] for name in expected} == expected
    assert {options["epochs"] for options in study["training"].values()} == {50}
    pretrained = {name for name, options in study["pretraining"].items() if options["released"]}
    assert pretrained == set(NETWORKS) - {"c3d"}, "C3D was trained from scratch"
    assert all(("pretrained" in study["training"][name]["starts"]) == (name in pretrained) for name in NETWORKS)


@pytest.mark.parametrize("profile", PROFILES)
def test_what_is_compared_exists(profile):
    study = PARAMS[profile]["handwash"]
    assert PARAMS["handwash"]["rival"] in MODELS
    for section in ("settings", "errors", "switches", "protocols"):
        assert study[section]["base"] in {"best", *MODELS} - {PARAMS["handwash"]["rival"]}, section
    assert set(study["settings"]["augmentations"]) <= set(AUGMENTATIONS)
    assert set(study["protocols"]["compared_protocols"]) <= set(PROTOCOLS)


def test_the_classes_are_those_of_the_paper():
    assert PARAMS["handwash"]["classes"] == HANDWASH_CLASSES


def test_the_medical_actions_are_those_of_the_paper_under_ntus_numbers():
    published = yaml.safe_load((ROOT / "published" / "ntu_2022.yaml").read_text())["classes"]
    assert published == {number: name for number, name in NTU_ACTIONS.items() if number >= 41}
    assert PARAMS["ntu"]["classes"] == list(published.values())
    assert set(PARAMS["ntu"]["source_classes"]) <= set(NTU_ACTIONS.values()) - set(published.values())


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
    wanted = re.findall(r'^    "([a-z0-9-]+)(?:>=[0-9.]+)?",$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert set(wanted) <= pinned


def test_the_readmes_tables_are_the_reports():
    readme = (ROOT / "README.md").read_text()
    assert fill_tables(readme, ROOT / "reports") == readme, "python -m health_actions.readme writes them anew"
    assert {name for _, name, _ in MARK.findall(readme)} == set(TABLES)
    assert all(f"| {name} |" in readme for name in MODELS + NETWORKS)


def test_a_number_in_the_readmes_tables_that_the_reports_do_not_have_is_found():
    readme = (ROOT / "README.md").read_text()
    planted = readme.replace("| squeezenet | 0.", "| squeezenet | 9.", 1)
    assert planted != readme and fill_tables(planted, ROOT / "reports") == readme
    with pytest.raises(ValueError, match="asks for a table 'nothing'; known are architectures, networks"):
        fill_tables("<!-- table: nothing -->\n<!-- end -->", ROOT / "reports")


def test_the_readme_lists_every_notebook():
    readme = (ROOT / "README.md").read_text()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"[{path.stem}](notebooks/{path.name})" in readme, path.name


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_what_can_be_made_again_is_not_in_git():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not [file for file in files if file.startswith(("build/", "data/", ".venv/", "logs/", ".resume/"))]
    assert sum((ROOT / file).stat().st_size for file in files if file.startswith("storage/")) < 50e6
