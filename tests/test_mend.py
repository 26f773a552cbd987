"""A dvc that was killed while it wrote its own files: `make repro` mends them and ends as if nothing had happened."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from dvc.lock import make_lock
from dvc.schema import COMPILED_LOCKFILE_SCHEMA

from health_actions.mend import mend

STAGES = """
stages:
  frames: {cmd: echo frames > frames.txt, deps: [clips.txt], outs: [frames.txt]}
  train: {cmd: echo train > model.txt, deps: [frames.txt], outs: [model.txt]}
  report: {cmd: echo report > report.txt, deps: [model.txt], outs: [report.txt]}
"""


def repro(project, code=0) -> str:
    environment = os.environ | {"HOME": str(project.parent), "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run([Path(sys.executable).parent / "dvc", "repro"], cwd=project, env=environment,
                          capture_output=True, text=True, timeout=100)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def project(tmp_path):
    """Three stages that have run."""
    project = tmp_path / "project"
    (project / ".dvc" / "tmp").mkdir(parents=True)
    (project / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    (project / "dvc.yaml").write_text(STAGES)
    (project / "clips.txt").write_text("clips")
    repro(project)
    return project


def test_make_repro_mends_first():
    recipe = re.search(r"^repro:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split("\n\t")
    assert recipe[0].endswith("-m health_actions.mend") and recipe[1] == "dvc repro"


def test_after_mending_dvc_ends_as_if_it_had_not_been_killed(project):
    lock, locks = project / "dvc.lock", project / ".dvc" / "tmp" / "rwlock"
    whole = lock.read_bytes()
    lock.write_bytes(whole[:whole.index(b"  train:") + 12])
    locks.write_text("")
    assert "dvc.lock" in repro(project, code=255)
    told = mend(project)
    assert [line.partition(" was cut off")[0] for line in told] == [".dvc/tmp/rwlock", "dvc.lock"]
    repro(project)
    assert lock.read_bytes() == whole and mend(project) == []


def test_wherever_dvc_lock_is_cut_off_it_can_be_read_afterwards(project):
    lock = project / "dvc.lock"
    whole, mended = lock.read_text(), 0
    stages = yaml.safe_load(whole)["stages"]
    for length in range(len(whole)):
        lock.write_text(whole[:length])
        mended += bool(mend(project))
        assert whole.startswith(lock.read_text() if lock.is_file() else "")
        if lock.is_file():
            left = COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(lock.read_text())).get("stages", {})
            assert all(left[name] == stages[name] for name in list(left)[:-1])
    assert mended > 50


def test_what_is_whole_or_not_there_is_left_alone(project):
    files = [project / "dvc.lock", project / ".dvc" / "tmp" / "rwlock"]
    assert json.loads(files[1].read_text()) == {} or "read" in json.loads(files[1].read_text())
    before = [file.read_bytes() for file in files]
    assert mend(project) == [] and [file.read_bytes() for file in files] == before
    for file in files:
        file.unlink()
    assert mend(project) == [] and not any(file.exists() for file in files)


def test_nothing_is_touched_while_dvc_is_at_work(project):
    lock, folder = project / "dvc.lock", project / ".dvc" / "tmp"
    lock.write_text("schema: '2.0'\nstages:\n  fra")
    with make_lock(str(folder / "lock"), tmp_dir=str(folder)):
        assert mend(project) == []
    assert lock.read_text().endswith("fra") and mend(project)


def test_a_lock_that_was_committed_cut_off_is_mended_in_a_fresh_clone(tmp_path):
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\nstages:\n  fra")
    assert mend(tmp_path) and not (tmp_path / "dvc.lock").exists()
