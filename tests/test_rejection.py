"""Rejection of clips of unknown actions."""

import numpy as np
import pandas as pd
import pytest
from conftest import CLASSES, write_video
from random_models import save_random_model

from health_actions.analysis.recognition import NONE, Recogniser
from health_actions.analysis.rejection import MahalanobisDetector, extract_features, spread_clips


def test_a_clip_far_from_the_training_clips_is_none_of_the_classes(data_folder, index, tmp_path):
    recogniser = Recogniser(save_random_model(tmp_path / "fold_1", "squeezenet", "ntu"))
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    broken = index.head(1).assign(path=str(tmp_path / "broken.mp4"))
    clips, features = extract_features(recogniser, pd.concat([index, broken]), data_folder)
    assert list(clips["clip"]) == list(index["clip"]), "what cannot be read is left out"
    unread, none = extract_features(recogniser, index.head(2), tmp_path / "nothing")
    assert unread.empty and "predicted" in unread and len(none) == 0
    detector = MahalanobisDetector.fit(features, list(clips["class"]), CLASSES)
    threshold = float(detector.distance(features).max()) * 1.01
    MahalanobisDetector(detector.means, detector.precision, threshold).save(tmp_path / "detector.safetensors")
    recogniser.detector = MahalanobisDetector.load(tmp_path / "detector.safetensors")
    assert recogniser.detector.threshold == pytest.approx(threshold)
    assert recogniser.recognise(data_folder / index["path"][0]).action == clips["predicted"].iloc[0]
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 96, 3), dtype=np.uint8)
    assert recogniser.recognise(write_video(tmp_path / "noise.mp4", noise, crf=1)).action == NONE


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


def test_clips_are_spread_over_the_classes():
    clips = pd.DataFrame({"class": ["a", "a", "a", "b", "b"], "clip": range(5)})
    assert spread_clips(clips, 4)["clip"].tolist() == [0, 3, 1, 4]
