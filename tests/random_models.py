"""Model folders of random weights, for tests of what is done with trained models."""

import json
import shutil
from pathlib import Path

import torch
from conftest import CLASSES, HANDWASH_CLASSES, ROOT

from health_actions.models import build_model
from health_actions.models.weights import save_model

# How the two studies feed their models: small versions.
FEEDING = {"handwash": {"frames": {"height": 32, "length": 10, "stride": 4}, "stride": 1, "crop": "squash"},
           "ntu": {"frames": {"height": 48, "length": None, "stride": 1}, "stride": 2, "crop": "corner"}}


def make_card(name: str, study: str, *, classes=CLASSES, window=8, size=32, fold=1, score=0.5, **options) -> dict:
    """A card as training writes it; options: of the architecture."""
    feeding = FEEDING[study]
    return {"architecture": {"name": name, "num_classes": len(classes), "frames": window, "size": size, **options},
            "classes": list(classes), "preprocessing": {"mean": [0.45] * 3, "std": [0.225] * 3, "colour": "rgb"},
            "frames": feeding["frames"],
            "clip": {"size": size, "window": window, "test_window": "centre", "stride": feeding["stride"],
                     "crop": feeding["crop"]},
            "training": {"architecture": name, "precision": "32-true", "fold": fold, "window_seed": 0},
            "data": {"sha256": "x"}, "scores": {"validation_clip_top1": score}}


def save_random_model(folder, name: str, study: str, *, favourite: str | None = None, seed=0, **settings):
    """Write a model folder; every answer of the model is `favourite` where that is given. Returns the folder."""
    card = make_card(name, study, **settings)
    torch.manual_seed(seed)
    model = build_model(**card["architecture"])
    if favourite:
        bias = [weights for name, weights in model.named_parameters() if name.endswith("bias")][-1]
        bias.data[card["classes"].index(favourite)] += 8
    save_model(folder, model, card)
    return folder


def make_project(root: Path) -> Path:
    """A project with a tiny model of each study: every wash is step_2_left, every patient falls down."""
    for name in ("params.yaml", "matplotlibrc"):
        shutil.copy(ROOT / name, root)
    (root / "dvc.yaml").touch()
    for study, network, classes, favourite, options in (
            ("handwash", "cnn_lstm_custom", HANDWASH_CLASSES, "step_2_left", {"lstm_width": 16}),
            ("ntu", "squeezenet", ["sneeze_cough", "staggering", "falling_down"], "falling_down", {})):
        build = root / "build" / study
        save_random_model(build / "models" / network / "fold_1", network, study, classes=classes, favourite=favourite,
                          **options)
        (build / "evaluation").mkdir()
        (build / "evaluation" / "best.json").write_text(json.dumps({"model": network, "validation": 0.5}))
    return root
