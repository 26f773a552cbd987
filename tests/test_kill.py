"""The quick part of benchmarks/kill.py: two stages on a few small clips, killed twice."""

import shutil

import pytest
from conftest import CLASSES
from kill import disturb, hash_results
from small import make_project, run, shrink


def shrink_to_three_classes(params: dict) -> None:
    shrink(params)
    params["handwash"]["classes"] = CLASSES


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_stages_killed_at_random_moments_end_with_the_same_bytes(data_folder, tmp_path):
    whole, killed = (make_project(tmp_path / name / "project", shrink_to_three_classes) for name in ("whole", "killed"))
    for project in (whole, killed):
        shutil.copytree(data_folder, project / "data" / "handwash")
    run(whole, "dvc", "repro", "handwash_annotations")
    rows = disturb(killed, "handwash_annotations", kills=2, seed=1, shortest=4, longest=8)
    assert rows["running"].any(), "it was killed before its end"
    expected = hash_results(whole)
    assert sum(name.startswith("build/handwash/frames/") for name in expected) >= 12
    assert hash_results(killed) == expected
