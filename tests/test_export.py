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
from random_models import make_card, save_random_model
from torch import nn

from health_actions.analysis import export
from health_actions.analysis.export import OnnxModel, compare_answers, export_model, measure_onnx_latency
from health_actions.models import build_model
from health_actions.models.weights import load_model, save_model

FRAMES = 8


def make_folder(folder, name, *, size=32, **options):
    """A model folder of random weights whose answers to random clips differ, so that comparing them shows something."""
    torch.manual_seed(0)
    card = make_card(name, "handwash", size=size, **options)
    model, clips = build_model(**card["architecture"]), torch.rand(8, 3, FRAMES, size, size) * torch.rand(8, 3, 1, 1, 1)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
                layer.momentum = 1.0
        model.train()(clips)  # statistics of these clips
        last = [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv3d)][-1]
        last.weight.mul_(3 / model.eval()(clips).std(0).mean().clamp(min=1e-6))
    card["preprocessing"] |= {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 0.5]}
    card["training"]["precision"] = "bf16-mixed"
    save_model(folder, model, card)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("model") / "fold_1", "cnn_lstm_custom", lstm_width=32)


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    return export_model(folder, tmp_path_factory.mktemp("exported"))


@pytest.mark.parametrize(("name", "options"), [
    ("squeezenet", {"size": 64}),
    pytest.param("mobilenetv2", {}, marks=pytest.mark.slow),  # depthwise convolutions
    pytest.param("shufflenetv2", {"width_mult": 0.25}, marks=pytest.mark.slow),
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


def test_the_card_describes_inputs_and_outputs(folder, exported):
    card = json.loads((exported.parent / "card.json").read_text())
    told = card.pop("onnx")
    assert card == json.loads((folder / "card.json").read_text())
    session = onnxruntime.InferenceSession(exported)
    for side, values in (("input", session.get_inputs()), ("output", session.get_outputs())):
        assert [(value.name, value.shape) for value in values] == [(told[side]["name"], told[side]["shape"])]
    assert told["input"]["shape"] == ["batch", 3, FRAMES, 32, 32] and told["output"]["shape"] == ["batch", len(CLASSES)]
    assert told["input"]["range"] == [-2, 2], "0 and 1, less 0.5, divided by 0.25"
    assert told["preprocessing"][0] == "scale each whole frame to 32 x 32 pixels"


def test_an_export_gives_the_same_bytes_each_time_and_names_no_folder(folder, exported, tmp_path):
    content = exported.read_bytes()
    assert export_model(folder, tmp_path / "elsewhere").read_bytes() == content
    assert b"health_actions" not in content and b"site-packages" not in content and os.getcwd().encode() not in content


def test_answers_to_the_same_windows_are_compared(folder, exported, splits, frames_folder):
    answers = compare_answers(folder, exported, splits, count=3, frames_folder=frames_folder)
    assert set(answers["class"]) == set(CLASSES)
    tested = splits[(splits["subset"] == "testing") & (splits["fold"] == 1)]
    assert set(answers["clip"]) < set(tested["clip"])
    assert answers["same_class"].all() and answers["difference"].max() < 1e-4
    assert len(compare_answers(folder, exported, splits, count=1000, frames_folder=frames_folder)) == len(tested)
    with pytest.raises(ValueError, match="fold 1 of the splits has no test clips"):
        compare_answers(folder, exported, splits[splits["fold"] == 2], count=3, frames_folder=frames_folder)


def test_a_model_with_other_weights_gives_other_answers(folder, exported, splits, frames_folder, tmp_path):
    model, card = load_model(folder)
    for weights in model.classifier.parameters():
        weights.data.neg_()  # what was likeliest is now least likely
    save_model(tmp_path / "other", model, card)
    answers = compare_answers(tmp_path / "other", exported, splits, count=3, frames_folder=frames_folder)
    assert (answers["difference"] > 0.1).all() and not answers["same_class"].any()
    model.classifier.bias.data[:] = torch.nan
    save_model(tmp_path / "other", model, card)
    answers = compare_answers(tmp_path / "other", exported, splits, count=3, frames_folder=frames_folder)
    assert answers["difference"].isna().all(), "nan is not a small difference"


def test_both_are_timed_on_the_same_threads(folder, exported):
    latency = measure_onnx_latency(folder, exported, runs=2)
    assert latency["threads"] == torch.get_num_threads() and latency["precision"] == "bf16-mixed"
    assert (latency["frames"], latency["pixels"]) == (FRAMES, 32)
    assert np.isfinite([latency["torch_ms"], latency["onnxruntime_ms"]]).all()
    assert pd.DataFrame([latency]).shape == (1, 6)


@pytest.mark.parametrize(("name", "content"), [
    ("weights.safetensors", b"\x08" * 100), ("card.json", b"{"), ("preprocessing", None)])
def test_a_damaged_folder_is_refused_in_one_line_and_leaves_no_file(name, content, tmp_path):
    folder = make_folder(tmp_path / "model", "cnn_lstm_custom", lstm_width=32)
    if content is None:
        content = json.dumps(json.loads((folder / "card.json").read_text()) | {name: {}}).encode()
        name = "card.json"
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{folder} is no usable model folder: [^\n]+$"):
        export_model(folder, tmp_path / "exported")
    with pytest.raises(FileNotFoundError, match="no card.json in .*nothing: train the model first"):
        export_model(tmp_path / "nothing", tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


class Undecided(nn.Module):
    """What it computes depends on the values of its input; no graph of operators can hold that."""

    def forward(self, clips):
        return clips.mean((2, 3, 4)) if clips.sum() > 0 else clips.amax((2, 3, 4))


def test_a_model_that_onnx_cannot_hold_is_refused(folder, tmp_path, monkeypatch):
    _, card = load_model(folder)
    monkeypatch.setattr(export, "load_model", lambda _: (Undecided(), card))
    monkeypatch.setattr(export, "build_model", lambda **_: Undecided())
    with pytest.raises(ValueError, match="^cnn_lstm_custom cannot be exported: [^\n]+$"):
        export_model(folder, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_three_streams_cannot_be_exported(tmp_path):
    save_random_model(tmp_path / "model", "three_stream", "handwash", backbone="custom")
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


def test_a_damaged_or_missing_file_is_reported(exported, tmp_path):
    with pytest.raises(FileNotFoundError, match="no .*model.onnx: export the model first"):
        OnnxModel(tmp_path / "model.onnx")
    (tmp_path / "model.onnx").write_bytes(exported.read_bytes()[:5000])
    with pytest.raises(ValueError, match="model.onnx is no usable ONNX file"):
        OnnxModel(tmp_path / "model.onnx")
