"""Baselines: how often answers are right that need no movement, to read the networks' accuracies by."""

from pathlib import Path

import cv2
import joblib
import numpy as np
import pandas as pd
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from health_actions.data.frames import open_clip
from health_actions.learning.scores import tabulate


def predict_baselines(splits: pd.DataFrame, classes: list[str], frames_folder: Path) -> dict[str, pd.DataFrame]:
    """Tables as of `predict_folds`: "class_prior", always the most frequent class; "mean_frame", logistic regression.

    The latter sees `average_frames` of each clip. Both learn from the training clips of each fold.
    """
    clips, tables = list(splits["clip"].drop_duplicates()), {"class_prior": [], "mean_frame": []}
    work = (joblib.delayed(average_frames)(frames_folder, clip) for clip in clips)
    pictures = dict(zip(clips, joblib.Parallel(n_jobs=-1, prefer="threads")(work), strict=True))
    for fold, part in splits.groupby("fold"):
        learned, tested = (part[part["subset"] == subset] for subset in ("training", "testing"))
        seen, asked = (np.stack([pictures[clip] for clip in chosen["clip"]]) for chosen in (learned, tested))
        models = DummyClassifier(strategy="prior"), make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        for name, model in zip(tables, models, strict=True):
            model.fit(seen, learned["class"])
            shares = pd.DataFrame(model.predict_proba(asked), columns=model.classes_)
            shares = shares.reindex(columns=classes, fill_value=0.0).to_numpy()  # 0: a class without training clips
            tables[name].append(tabulate(shares, {"classes": classes, "training": {"fold": fold}}, tested))
    return {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}


def average_frames(frames_folder: Path, clip: str) -> np.ndarray:
    """The mean of a clip's frames (every fourth is enough) at 16 x 16 pixels: float32 (768,), 0-255."""
    mean = open_clip(frames_folder, clip)[::4].mean(0, dtype=np.float32)
    return cv2.resize(mean, (16, 16), interpolation=cv2.INTER_AREA).ravel()
