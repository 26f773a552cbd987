"""Rejection of clips of unknown actions."""

import numpy as np
import pandas as pd
import pytest
from conftest import CLASSES, write_video
from hypothesis import given
from hypothesis import strategies as st
from random_models import save_random_model

from health_actions.analysis.recognition import NONE, Recogniser
from health_actions.analysis.rejection import (
    MahalanobisDetector,
    choose_threshold,
    error_rates,
    extract_features,
    split_unknown,
    spread_clips,
)


def test_a_clip_far_from_the_training_clips_is_none_of_the_classes(data_folder, index, tmp_path):
    recogniser = Recogniser(save_random_model(tmp_path / "fold_1", "squeezenet", "ntu"))
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    broken = index.head(1).assign(path=str(tmp_path / "broken.mp4"))
    clips, features = extract_features(recogniser, pd.concat([index, broken]), data_folder)
    assert list(clips["clip"]) == list(index["clip"]), "what cannot be read is left out"
    detector = MahalanobisDetector.fit(features, list(clips["class"]), CLASSES)
    threshold = float(detector.distance(features).max()) * 1.01
    MahalanobisDetector(detector.means, detector.precision, threshold).save(tmp_path / "detector.safetensors")
    recogniser.detector = MahalanobisDetector.load(tmp_path / "detector.safetensors")
    assert recogniser.detector.threshold == pytest.approx(threshold)
    assert recogniser.recognise(data_folder / index["path"][0]).action == clips["predicted"].iloc[0]
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 96, 3), dtype=np.uint8)
    assert recogniser.recognise(write_video(tmp_path / "noise.mp4", noise, crf=1)).action == NONE


def test_no_readable_clip_gives_no_features(index, tmp_path):
    recogniser = Recogniser(save_random_model(tmp_path / "fold_1", "squeezenet", "ntu"))
    clips, features = extract_features(recogniser, index.head(2), tmp_path / "nothing")
    assert clips.empty and "predicted" in clips and len(features) == 0


def test_distances_are_those_of_mahalanobis():
    features = (np.random.default_rng(0).normal(size=(60, 3)) * [1.0, 5.0, 0.2]).astype(np.float32)
    detector = MahalanobisDetector.fit(features, ["a", "b"] * 30, ["a", "b", "never seen"])
    assert len(detector.means) == 2
    away = features[:, None] - detector.means
    by_hand = np.einsum("nci,ij,ncj->nc", away, detector.precision, away).min(1)
    np.testing.assert_allclose(detector.distance(features), by_hand, rtol=1e-4, atol=1e-4)
    # A step along the narrow direction is a longer way than one along the wide direction.
    near, far = (detector.distance(detector.means[:1] + [step]) for step in ([0.0, 1.0, 0.0], [0.0, 0.0, 1.0]))
    assert near < far


DISTANCES = st.lists(st.integers(0, 40).map(lambda number: number / 4), min_size=1, max_size=20)


@given(DISTANCES, DISTANCES, DISTANCES)
def test_no_other_threshold_accepts_more_known_and_rejects_more_unknown_clips(known, other, everyday):
    kinds = ["known"] * len(known) + ["other"] * len(other) + ["everyday"] * len(everyday)
    chosen = choose_threshold(pd.DataFrame({"kind": kinds, "distance": known + other + everyday}))

    def gain(cut: float) -> float:
        accepted, *rejected = np.mean(np.array(known) <= cut), np.mean(np.array(other) > cut), np.mean(
            np.array(everyday) > cut)
        return accepted + np.mean(rejected)

    assert gain(chosen) == pytest.approx(max(gain(cut) for cut in known + other + everyday))


def test_rates_count_what_is_wrong():
    scores = pd.DataFrame({"kind": ["known"] * 4 + ["other"] * 2, "distance": [1, 2, 3, 9, 4, 8]})
    rates = error_rates(scores, 5.0).set_index("kind")
    assert rates.loc["known", ["mistake", "clips", "wrong"]].tolist() == ["rejected", 4, 1]
    assert rates.loc["other", ["mistake", "clips", "wrong"]].tolist() == ["accepted", 2, 1]
    assert rates.loc["other", "auroc"] == pytest.approx(6 / 8)
    assert choose_threshold(scores) == 3.5, "midway to the next clip"
    assert choose_threshold(scores[scores["kind"] == "known"]) == 9, "without unknown clips all known ones are accepted"
    with pytest.raises(ValueError, match="needs clips of known actions"):
        choose_threshold(scores[scores["kind"] != "known"])


def test_people_choose_the_threshold_or_test_it_and_never_both():
    clips = pd.DataFrame({
        "kind": ["many"] * 6 + ["one"] * 4, "recording": ["p1", "p1", "p2", "p2", "p3", "p3"] + ["q"] * 4,
        "class": ["a", "b"] * 3 + ["a", "a", "b", "b"]})
    parts = split_unknown(clips)
    assert (parts[parts["kind"] == "many"].groupby("recording")["part"].nunique() == 1).all()
    assert (parts[parts["kind"] == "one"].groupby("class")["part"].nunique() == 1).all()
    assert (parts.groupby("kind")["part"].nunique() == 2).all()
    assert spread_clips(clips, 4)["class"].tolist() == ["a", "b", "a", "b"]
