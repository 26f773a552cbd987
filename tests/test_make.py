"""Targets of the Makefile: verify, repro without git, with links and after a dvc that was killed, readme, pdf."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

STAGES = """
stages:
  frames: {cmd: mkdir -p build/a && cat data/clip.txt > build/a/frames.txt, deps: [data], outs: [build/a/frames.txt]}
  train:
    cmd: mkdir -p build/a/model && cat build/a/frames.txt src/tool.py > build/a/model/weights
    deps: [build/a/frames.txt, src]
    params: [rate]
    outs: [build/a/model]
  report: {cmd: mkdir -p reports/a && cp build/a/model/weights reports/a/table.csv, deps: [build/a], outs: [
    reports/a: {cache: false}]}
"""
FILES = {"data/clip.txt": "clip", "src/tool.py": "x = 1\n", "params.yaml": "rate: 1\nunused: 1\n", "dvc.yaml": STAGES,
         ".gitignore": "/build\n/data\n", "README.md": "one\n<!-- table: numbers -->\nold\n<!-- end -->\ntwo\n"}


def run(project: Path, *command: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")} | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(project.parent),
        "DVC_NO_ANALYTICS": "1", "GIT_CONFIG_GLOBAL": str(project.parent / "gitconfig")}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=200)


def make(project: Path, target: str, *variables: str) -> subprocess.CompletedProcess:
    return run(project, "make", "-o", ".venv/.ready", f"BIN={Path(sys.executable).parent}", target, *variables)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Three stages that have run, committed."""
    project = tmp_path_factory.mktemp("make") / "project"
    for name, text in FILES.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    shutil.copy(ROOT / "Makefile", project)
    (project.parent / "gitconfig").write_text("[user]\n name = a\n email = a@b.c\n")
    for command in ("git init -q", "dvc init -q", "dvc add -q data", "dvc repro -q", "git add -A", "git commit -qma"):
        done = run(project, *command.split())
        assert done.returncode == 0, done.stderr
    return project


@pytest.fixture
def project(finished, tmp_path) -> Path:
    shutil.copy(finished.parent / "gitconfig", tmp_path)
    return shutil.copytree(finished, tmp_path / "project", symlinks=True)


@pytest.fixture
def clone(project) -> Path:
    """With what git holds, and no more."""
    for name in ("data", "build", ".dvc/cache", ".dvc/tmp"):
        shutil.rmtree(project / name)
    return project


def replace(file: Path, text: str) -> None:
    file.unlink(missing_ok=True)  # it may be a link to dvc's cache
    file.write_text(text)


def test_verify_prints_nothing_where_every_result_follows_from_the_files_at_hand(project, request):
    replace(project / "params.yaml", FILES["params.yaml"].replace("unused: 1", "unused: 2"))
    for folder in (project, request.getfixturevalue("clone")):
        done = make(folder, "verify")
        assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.slow
def test_a_copy_without_git_is_verified_and_made(project):
    """As from a ZIP file."""
    shutil.rmtree(project / ".git")
    assert "is not a git repository" in run(project, "dvc", "status").stderr
    done = make(project, "verify")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    replace(project / "data" / "clip.txt", "another clip")
    done = make(project, "verify")
    assert done.returncode != 0 and "frames" in done.stdout and "git" not in done.stdout + done.stderr
    done = make(project, "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project / "reports" / "a" / "table.csv").read_text() == "another clipx = 1\n"
    assert make(project, "verify").returncode == 0


@pytest.mark.slow
def test_repro_sees_clips_behind_links_and_beside_names_that_are_not_utf8(project):
    shutil.copy(ROOT / ".dvcignore", project)
    (project.parent / "disk").mkdir()
    (project / "data" / "ntu").mkdir()
    (project / "data" / "ntu" / "fall").symlink_to(project.parent / "disk")
    (project / "dvc.yaml").write_text(STAGES + """
  ntu_frames: {cmd: mkdir -p build/b && ls data/ntu/fall > build/b/frames.txt, deps: [data/ntu], outs: [build/b]}
""")
    try:
        (project / "data" / "ntu" / os.fsdecode(b"caf\xe9.mp4")).touch()
    except OSError:
        pass  # this disk has UTF-8 names alone
    for names in (["a.mp4"], ["a.mp4", "b.mp4"]):
        (project.parent / "disk" / names[-1]).touch()
        done = make(project, "repro")
        assert done.returncode == 0, done.stdout + done.stderr
        assert (project / "build" / "b" / "frames.txt").read_text().split() == names


@pytest.mark.slow
@pytest.mark.parametrize(("file", "text", "named"), [
    ("params.yaml", "rate: 2\nunused: 1\n", "train"), ("src/tool.py", "x = 2\n", "train"),
    ("src/more.py", "", "train"), ("dvc.yaml", STAGES.replace("cat data", "cat -n data"), "frames"),
    ("reports/a/table.csv", "99 %", "reports/a/table.csv"), ("reports/a/more.csv", "", "reports/a/more.csv"),
    ("dvc.lock", "schema: '2.0'\nstages: {fra", "dvc.lock"), ("data.dvc", "outs: [{md5: x}]", "data.dvc")])
def test_verify_names_what_no_longer_holds_in_a_fresh_clone(clone, file, text, named):
    replace(clone / file, text)
    done = make(clone, "verify")
    assert done.returncode != 0 and named in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_repro_ends_as_if_dvc_had_not_been_killed_while_it_wrote_its_files(project, share):
    lock, locks = project / "dvc.lock", project / ".dvc" / "tmp" / "rwlock"
    whole = lock.read_bytes()
    lock.write_bytes(whole[:int(len(whole) * share)])
    locks.write_text('{"read": {')
    assert run(project, "dvc", "repro").returncode != 0
    done = make(project, "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    assert lock.read_bytes() == whole


@pytest.mark.slow
def test_repro_runs_both_studies_at_once_and_then_what_needs_both(project):
    def wait(own, first, second):
        return (f"touch build/{own} && for _ in $(seq 300); do test -e build/{first} -a -e build/{second} && exit 0; "
                f"sleep 0.1; done; rm build/{own}; exit 1")

    stages = {"handwash_frames": {"cmd": "echo $PPID > build/zero", "outs": ["build/zero"]},
              "ntu_frames": {"cmd": "echo $PPID > build/nil", "outs": ["build/nil"]},
              "handwash_training": {"cmd": wait("one", "one", "two"), "deps": ["build/zero"], "outs": ["build/one"]},
              "ntu_training": {"cmd": wait("two", "one", "two"), "outs": ["build/two"]},
              "reject": {"matrix": {"study": ["handwash", "ntu"]}, "cmd": wait("${item.study}", "handwash", "ntu"),
                         "deps": ["build/one", "build/two"], "outs": ["build/${item.study}"]}}
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    done = make(project, "repro", "PAUSE=1")
    assert done.returncode == 0 and (project / "build/ntu").exists(), done.stderr
    assert (project / "build/zero").read_text() == (project / "build/nil").read_text()  # of one dvc
    assert run(project, "dvc", "status").stdout.startswith("Data and pipelines are up to date")
    (project / "build/one").unlink()
    stages["handwash_frames"]["cmd"] = "false"
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    assert make(project, "repro", "PAUSE=1").returncode != 0


def test_repro_leaves_dvc_lock_alone_where_dvc_yaml_is_what_is_wrong(project):
    lock = project / "dvc.lock"
    lock.write_text(lock.read_text().replace("rate: 1", "rate: 3"))
    before = lock.read_bytes()
    replace(project / "dvc.yaml", "stages: {frames: [")
    assert make(project, "repro").returncode != 0 and lock.read_bytes() == before


def test_readme_takes_its_tables_from_the_reports(clone):
    (clone / "reports" / "a" / "21_report").mkdir()
    (clone / "reports" / "a" / "21_report" / "numbers.md").write_text("| a |\n| 1 |\n")
    for _ in range(2):
        assert make(clone, "readme").returncode == 0
    assert (clone / "README.md").read_text() == "one\n<!-- table: numbers -->\n| a |\n| 1 |\n<!-- end -->\ntwo\n"


def test_the_readme_of_the_project_has_the_tables_of_its_reports():
    text = (ROOT / "README.md").read_text()
    for name, table in re.findall(r"<!-- table: (\w+) -->\n(.*?)<!-- end -->", text, re.DOTALL):
        assert [file.read_text() for file in ROOT.glob(f"reports/*/21_report/{name}.md")] == [table], name


@pytest.mark.slow
def test_pdf_prints_the_report(clone):
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        pytest.skip("no Chromium on this machine: apt install chromium")
    assert "made by: make repro" in make(clone, "pdf").stdout
    (clone / "reports" / "index.html").write_text("<p>one</p><p style='break-before: page'>two</p>")
    done = make(clone, "pdf")
    content = (clone / "build" / "report.pdf").read_bytes()
    assert done.returncode == 0 and content.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", content)) == 2


def test_pdf_says_where_no_browser_is(clone):
    done = make(clone, "pdf", "CHROMIUM=")
    assert done.returncode != 0 and "apt install chromium" in done.stdout
