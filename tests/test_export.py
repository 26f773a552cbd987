"""Exported models: the same answers, the same bytes, and models that cannot be exported."""

import json
import os

import onnxruntime
import pytest
import torch
from conftest import CLASSES, list_files
from random_models import make_card, save_random_model
from torch import nn

from health_actions.analysis import export
from health_actions.analysis.export import export_model
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
    save_model(folder, model, card)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("model") / "fold_1", "cnn_lstm_custom", lstm_width=32)


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    return export_model(folder, tmp_path_factory.mktemp("exported"))


@pytest.mark.parametrize(("name", "options"), [
    pytest.param("squeezenet", {"size": 64}, marks=pytest.mark.slow),
    pytest.param("mobilenetv2", {}, marks=pytest.mark.slow),  # depthwise convolutions
    pytest.param("shufflenetv2", {"width_mult": 0.25}, marks=pytest.mark.slow),
    ("convlstm", {}),
])
def test_an_exported_model_gives_the_same_probabilities_for_any_number_of_clips(name, options, tmp_path):
    model, card = load_model(make_folder(tmp_path / "model", name, **options))
    session = onnxruntime.InferenceSession(export_model(tmp_path / "model", tmp_path / "exported"))
    size = card["clip"]["size"]
    clips = torch.rand(4, 3, FRAMES, size, size) * torch.rand(4, 3, 1, 1, 1)
    with torch.inference_mode():
        expected = model(clips).softmax(1)
        assert expected.std(0).max() > 0.02, "clips that all get the same answer would show nothing"
        for part in (slice(0, 1), slice(1, 4), slice(0, 4)):
            [logits] = session.run(None, {"clips": clips[part].numpy()})
            assert (torch.from_numpy(logits).softmax(1) - expected[part]).abs().max() < 1e-4
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


def test_a_card_that_does_not_describe_the_input_is_refused_in_one_line_and_leaves_no_file(tmp_path):
    folder = make_folder(tmp_path / "model", "cnn_lstm_custom", lstm_width=32)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"preprocessing": {}}))
    with pytest.raises(ValueError, match=f"{folder} is no usable model folder: [^\n]+$"):
        export_model(folder, tmp_path / "exported")
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
    with pytest.raises(ValueError, match="three_stream cannot be exported: its optical flow and HOG are computed"):
        export_model(tmp_path / "model", tmp_path / "exported")
