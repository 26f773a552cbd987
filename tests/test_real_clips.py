"""Study A's pipeline on real clips; a file of its own, since another process may run it beside the small project."""

import json
import shutil

import pandas as pd
import pytest
from conftest import SHARED
from small import make_project, run_handwash, shrink_comparisons

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(1200)]


@pytest.mark.skipif(not (SHARED / "clips" / "handwash").is_dir(), reason="the real hand-wash clips are not at hand")
def test_real_clips_are_recognised_from_other_recordings(tmp_path):
    """A reduced version of the run on real clips: one architecture and its rival, folds by recording."""
    def reduce(params):
        params["handwash"]["models"] = ["cnn_lstm_efficientnet_lite0", "three_stream"]
        study = params["laptop"]["handwash"]
        study["frames"]["sizes"] = [32, 128]
        study["architectures"]["cnn_lstm_efficientnet_lite0"]["epochs"] = 25
        study["architectures"]["three_stream"] |= {"size": 32, "epochs": 1}
        shrink_comparisons(study)

    real = make_project(tmp_path / "project", reduce)
    shutil.copytree(SHARED / "clips" / "handwash", real / "data" / "handwash")
    run_handwash(real, cores={})
    reports = real / "reports" / "handwash"
    result = json.loads((reports / "metrics.json").read_text())["cnn_lstm_efficientnet_lite0"]
    assert result["clips"] == 62, "69 files, 7 of them are copies of others"
    assert result["clip_top1"] >= 0.55
    assert "none of them rendered by this project" in (real / "reports" / "index.html").read_text()
    assert list(pd.read_csv(reports / "tables" / "protocols.csv")["protocol"]) == ["stratified", "by_performer"]
    assert "Skipped: by_scene: a split by scene needs at least two of them; all 62 clips are of scene" in (
        reports / "notebooks" / "10_handwash_protocols.html").read_text()
