"""What `make verify` finds: in a small project with every kind of file, one thing is altered at a time."""

import hashlib
import json
import shutil
import subprocess
import sys
from contextlib import chdir, contextmanager
from pathlib import Path

import pytest
import typer
import yaml
from conftest import ROOT
from dvc.repo import Repo
from typer.testing import CliRunner

from health_actions.verify import Finding, main, verify

CONFIG = """[core]
    no_scm = true
    remote = embedded
['remote "embedded"']
    url = ../storage
"""
FILES = {
    "data/clips/a.txt": "clip a", "data/clips/b.txt": "clip b", "data/other/c.txt": "clip c",
    "notebooks/01_frames.ipynb": "{}", "src/tool.py": "x = 1", "src/models/one.py": "y = 1", "matplotlibrc": "dpi: 90",
    "published/values.yaml": "table: 1", "params.yaml": "train: {rate: 0.1, weights: null}\nunused: 1\n",
    ".dvc/config": CONFIG, ".dvc/.gitignore": "/tmp\n/cache\n",
}
STAGES = f"""
stages:
  frames:
    cmd: mkdir -p build/frames && cat data/clips/*.txt > build/frames/all.txt
    deps: [data/clips, notebooks/01_frames.ipynb]
    outs: [build/frames]
  train:
    cmd:
      - mkdir -p build/model/none
      - cat build/frames/all.txt src/tool.py > build/model/weights
      - cp src/tool.py reports/m.txt
    deps: [build/frames/all.txt, src/tool.py, src/models, matplotlibrc]
    params: [train]
    outs: [build/model/weights, build/model/none]
    metrics: [{{reports/m.txt: {{cache: false}}}}]
  figures:
    cmd: mkdir -p build/figures && cat data/other/c.txt published/values.yaml > build/figures/f.svg
    deps: [data/other, matplotlibrc, published/values.yaml]
    outs: [build/figures]
  report:
    cmd: {sys.executable} report.py
    deps: [build/model, build/figures, report.py]
    outs:
      - reports/index.html: {{cache: false}}
      - reports/tables: {{cache: false}}
      - reports/figures: {{cache: false}}
      - reports/provenance.json: {{cache: false}}
"""
REPORT = """
import hashlib, json, pathlib
reports = pathlib.Path("reports")
made = {"index.html": ("index", "report"), "m.txt": (None, "train"), "tables/t.csv": ("build/model/weights", "train"),
        "figures/f.svg": ("build/figures/f.svg", "figures")}
files = {}
for name, (source, stage) in made.items():
    path = reports / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if source:
        path.write_text(pathlib.Path(source).read_text() if "/" in source else source)
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    files[name] = {"md5": md5, "stage": stage, "notebook": None, "cell": None}
(reports / "provenance.json").write_text(json.dumps({"files": files}))
"""
ALL = ["frames", "train", "report"]
TRAINED = ["reports/m.txt", "reports/tables/t.csv"]
INDEX, FIGURE, MANIFEST = "reports/index.html", "reports/figures/f.svg", "reports/provenance.json"


@contextmanager
def opened(root: Path):
    """DVC at work in a project."""
    with chdir(root), Repo(str(root)) as repo:
        yield repo


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The project, run once; what DVC remembers of files lies beside it."""
    root = tmp_path_factory.mktemp("verify") / "project"
    for name, text in {**FILES, "dvc.yaml": STAGES, "report.py": REPORT, "reports/m.txt": ""}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_SITE_CACHE_DIR", str(root.parent / "site"))
        with opened(root) as repo:
            repo.add("data")
            repo.push(targets=["data.dvc"])
            repo.reproduce()
    return root


@pytest.fixture
def project(finished, tmp_path, monkeypatch) -> Path:
    """A copy with everything at hand."""
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(finished.parent / "site"))
    return shutil.copytree(finished, tmp_path / "project")


@pytest.fixture
def clone(project) -> Path:
    """A copy with what git would hold, and no more."""
    for name in ("data", "build", ".dvc/cache", ".dvc/tmp"):
        shutil.rmtree(project / name)
    return project


@pytest.fixture(params=["everything at hand", "fresh clone"])
def either(request) -> Path:
    """Both, one after the other."""
    return request.getfixturevalue("project" if request.param == "everything at hand" else "clone")


def find_one(root: Path) -> Finding:
    """The only finding there is."""
    findings = verify(root)
    assert len(findings) == 1, [finding.describe() for finding in findings]
    return findings[0]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_nothing_is_found_where_nothing_is_altered(either):
    assert verify(either) == []


@pytest.mark.parametrize(("name", "stages", "files"), [
    ("notebooks/01_frames.ipynb", ALL, [*TRAINED, INDEX]),
    ("src/tool.py", ALL[1:], [*TRAINED, INDEX]),
    ("matplotlibrc", ["train", "figures", "report"], [*TRAINED, FIGURE, INDEX]),
    ("published/values.yaml", ["figures", "report"], [FIGURE, INDEX]),
    ("report.py", ["report"], [INDEX])])
@pytest.mark.parametrize("reason", ["altered", "missing"])
def test_a_file_that_stages_read_is_named_with_the_results_that_depend_on_it(either, name, stages, files, reason):
    if reason == "altered":
        (either / name).write_text("# altered")
    else:
        (either / name).unlink()
    finding = find_one(either)
    assert (finding.item, finding.reason, finding.stages, finding.files) == (name, reason, stages, files)


def test_a_new_file_in_a_folder_that_a_stage_reads_makes_it_stale(either):
    (either / "src/models/two.py").write_text("")
    assert (find_one(either).item, find_one(either).stages) == ("src/models", ALL[1:])


@pytest.mark.parametrize(("old", "new", "key", "text"), [
    ("rate: 0.1", "rate: 0.2", "train.rate", "is 0.2, was 0.1"),
    ("weights: null", "weights: best", "train.weights", "is best, was None"),
    (", weights: null", "", "train.weights", "is not there, was None"),
    ("train: {", "train: {epochs: 3, ", "train.epochs", "is 3, was not there")])
def test_a_parameter_is_named_with_both_values(clone, old, new, key, text):
    edit(clone / "params.yaml", old, new)
    finding = find_one(clone)
    assert (finding.item, finding.reason) == (f"params.yaml: {key}", text)
    assert (finding.stages, finding.files) == (ALL[1:], [*TRAINED, INDEX])


def test_a_parameter_that_no_stage_takes_makes_nothing_stale(either):
    edit(either / "params.yaml", "unused: 1", "unused: 2")
    assert verify(either) == []


def test_an_altered_command_is_named_by_its_stage(either):
    edit(either / "dvc.yaml", "cat data/other", "cat -n data/other")
    finding = find_one(either)
    assert (finding.item, finding.stages, finding.files) == ("dvc.yaml: figures", ["figures", "report"],
                                                             [FIGURE, INDEX])


@pytest.mark.parametrize(("old", "new", "item", "reason"), [
    ("deps: [data/other, ", "deps: [data/other, src/tool.py, ", "src/tool.py", "figures has not run since"),
    ("deps: [data/other, ", "deps: [data/other, build/frames, ", "build/frames", "figures has not run since"),
    ("outs: [build/figures]", "outs: [build/figures, build/times]", "build/times", "not as figures made it"),
    ("  report:\n", "  new: {cmd: echo, deps: [src/tool.py]}\n  report:\n", "dvc.yaml: new", "dvc.lock has no run"),
    ("      - reports/provenance.json: {cache: false}\n", "", MANIFEST, "no stage's output")])
def test_a_stage_that_has_not_run_as_it_stands_in_dvc_yaml_is_named(clone, old, new, item, reason):
    edit(clone / "dvc.yaml", old, new)
    finding = find_one(clone)
    assert finding.item == item and finding.reason.startswith(reason)


@pytest.mark.parametrize(("name", "stage"), [
    ("tables/t.csv", "train"), ("figures/f.svg", "figures"), ("index.html", "report"), ("m.txt", "train")])
@pytest.mark.parametrize("reason", ["altered", "missing"])
def test_a_result_that_is_not_as_it_was_made_is_named(clone, name, stage, reason):
    if reason == "altered":
        (clone / "reports" / name).write_text("99 %")
    else:
        (clone / "reports" / name).unlink()
    finding = find_one(clone)
    assert (finding.item, finding.reason) == (f"reports/{name}", reason)
    assert (finding.stages, finding.files) == ([stage], [f"reports/{name}"])


@pytest.mark.parametrize("name", ["reports/tables/more.csv", "reports/more.html", "reports/ntu/.hidden"])
def test_a_file_of_reports_that_no_stage_made_is_named(either, name):
    (either / name).parent.mkdir(exist_ok=True)
    (either / name).write_text("")
    finding = find_one(either)
    assert (finding.item, finding.reason, finding.files) == (name, "extra", [name])


def test_a_result_altered_together_with_the_manifest_is_given_away_by_dvc_lock(either):
    before = hashlib.md5((either / "reports/tables/t.csv").read_bytes()).hexdigest()
    (either / "reports/tables/t.csv").write_text("99 %")
    edit(either / MANIFEST, before, hashlib.md5(b"99 %").hexdigest())
    assert {finding.item for finding in verify(either)} == {MANIFEST, "reports/tables"}


@pytest.mark.parametrize(("stage", "item", "stages"), [
    ("frames", "build/frames", ALL[1:]), ("train", "build/model", ["report"])])
def test_a_stage_that_did_not_run_after_the_one_before_it_is_told_by_dvc_lock_alone(project, stage, item, stages):
    """A part of the pipeline was run again and committed: `dvc repro train`, say, without the report."""
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    path = project / lock["stages"][stage]["outs"][0]["path"]
    file = path / "all.txt" if path.is_dir() else path
    file.write_text("another run")
    with opened(project) as repo:
        repo.commit(stage, force=True)
    shutil.rmtree(project / "build")
    finding = find_one(project)
    assert finding.item.startswith(item) and finding.stages == stages
    assert f"than that of {stage}" in finding.reason


def test_a_listing_that_is_not_at_hand_leaves_nothing_to_compare_but_whole_outputs(clone):
    lock = yaml.safe_load((clone / "dvc.lock").read_text())
    lock["stages"]["report"]["deps"][0]["md5"] = "0" * 32 + ".dir"  # build/figures, by the order of names
    (clone / "dvc.lock").write_text(yaml.safe_dump(lock))
    assert find_one(clone).item == lock["stages"]["report"]["deps"][0]["path"] == "build/figures"


@pytest.mark.parametrize(("name", "reason", "stages", "files"), [
    ("data/clips/a.txt", "altered", ALL, [*TRAINED, INDEX]),
    ("data/clips/b.txt", "missing", ALL, [*TRAINED, INDEX]),
    ("data/other/new.txt", "extra", ["figures", "report"], [FIGURE, INDEX]),
    ("data/unread.txt", "extra", [], [])])
def test_a_clip_that_is_not_the_tracked_one_is_named(project, name, reason, stages, files):
    if reason == "missing":
        (project / name).unlink()
    else:
        (project / name).unlink(missing_ok=True)  # it may be a link to DVC's cache
        (project / name).write_text("other")
    finding = find_one(project)
    assert finding.item == name and finding.reason.startswith(reason)
    assert (finding.stages, finding.files) == (stages, files)


def test_clips_of_ones_own_pass_once_everything_ran_on_them_as_long_as_data_dvc_names_them(project):
    (project / "data/clips/a.txt").unlink()
    (project / "data/clips/own.txt").write_text("own")
    before = (project / "data.dvc").read_text()
    with opened(project) as repo:
        repo.reproduce()  # this writes data.dvc, too
    assert verify(project) == []
    (project / "data.dvc").write_text(before)
    finding = find_one(project)
    assert finding.item == "data/clips" and finding.reason.endswith("than that of data.dvc")


def test_data_dvc_that_names_other_clips_is_told_apart_without_clips(project):
    (project / "data/clips/b.txt").unlink()
    with opened(project) as repo:
        repo.add("data")
        repo.push(targets=["data.dvc"])
    for name in ("data", "build", ".dvc/cache"):
        shutil.rmtree(project / name)
    finding = find_one(project)
    assert (finding.item, finding.stages) == ("data/clips", ALL)
    assert "data.dvc" in finding.reason


@pytest.mark.parametrize("md5", ["0" * 32 + ".dir", "0" * 32, "x.dir", ""])
def test_data_dvc_with_another_hash_is_named(either, md5):
    described = yaml.safe_load((either / "data.dvc").read_text())
    described["outs"][0]["md5"] = md5
    (either / "data.dvc").write_text(yaml.safe_dump(described))
    findings = verify(either)
    assert findings and any("data.dvc" in finding.describe() for finding in findings)


def test_a_damaged_listing_of_the_clips_is_named(clone):
    listing = next((clone / "storage").rglob("*.dir"))
    listing.chmod(0o644)
    edit(listing, "clips/a.txt", "clips/z.txt")
    assert find_one(clone).item == "data.dvc"
    assert listing.exists(), "verify looks, it repairs nothing"


def test_an_altered_output_at_hand_is_named_with_what_was_made_from_it(project):
    path = project / "build/frames/all.txt"
    path.unlink()
    path.write_text("other")
    finding = find_one(project)
    assert (finding.item, finding.stages, finding.files) == ("build/frames", ALL, [*TRAINED, INDEX])


def test_a_part_of_the_outputs_may_be_missing(project):
    shutil.rmtree(project / "build/figures")
    (project / "build/model/weights").unlink()
    shutil.rmtree(project / ".dvc/cache")
    assert verify(project) == []


@pytest.mark.parametrize("name", ["dvc.lock", "data.dvc", MANIFEST, "dvc.yaml", "params.yaml", ".dvc/config"])
def test_a_missing_or_damaged_file_is_found_without_a_traceback(clone, name):
    contents = [b"\xff\xfe\x00", b"a: {b: [", b'{"files": {"index.html": 3}}', b"outs: [{md5: x}]"]
    contents += [b"remote = x\n[core]\n"] if name == ".dvc/config" else [None, b"", b"[1, 2]"]
    for content in contents:
        (clone / name).unlink(missing_ok=True)
        if content is not None:
            (clone / name).write_bytes(content)
        lines = [finding.describe() for finding in verify(clone)]
        assert any(name.removeprefix(".dvc/") in line or "DVC: cannot read" in line for line in lines), content
        assert not any("\n" in line for line in lines)
        assert len(lines) == 1 or name not in ("data.dvc", "dvc.lock") or content == b"", "one line says it all"


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_half_a_dvc_lock_is_found(either, share):
    text = (either / "dvc.lock").read_text()
    (either / "dvc.lock").write_text(text[:int(len(text) * share)])
    assert any("dvc.lock" in finding.describe() for finding in verify(either))


def run_main(root: Path, *options: str) -> tuple[int, list[str]]:
    """Exit code and lines of the command, called in a folder."""
    app = typer.Typer()
    app.command()(main)
    with chdir(root):
        result = CliRunner().invoke(app, options)
    return result.exit_code, result.output.splitlines()


def test_the_command_ends_with_0_where_every_result_holds_from_any_folder_of_the_project(clone):
    result = subprocess.run([sys.executable, "-m", "health_actions.verify"], cwd=clone / "src", capture_output=True,
                            text=True)
    assert result.stdout == "verify: 0 stale or altered; 0 stages and 0 files of reports/ affected\n"
    assert (result.returncode, result.stderr) == (0, "")


def test_the_command_has_a_line_for_each_item_and_ends_with_1(either):
    (either / "notebooks/01_frames.ipynb").write_text("")
    (either / INDEX).write_text("")
    remedy = "Undo the change, or run what depends on it: make repro"
    assert run_main(either) == (1, [
        "reports/index.html: altered. Stages: report. Results: reports/index.html. Take the committed one: "
        "git checkout -- reports/index.html; or make it again: make repro",
        "notebooks/01_frames.ipynb: altered. Stages: frames, train, report. Results: reports/m.txt, "
        f"reports/tables/t.csv, reports/index.html. {remedy}",
        "verify: 2 stale or altered; 3 stages and 3 files of reports/ affected"])


def test_long_lists_are_cut_but_for_the_option_full(clone):
    edit(clone / "dvc.yaml", "cat data/other", "cat -n data/other")
    manifest = json.loads((clone / MANIFEST).read_text())
    for number in range(9):
        shutil.copyfile(clone / FIGURE, clone / f"reports/f{number}.svg")
        manifest["files"][f"f{number}.svg"] = manifest["files"]["figures/f.svg"]
    (clone / MANIFEST).write_text(json.dumps(manifest))
    short, full = (next(line for line in run_main(clone, *options)[1] if line.startswith("dvc.yaml: figures"))
                   for options in ([], ["--full"]))
    names = [f"reports/f{number}.svg" for number in range(9)]
    assert f"Results: {', '.join(names[:4])} and 7 more. " in short
    assert f"Results: {', '.join([*names, FIGURE, INDEX])}. " in full


def test_outside_a_project_there_is_one_line_and_1(tmp_path):
    code, lines = run_main(tmp_path)
    assert code == 1 and len(lines) == 2 and "no dvc.yaml in" in lines[0]


@pytest.mark.parametrize(("name", "items"), [
    (".dvc", {"DVC"}), ("reports", {MANIFEST, INDEX, "reports/m.txt", "reports/tables", "reports/figures"})])
def test_a_folder_that_is_missing_is_found(either, name, items):
    shutil.rmtree(either / name)
    assert {finding.item for finding in verify(either)} == items


def test_while_dvc_is_at_work_nothing_is_told_to_hold(project, monkeypatch):
    monkeypatch.setattr("dvc.lock.DEFAULT_TIMEOUT", 0.2)
    with opened(project) as repo, repo.lock:
        assert "lock" in find_one(project).reason


def test_every_result_of_this_project_holds():
    if not (ROOT / MANIFEST).exists():
        pytest.skip("the report has not been made since it notes which stage made which file: no provenance.json")
    assert [finding.describe() for finding in verify(ROOT)] == []
