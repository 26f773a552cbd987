"""A notebook as a stage: its parameters, its log, the same bytes at every run, and what a failure leaves."""

import os
import shutil
import subprocess
import sys

import filelock
import nbformat
import pytest
from conftest import ROOT, list_files
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from health_actions.run import ENVIRONMENT, clean, match_parameters, run_notebook

STAGES = """
stages:
  tiny:
    matrix: {name: [hand, foot]}
    cmd: x
    params: [profile, published.ntu.landmark_training.epochs]
    outs: ['build/${item.name}.ipynb']
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with dvc.yaml and params.yaml, in which we are; what a run sets in the environment is undone."""
    for name in (*ENVIRONMENT, "HEALTH_ACTIONS_LOG", "MATPLOTLIBRC", "DVC_STAGE"):
        monkeypatch.setenv(name, "")
    monkeypatch.delenv("DVC_STAGE")
    (tmp_path / "dvc.yaml").write_text(STAGES)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_notebook(project, *sources):
    """A notebook with a heading, parameters and further cells."""
    parameters = new_code_cell('number = 1\nname = "x"\noptions = {}\nepochs = 5', metadata={"tags": ["parameters"]})
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


def run(project, *arguments, stage="tiny@hand"):
    environment = os.environ | {"DVC_STAGE": stage, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, "-m", "health_actions.run", "tiny.ipynb", *arguments], cwd=project,
                          env=environment, capture_output=True, text=True, check=False)


def test_a_section_is_one_parameter_where_the_notebook_has_it_else_its_entries_are(project):
    notebook = write_notebook(project)
    sections = {"profile": "small", "name": "a", "options": {"freeze": True}, "tiny": {"number": 5}}
    assert match_parameters(notebook, sections) == {"name": "a", "options": {"freeze": True}, "number": 5}
    with pytest.raises(ValueError, match="tiny.ipynb has no parameter nmae, size; it has number, name, options"):
        match_parameters(notebook, {"nmae": 1, "tiny": {"number": 5, "size": 2}})


def test_parameters_arrive_and_every_run_gives_the_same_bytes(project):
    notebook = write_notebook(project, "print(number + 1, name)", "import os\nos.getcwd()", "object()",
                              "import sys\nprint('a', file=sys.stderr)\nprint('b')")
    before, written = notebook.read_bytes(), []
    for _ in range(2):
        run_notebook(notebook, project / "build" / "out.ipynb", {"number": 41, "name": "hand"}, stage="one")
        written.append((project / "build" / "out.ipynb").read_bytes())
    assert written[0] == written[1] and notebook.read_bytes() == before
    output = collect_output(project / "build" / "out.ipynb")
    assert "42 hand" in output and repr(str(project)) in output and output.endswith("b\n")  # it runs at the root
    assert (project / "logs" / "one.log").read_text() == "a\n"
    assert list_files(project) == ["build/out.ipynb", "dvc.yaml", "logs/one.lock", "logs/one.log", "params.yaml",
                                   "tiny.ipynb"]


def test_what_differs_between_runs_is_taken_out_and_pictures_get_their_heading():
    picture = new_output("display_data", {"image/png": "AAAA", "text/html": "<i id=T_0a1b2></i>"})
    texts = [new_output("stream", name=name, text=name) for name in ("stderr", "stdout")]
    cells = [new_markdown_cell("# One\n\ntext"), new_markdown_cell("## A hand"),
             new_code_cell("x", outputs=[picture, *texts], metadata={"execution": {"at": "noon"}, "papermill": {}})]
    notebook, warnings = clean(new_notebook(cells=cells, metadata={"papermill": {"at": 1}}), "convlstm")
    assert warnings == ["stderr"] and notebook.metadata == {"title": "One: convlstm"}
    cell = notebook.cells[2]
    assert cell.id == "cell-02" and not cell.metadata and len(cell.outputs) == 2
    assert cell.outputs[0].metadata == {"image/png": {"alt": "A hand"}}
    assert cell.outputs[0].data["text/html"] == "<i id=T_02_0></i>"


def test_progress_goes_to_the_log_and_the_terminal_and_not_into_the_notebook(project, capsys):
    code = ("from health_actions.progress import log_message, track\n"
            "for item in track(range(3), total=3, title='items'):\n    log_message(f'item {item}')")
    run_notebook(write_notebook(project, code), project / "out.ipynb", {}, stage="one")
    assert collect_output(project / "out.ipynb") == ""
    log = (project / "logs" / "one.log").read_text()
    assert "items: 100%" in log and "item 2\n" in log and "item 2\n" in capsys.readouterr().err


def test_a_failing_notebook_leaves_its_old_output_and_what_it_came_to(project):
    (project / "out.ipynb").write_text("old")
    notebook = write_notebook(project, "print('so far')", "1 / 0", "print('never')")
    with pytest.raises(RuntimeError) as caught:
        run_notebook(notebook, project / "out.ipynb", {"number": 2}, stage="one")
    assert str(caught.value) == ("tiny.ipynb stopped in cell 4: ZeroDivisionError: division by zero; "
                                 "as far as it came: logs/one.ipynb")
    assert (project / "out.ipynb").read_text() == "old"
    partial = collect_output(project / "logs" / "one.ipynb")
    assert "so far" in partial and "never" not in partial


def test_a_notebook_whose_kernel_dies_is_named_as_well(project):
    with pytest.raises(RuntimeError, match="tiny.ipynb was stopped from outside.*logs/one.ipynb"):
        run_notebook(write_notebook(project, "import os\nos._exit(9)"), project / "out.ipynb", {}, stage="one")
    assert not (project / "out.ipynb").exists()


def test_the_command_is_told_its_stage_by_dvc_and_takes_further_values(project):
    write_notebook(project, "print(epochs, name, options, number)")
    done = run(project, "--set", "name=wash", "--set", "options={a: 0.5}", "--set", "number=2e-05")
    assert done.returncode == 0, done.stderr
    assert "60 wash {'a': 0.5} 2e-05" in collect_output(project / "build" / "hand.ipynb")


@pytest.mark.parametrize(("arguments", "stage", "words"), [
    (("--set", "nmae=1"), "tiny@hand", "has no parameter nmae"), ((), "huge", "dvc.yaml has no 'stages.huge'"),
    (("--set", "name=!!python/object/apply:os.system ['touch ran']"), "tiny@hand", "could not determine")])
def test_the_command_says_in_one_line_what_is_wrong(project, arguments, stage, words):
    write_notebook(project)
    done = run(project, *arguments, stage=stage)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and words in done.stderr
    assert done.stderr.count("\n") == 1 and not (project / "ran").exists()


def test_a_wrong_parameter_of_any_stage_is_named_before_the_notebook_starts(project):
    write_notebook(project, "print(epochs)")
    text = (project / "params.yaml").read_text().replace("batch_size: 32", 'batch_size: "32"')
    (project / "params.yaml").write_text(text.replace("folds: 4,", "folds: 1,"))
    done = run(project)
    assert done.returncode == 1 and not (project / "logs").exists()
    assert done.stderr == ("error: params.yaml: laptop.handwash.annotations.folds must be greater than or equal to 3, "
                           "found 1\n")  # another batch_size is in use


def test_a_notebook_that_is_being_run_is_waited_for(project):
    write_notebook(project, "print(epochs + 1)")
    (project / "logs").mkdir()
    with filelock.FileLock(project / "logs" / "tiny@hand.lock"):
        process = subprocess.Popen([sys.executable, "-m", "health_actions.run", "tiny.ipynb", "--stage", "tiny@hand"],
                                   cwd=project, stderr=subprocess.PIPE, text=True)
        assert "tiny.ipynb is being run by another process" in process.stderr.readline()
        assert not (project / "build" / "hand.ipynb").exists()
    process.communicate()
    assert process.returncode == 0 and "61" in collect_output(project / "build" / "hand.ipynb")
