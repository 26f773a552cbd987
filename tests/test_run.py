import json
import os
import subprocess
import sys

import filelock
import nbformat
import pytest
from conftest import ROOT, list_files
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from health_actions.analysis import studies
from health_actions.provenance import read_stages
from health_actions.run import ENVIRONMENT, StageError, hash_sources, list_parameters, read_params, run_notebook

PARAMS = """
profile: small
handwash: {classes: [a, b], models: [m]}
small: {train: {epochs: 2, options: {freeze: true}}}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with dvc.yaml and params.yaml, in which we are; what a run sets in the environment is undone."""
    for name in (*ENVIRONMENT, "HEALTH_ACTIONS_LOG", "HEALTH_ACTIONS_WRITTEN", "MATPLOTLIBRC", "DVC_STAGE"):
        monkeypatch.setenv(name, "")
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_notebook(project, *sources):
    """A notebook with a heading, parameters and further cells."""
    parameters = new_code_cell('number = 1\nname: str = "x"', metadata={"tags": ["parameters"]})
    notebook = new_notebook(cells=[new_markdown_cell("# A notebook"), parameters, *map(new_code_cell, sources)])
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
                         "language_info": {"name": "python"}}
    nbformat.write(notebook, project / "tiny.ipynb")
    return project / "tiny.ipynb"


def collect_output(path) -> str:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "")
                   for cell in notebook.cells for output in cell.get("outputs", []))


def test_sections_and_values_are_picked(project):
    file = project / "params.yaml"
    assert read_params(file, ["handwash.classes", "small.train"]) == {
        "classes": ["a", "b"], "epochs": 2, "options": {"freeze": True}}
    assert read_params(file, ["small.train.epochs", "profile"]) == {"epochs": 2, "profile": "small"}
    assert read_params(file, []) == {}


def test_a_later_section_overrides_an_earlier_one(project):
    (project / "params.yaml").write_text("one: {epochs: 1, size: 3}\ntwo: {epochs: 2}\n")
    assert read_params(project / "params.yaml", ["one", "two"]) == {"epochs": 2, "size": 3}


@pytest.mark.parametrize(("key", "words"), [
    ("small.trian", ["'small.trian'", "'trian'", "train"]), ("huge", ["profile, handwash, small"]),
    ("profile.size", ["'size'", "nothing"])])
def test_a_missing_key_is_told_with_those_that_are_known(project, key, words):
    with pytest.raises(StageError) as caught:
        read_params(project / "params.yaml", [key])
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("text", ["a: [1, 2", "a: 1\n\tb: 2", "a: b: c"])
def test_yaml_that_is_none_is_told_in_one_line(project, text):
    (project / "params.yaml").write_text(text)
    with pytest.raises(StageError, match="params.yaml is not readable: .*line") as caught:
        read_params(project / "params.yaml", ["a"])
    assert "\n" not in str(caught.value)


HOSTILE = {"!!python/object/apply:os.system ['touch ran']": "line 2, column 4: could not determine a constructor for",
           "!!python/name:os.system": "line 2, column 4: could not determine", "2026-13-45": "month must be in 1..12",
           "[" * 20_000: "recursion", "!!int x": "invalid literal", "*nobody": "line 2, column 4: found undefined"}


@pytest.mark.parametrize(("value", "words"), HOSTILE.items(), ids=range(len(HOSTILE)))
def test_yaml_that_asks_for_more_than_values_runs_nothing_and_is_told_by_every_reader(project, value, words):
    for name in ("params.yaml", "dvc.yaml", "dvc.lock"):
        (project / name).write_text(f"# a comment\na: {value}\n")
    for name, read in (("params.yaml", lambda: read_params(project / "params.yaml", ["a"])),
                       ("params.yaml", lambda: studies.read_params(project)),
                       ("dvc.yaml", lambda: hash_sources(project, "one")),
                       ("dvc.lock", lambda: read_stages(project))):
        with pytest.raises(ValueError, match=f"^{name} is not readable: .*{words}") as caught:
            read()
        assert "\n" not in str(caught.value)
    for module, arguments in (("run", ["tiny.ipynb", "out.ipynb"]), ("report", [])):
        done = run_module(module, *arguments)
        assert done.returncode == 1 and done.stderr.startswith("error: params.yaml is not readable: "), done.stderr
        assert done.stderr.count("\n") == 1
    assert not (project / "ran").exists()


def test_a_parameter_that_asks_for_more_than_a_value_is_refused(project):
    write_notebook(project)
    done = run_module("run", "tiny.ipynb", "out.ipynb", "--set", "number=!!python/object/apply:os.system ['touch ran']")
    assert done.returncode == 1 and done.stderr.startswith("error: --set number=!!python") and not done.stdout
    assert done.stderr.count("\n") == 1 and not (project / "ran").exists()


def run_module(name: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", f"health_actions.{name}", *arguments], capture_output=True, text=True)


def test_missing_or_empty_params_are_told(project):
    with pytest.raises(StageError, match="no none.yaml"):
        read_params(project / "none.yaml", ["a"])
    (project / "params.yaml").write_text("")
    with pytest.raises(StageError, match="knows nothing"):
        read_params(project / "params.yaml", ["a"])


def test_parameters_are_those_of_the_tagged_cell(project):
    notebook = nbformat.read(write_notebook(project, "other = 2"), as_version=4)
    assert list_parameters(notebook) == ["number", "name"]


def test_parameters_arrive_and_every_run_gives_the_same_bytes(project):
    notebook = write_notebook(project, "print(number + 1, name)", "import os\nos.getcwd()",
                              "import sys\nprint('a', file=sys.stderr)\nprint('b')")
    before = notebook.read_bytes()
    written = []
    for _ in range(2):
        run_notebook(notebook, project / "build" / "out.ipynb", {"number": 41, "name": "hand"})
        written.append((project / "build" / "out.ipynb").read_bytes())
    assert written[0] == written[1]
    assert "42 hand" in collect_output(project / "build" / "out.ipynb")
    assert repr(str(project)) in collect_output(project / "build" / "out.ipynb")  # it runs at the root
    assert notebook.read_bytes() == before
    assert list_files(project) == [
        "build/out.ipynb", "dvc.yaml", "logs/out.lock", "logs/out.log", "params.yaml", "tiny.ipynb"]


def test_progress_goes_to_the_log_and_not_into_the_notebook(project, capsys):
    code = ("from health_actions.progress import log_message, track\nfor item in track(range(3), total=3, title='items'):\n"
            "    log_message(f'item {item}')")
    run_notebook(write_notebook(project, code), project / "out.ipynb", {})
    assert collect_output(project / "out.ipynb") == ""
    log = (project / "logs" / "out.log").read_text()
    assert "items: 100%" in log and "item 2\n" in log
    assert "item 2\n" in capsys.readouterr().err


def test_an_unknown_parameter_is_refused_before_anything_runs(project):
    with pytest.raises(StageError, match="tiny.ipynb has no parameter nmae; it has number, name"):
        run_notebook(write_notebook(project), project / "out.ipynb", {"nmae": 1})
    assert list_files(project) == ["dvc.yaml", "params.yaml", "tiny.ipynb"]


def test_a_failing_notebook_leaves_its_old_output_and_what_it_came_to(project):
    (project / "out.ipynb").write_text("old")
    with pytest.raises(StageError) as caught:
        run_notebook(write_notebook(project, "print('so far')", "1 / 0", "print('never')"), project / "out.ipynb",
                     {"number": 2})
    for words in ("tiny.ipynb", "cell", "ZeroDivisionError: division by zero", "logs/out.ipynb"):
        assert words in str(caught.value)
    assert (project / "out.ipynb").read_text() == "old"
    partial = collect_output(project / "logs" / "out.ipynb")
    assert "so far" in partial and "never" not in partial


def test_a_notebook_whose_kernel_dies_is_told_as_well(project):
    with pytest.raises(StageError, match="tiny.ipynb"):
        run_notebook(write_notebook(project, "import os\nos._exit(9)"), project / "out.ipynb", {})
    assert not (project / "out.ipynb").exists()


def run(project, *arguments):
    return subprocess.run([sys.executable, "-m", "health_actions.run", *arguments], cwd=project, capture_output=True,
                          text=True, check=False)


def test_the_command_reads_params_and_further_values(project):
    (project / "params.yaml").write_text("small: {number: 5}\n")
    write_notebook(project, "print(number, name)")
    done = run(project, "tiny.ipynb", "out.ipynb", "--params", "small", "--set", "name=wash")
    assert done.returncode == 0, done.stderr
    assert "5 wash" in collect_output(project / "out.ipynb")


@pytest.mark.parametrize("arguments", [("--params", "huge"), ("--set", "nmae=1")])
def test_the_command_tells_an_error_in_one_line(project, arguments):
    write_notebook(project)
    done = run(project, "tiny.ipynb", "out.ipynb", *arguments)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_the_projects_own_params_have_every_section_that_its_stages_ask_for():
    text = (ROOT / "dvc.yaml").read_text()
    for profile in ("laptop", "published"):
        keys = [key for word in text.split() for key in word.split(",") if key.startswith("${profile}.handwash.")]
        for key in {key.replace("${profile}", profile) for key in keys if "${item" not in key}:
            assert read_params(ROOT / "params.yaml", [key])
        models = read_params(ROOT / "params.yaml", ["handwash.models"])["models"]
        for model in models:
            assert read_params(ROOT / "params.yaml", [f"{profile}.handwash.architectures.{model}"])["size"] in (
                read_params(ROOT / "params.yaml", [f"{profile}.handwash.frames"])["sizes"])


def test_the_log_is_no_notebook_of_its_own(project):
    notebook = write_notebook(project)
    run_notebook(notebook, project / "out.ipynb", {})
    assert json.loads((project / "out.ipynb").read_text())["cells"][1]["metadata"]["tags"] == ["parameters"]


def test_the_notebook_tells_which_cell_wrote_a_file(project):
    notebook = write_notebook(
        project, "from health_actions.paths import write_text\nfrom pathlib import Path",
        "write_text(Path('build/study/first.csv'), 'a')",
        "write_text(Path('build/study/second.csv'), 'b'); write_text(Path('build/study/first.csv'), 'c')\n"
        "for name in ('.resume/checkpoint', 'build/study/models/card', 'build/study/frames/index'):\n"
        "    write_text(Path(name), 'd')")
    run_notebook(notebook, project / "out.ipynb", {"number": 1})
    executed = nbformat.read(project / "out.ipynb", as_version=4)
    written = executed.metadata["stage"]["written"]
    assert set(written) == {"build/study/first.csv", "build/study/second.csv"} and len(set(written.values())) == 1
    assert "second.csv" in executed.cells[written["build/study/first.csv"]].source
    assert not list((project / "logs").glob("*.written"))


def test_the_notebook_changes_with_the_files_in_git_that_its_stage_depends_on(project, monkeypatch):
    (project / "dvc.yaml").write_text("stages: {one: {cmd: x, deps: [src/code.py, build/data]}}")
    (project / "src").mkdir()
    monkeypatch.setenv("DVC_STAGE", "one@model")
    sources = []
    for code in ("a = 1", "a = 2", "a = 1"):
        (project / "src" / "code.py").write_text(code)
        sources.append(hash_sources(project, os.environ["DVC_STAGE"]))
    assert sources[0] == sources[2] != sources[1] and sources[0]
    assert hash_sources(project, "") == ""


def test_a_section_can_be_one_parameter(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("section: {one: {epochs: 1}, two: {epochs: 2}}\nother: {seed: 0}")
    expected = {"seed": 0, "section": {"one": {"epochs": 1}, "two": {"epochs": 2}}}
    assert read_params(file, ["other"], ["section"]) == expected


def test_a_notebook_that_is_being_run_is_waited_for(project):
    notebook = write_notebook(project, "print(number + 1)")
    (project / "logs").mkdir()
    lock = filelock.FileLock(project / "logs" / "out.lock")
    lock.acquire()
    process = subprocess.Popen([sys.executable, "-m", "health_actions.run", str(notebook), "out.ipynb"], cwd=project,
                               env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, stderr=subprocess.PIPE, text=True)
    assert "tiny.ipynb is being run by another process" in process.stderr.readline()
    assert not (project / "out.ipynb").exists()
    lock.release()
    process.communicate()
    assert process.returncode == 0 and "2" in collect_output(project / "out.ipynb")
