"""Exported models: the same answers, the same bytes, and nothing half-written."""

import json
import os
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from conftest import CLASSES, list_files
from torch import nn

from health_actions.analysis import export as onnx_export
from health_actions.analysis.export import OnnxModel, choose_clips, compare_answers, export_model, measure_onnx_latency
from health_actions.models import build_model
from health_actions.models.folder import load_model, save_model

FRAMES = 8


def make_folder(folder, name, *, size=32, **options):
    """A model folder of random weights whose answers to random clips differ, so that comparing them tells something."""
    torch.manual_seed(0)
    architecture = {"name": name, "num_classes": len(CLASSES), "frames": FRAMES, "size": size, **options}
    model, clips = build_model(**architecture), torch.rand(8, 3, FRAMES, size, size) * torch.rand(8, 3, 1, 1, 1)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
                layer.momentum = 1.0
        model.train()(clips)  # statistics of these clips
        last = [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv3d)][-1]
        last.weight.mul_(3 / model.eval()(clips).std(0).mean().clamp(min=1e-6))
    save_model(folder, model, {
        "architecture": architecture, "classes": CLASSES,
        "preprocessing": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 0.5], "colour": "rgb"},
        "clip": {"size": size, "window": FRAMES, "test_window": "centre", "stride": None},
        "training": {"architecture": name, "precision": "bf16-mixed", "fold": 1, "window_seed": 0},
        "data": {}, "scores": {}})
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("model") / "fold_1", "cnn_lstm_custom", lstm_width=32)


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    return export_model(folder, tmp_path_factory.mktemp("exported"))


@pytest.mark.parametrize(("name", "options"), [
    ("squeezenet", {"size": 64}),
    ("mobilenetv2", {}),  # depthwise convolutions as 2-D ones, where there are few frames
    ("shufflenetv2", {"width_mult": 0.25}),
    ("convlstm", {}),
])
def test_an_exported_model_gives_the_same_probabilities_for_any_number_of_clips(name, options, tmp_path):
    model, card = load_model(make_folder(tmp_path / "model", name, **options))
    answer = OnnxModel(export_model(tmp_path / "model", tmp_path / "exported"))
    size = card["clip"]["size"]
    clips = torch.rand(4, 3, FRAMES, size, size) * torch.rand(4, 3, 1, 1, 1)
    with torch.inference_mode():
        expected = model(clips).softmax(1)
        assert expected.std(0).max() > 0.02, "clips that all get the same answer would show nothing"
        for part in (slice(0, 1), slice(1, 4), slice(0, 4)):
            assert (answer(clips[part]).softmax(1) - expected[part]).abs().max() < 1e-4
    assert list_files(tmp_path / "exported") == ["card.json", "model.onnx"]


def test_the_card_says_what_goes_in_and_comes_out(folder, exported):
    card = json.loads((exported.parent / "card.json").read_text())
    told = card.pop("onnx")
    assert card == json.loads((folder / "card.json").read_text())
    session = onnxruntime.InferenceSession(exported)
    for side, values in (("input", session.get_inputs()), ("output", session.get_outputs())):
        assert [(value.name, value.shape) for value in values] == [(told[side]["name"], told[side]["shape"])]
    assert told["input"]["shape"] == ["batch", 3, FRAMES, 32, 32] and told["output"]["shape"] == ["batch", len(CLASSES)]
    assert told["input"]["range"] == [-2, 2], "0 and 1, less 0.5, divided by 0.25"


def test_an_export_gives_the_same_bytes_each_time_and_names_no_place(folder, exported, tmp_path):
    content = exported.read_bytes()
    assert export_model(folder, tmp_path / "elsewhere").read_bytes() == content
    assert b"health_actions" not in content and b"site-packages" not in content and os.getcwd().encode() not in content


def test_answers_to_the_same_windows_are_compared(folder, exported, splits, frames_folder):
    _, card = load_model(folder)
    clips = choose_clips(splits, card, 4)
    assert set(clips["class"]) == set(CLASSES) and set(clips["fold"]) == {1} and set(clips["subset"]) == {"testing"}
    answers = compare_answers(folder, exported, clips, frames_folder=frames_folder)
    assert list(answers["clip"]) == list(clips["clip"]) and list(answers["class"]) == list(clips["class"])
    assert answers["same_class"].all() and answers["difference"].max() < 1e-4
    everything = choose_clips(splits, card, 1000)
    assert len(everything) == ((splits["subset"] == "testing") & (splits["fold"] == 1)).sum()
    with pytest.raises(ValueError, match="fold 7 has no test clips"):
        choose_clips(splits, {"training": {"fold": 7}}, 4)


def test_a_model_that_answers_otherwise_is_told(folder, exported, splits, frames_folder, tmp_path):
    model, card = load_model(folder)
    for weights in model.classifier.parameters():
        weights.data.neg_()  # what was likeliest is now least likely
    save_model(tmp_path / "other", model, card)
    answers = compare_answers(tmp_path / "other", exported, choose_clips(splits, card, 4), frames_folder=frames_folder)
    assert (answers["difference"] > 0.1).all() and not answers["same_class"].any()
    model.classifier.bias.data[:] = torch.nan
    save_model(tmp_path / "other", model, card)
    answers = compare_answers(tmp_path / "other", exported, choose_clips(splits, card, 4), frames_folder=frames_folder)
    assert answers["difference"].isna().all(), "no number is no small difference"


def test_both_are_timed_on_the_same_threads(folder, exported):
    latency = measure_onnx_latency(folder, exported, runs=2)
    assert latency["threads"] == torch.get_num_threads() and latency["precision"] == "bf16-mixed"
    assert (latency["frames"], latency["pixels"]) == (FRAMES, 32)
    assert np.isfinite([latency["torch_ms"], latency["onnxruntime_ms"]]).all()
    assert pd.DataFrame([latency]).shape == (1, 6)


def break_weights(folder):
    (folder / "weights.safetensors").write_bytes(b"\x08" * 100)


def break_card(folder):
    (folder / "card.json").write_text("{")


def lose_preprocessing(folder):
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "preprocessing": {}}))


@pytest.mark.parametrize("damage", [break_weights, break_card, lose_preprocessing])
def test_a_damaged_folder_is_told_in_one_message_and_leaves_nothing(damage, tmp_path):
    folder = make_folder(tmp_path / "model", "cnn_lstm_custom", lstm_width=32)
    damage(folder)
    with pytest.raises(ValueError, match=f"{folder} is no usable model folder: [^\n]+$"):
        export_model(folder, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no card.json in .*nothing: train the model first"):
        export_model(tmp_path / "nothing", tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_a_model_that_onnx_cannot_hold_is_told(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "model", "cnn_lstm_custom", lstm_width=32)
    model, card = load_model(folder)
    model.forward = lambda clips: clips.mean((2, 3, 4)) if clips.sum() > 0 else clips.amax((2, 3, 4))
    monkeypatch.setattr(onnx_export, "load_model", lambda _: (model, card))
    with pytest.raises(ValueError, match="^cnn_lstm_custom cannot be exported: [^\n]+$"):
        export_model(folder, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_the_three_streams_cannot_be_exported(tmp_path):
    architecture = {"name": "three_stream", "num_classes": 3, "frames": FRAMES, "size": 32, "backbone": "custom"}
    save_model(tmp_path / "model", build_model(**architecture), dict.fromkeys(
        ["classes", "preprocessing", "clip", "training", "data", "scores"], {}) | {"architecture": architecture})
    with pytest.raises(ValueError, match="three_stream cannot be exported: OpenCV draws its flow and gradients"):
        export_model(tmp_path / "model", tmp_path / "exported")


def test_a_failed_export_leaves_the_files_of_the_last_one(folder, exported, tmp_path, monkeypatch):
    before = {file.name: file.read_bytes() for file in exported.parent.iterdir()}
    program = SimpleNamespace(model_proto=onnx.load(exported))
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: program)

    def fail(source, target):
        assert source.stat().st_size > 0
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full, pytest.raises(OSError, match="could not write .*model.onnx: the disk is full"):
        full.setattr(os, "replace", fail)
        export_model(folder, exported.parent)
    assert {file.name: file.read_bytes() for file in exported.parent.iterdir()} == before


def test_a_damaged_or_missing_file_is_told(exported, tmp_path):
    with pytest.raises(FileNotFoundError, match="no .*model.onnx: export the model first"):
        OnnxModel(tmp_path / "model.onnx")
    (tmp_path / "model.onnx").write_bytes(exported.read_bytes()[:5000])
    with pytest.raises(ValueError, match="model.onnx is no usable ONNX file"):
        OnnxModel(tmp_path / "model.onnx")
