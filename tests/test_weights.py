import json
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from torch import nn

from health_actions.analysis import checkpoints
from health_actions.models import build_model, load_published
from health_actions.models.weights import CARD_KEYS, load_model, read_start, save_model, write_start

SMALL = {"num_classes": 3, "frames": 8, "size": 32}


@pytest.fixture
def model():
    return build_model("cnn_lstm_custom", **SMALL, lstm_width=8)


@pytest.fixture
def state():
    return dict(build_model("cnn_lstm_custom", **SMALL, lstm_width=8).state_dict())


def is_equal(model, state) -> bool:
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def release(path: Path, name: str, arch: str, **options) -> Path:
    """Write a checkpoint of 600 classes in the form in which the published weights were released."""
    model = build_model(name, **{**SMALL, "num_classes": 600}, **options)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    torch.save({"epoch": 45, "arch": arch, "best_prec1": torch.tensor(0.5).numpy()[()],
                "state_dict": {f"module.{name}": value for name, value in model.state_dict().items()},
                "optimizer": optimizer.state_dict()}, path)
    return path


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("nested", [False, True])
def test_a_published_checkpoint_is_loaded_in_any_form(model, state, tmp_path, prefix, nested):
    checkpoint = {prefix + name: value for name, value in state.items()}
    checkpoint = {"epoch": 3, "state_dict": checkpoint} if nested else checkpoint
    torch.save(checkpoint, tmp_path / "published.pth")
    for source in (checkpoint, tmp_path / "published.pth", str(tmp_path / "published.pth")):
        nn.init.zeros_(model.classifier.weight)
        assert load_published(model, source) == [] and is_equal(model, state)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2", "shufflenetv2", "squeezenet"])
def test_a_released_checkpoint_of_600_classes_keeps_the_models_last_layer(name, tmp_path):
    path = release(tmp_path / "released.pth", name, name)
    pretrained, loaded = build_model(name, **SMALL, pretrained=str(path)), build_model(name, **SMALL)
    with pytest.raises(ValueError, match="number of classes"):
        load_published(loaded, path)
    skipped = load_published(loaded, path, replace_head=True)
    assert len(skipped) == 2 and all(name.startswith(loaded.head) for name in skipped)
    stored = torch.load(path, weights_only=False)["state_dict"]
    for key, value in loaded.state_dict().items():
        if not key.startswith(loaded.head):
            assert torch.equal(value, stored[f"module.{key}"]) and torch.equal(value, pretrained.state_dict()[key])


@pytest.mark.parametrize(("name", "options", "frozen"), [
    ("cnn_lstm_custom", {"lstm_width": 8}, False), ("cnn_lstm_efficientnet_lite0", {"lstm_width": 8}, True),
    ("convlstm", {}, None)])
def test_a_model_of_study_a_starts_from_a_folder_or_a_file_with_its_last_layer(name, options, frozen, tmp_path):
    saved, _ = save_small(tmp_path / "model", name, **options)
    torch.save(saved.state_dict(), tmp_path / "published.pt")
    for path in (tmp_path / "model", tmp_path / "published.pt"):
        started = build_model(name, **SMALL, pretrained=str(path), **options)
        assert is_equal(started, saved.state_dict()) and getattr(started, "frozen", None) is frozen
        other = build_model(name, **{**SMALL, "num_classes": 5}, pretrained=str(path), **options)
        assert other.classifier.out_features == 5
    with pytest.raises(ValueError, match="does not fit the model"):
        build_model("cnn_lstm_alexnet", **SMALL, pretrained=str(path))


@pytest.mark.parametrize(("file", "study", "name", "count", "size", "options"), [
    ("alexnet_128.pt", "handwash", "cnn_lstm_alexnet", 12, 128, {}),
    ("a.pt", "handwash", "cnn_lstm_alexnet", 12, 64, {}), ("alexnet_84.pt", "handwash", "cnn_lstm_alexnet", 12, 84, {}),
    ("a.pt", "handwash", "cnn_lstm_resnet50", 12, 128, {}),
    ("a.pt", "handwash", "cnn_lstm_custom", 12, 84, {"lstm_width": 8}), ("a.pt", "handwash", "convlstm", 12, 64, {}),
    ("kinetics_resnet_101_RGB_16_best.pth", "ntu", "resnet101", 9, 112, {}), ("a.pth", "ntu", "c3d", 9, 112, {}),
    ("a.pth", "ntu", "shufflenetv2", 600, 112, {}), ("a.pth", "handwash", "resnet18", 12, 128, {})])
def test_names_and_shapes_tell_what_a_published_file_holds(monkeypatch, file, study, name, count, size, options):
    with torch.device("meta"):
        state = build_model(name, num_classes=count, frames=16, size=size, **options).state_dict()
    monkeypatch.setattr(checkpoints, "read_weights", lambda path: (None, state))
    owner, card = checkpoints.describe_weights(ROOT, Path(file))
    found = card["architecture"]
    assert (owner, found["name"], found["num_classes"], found["size"]) == (study, name, count, size)
    assert found.get("lstm_width") == options.get("lstm_width") and len(card["classes"]) == count % 600
    feeding = card["preprocessing"]
    if study == "ntu":
        assert feeding["colour"] == "bgr" and feeding["std"] == pytest.approx([1 / 255] * 3, rel=1e-5)
    elif name != "resnet18":
        assert (feeding["colour"], feeding["mean"], feeding["std"]) == ("bgr", [0.0] * 3, [1.0] * 3)
    assert card["clip"]["window"] == 16 and card["frames"]["stride"] == {"handwash": 4, "ntu": 1}[study]


def test_a_file_of_no_architecture_is_named_with_what_it_holds(tmp_path):
    torch.save({"layer.weight": torch.zeros(2, 3)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"fits no architecture .* begins with layer.weight \(2, 3\)") as caught:
        checkpoints.open_checkpoint(ROOT, tmp_path / "other.pt")
    assert "\n" not in str(caught.value)


OTHER_CLASSES = {"classifier.weight": torch.zeros(7, 512), "classifier.bias": torch.zeros(7)}
OTHER_WIDTH = {"rnn.weight_hh_l0": torch.zeros(4, 4)}


@pytest.mark.parametrize(("change", "words"), [
    ({"rnn.weight_ih_l0": None}, ["1 missing: rnn.weight_ih_l0", "another architecture"]),
    ({"rnn.extra": torch.zeros(1)}, ["1 unknown: rnn.extra", "another architecture"]),
    (OTHER_WIDTH, ["rnn.weight_hh_l0 (expected (32, 8), found (4, 4)", "LSTM width"]),
    (OTHER_CLASSES, ["classifier.weight (expected (3, 512), found (7, 512)", "number of classes", "replace_head"])])
def test_a_checkpoint_that_does_not_fit_is_refused_and_changes_nothing(model, state, change, words):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        load_published(model, {name: value for name, value in (state | change).items() if value is not None})
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)
    assert is_equal(model, before)


def test_replace_head_hides_no_other_difference(model, state):
    own = model.classifier.weight.detach().clone()
    assert load_published(model, state | OTHER_CLASSES, replace_head=True) == list(OTHER_CLASSES)
    assert torch.equal(model.classifier.weight, own) and torch.equal(model.fc[0].weight, state["fc.0.weight"])
    with pytest.raises(ValueError, match="rnn.weight_hh_l0"):
        load_published(model, state | OTHER_CLASSES | OTHER_WIDTH, replace_head=True)


def find_cause(name, path, **options) -> str:
    with pytest.raises(ValueError) as caught:
        load_published(build_model(name, **SMALL, **options), path, replace_head=True)
    return str(caught.value).rpartition("likely cause: ")[2]


def test_a_wrong_checkpoint_is_reported_with_its_likely_cause(tmp_path):
    path = release(tmp_path / "wide.pth", "shufflenetv2", "shufflenetv2", width_mult=0.5)
    assert find_cause("shufflenetv2", path).endswith("width in the checkpoint; the model has width_mult=1.0")
    assert "'shufflenetv2', the model is 'squeezenet'" in find_cause("squeezenet", path)
    path = release(tmp_path / "a.pth", "resnet18", "resnet-18")
    assert "shortcut='A'" in find_cause("resnet18", path, shortcut="B")
    path = release(tmp_path / "b.pth", "resnet18", "resnet", shortcut="B")
    assert "shortcut='B'" in find_cause("resnet18", path)
    with torch.device("meta"):
        state = build_model("c3d", num_classes=3, frames=8, size=64).state_dict()
        with pytest.raises(ValueError, match="other frame size or number of frames"):
            load_published(build_model("c3d", **SMALL), {"arch": "c3d", "state_dict": state})


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_not_run(model, tmp_path):
    torch.save({"state_dict": Trap(tmp_path / "sprung")}, tmp_path / "hostile.pth")
    for read in (lambda path: load_published(model, path),
                 lambda path: build_model("squeezenet", **SMALL, pretrained=str(path))):
        with pytest.raises(ValueError, match="no checkpoint that can be read safely") as caught:
            read(tmp_path / "hostile.pth")
        assert "\n" not in str(caught.value) and not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 half a file", {"state_dict": [1]}, {"epoch": 3}, [1]])
def test_a_file_without_weights_is_refused_in_one_line(model, tmp_path, content):
    path = tmp_path / "other.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ValueError, match="other.pth is no") as caught:
        load_published(model, str(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="no weights at .*none.pth"):
        load_published(model, tmp_path / "none.pth")


def save_small(folder, name="cnn_lstm_efficientnet_lite0", **options):
    architecture = {"name": name, **SMALL, **options}
    model = build_model(**architecture).eval()
    card = {**dict.fromkeys(CARD_KEYS), "architecture": architecture, "classes": ["a", "b", "c"]}
    save_model(folder, model, card)
    return model, card


@pytest.fixture
def folder(tmp_path):
    save_small(tmp_path / "model", lstm_width=8, freeze=True)
    return tmp_path / "model"


@pytest.mark.parametrize(("name", "options"), [
    ("cnn_lstm_efficientnet_lite0", {"lstm_width": 8, "freeze": True}), ("three_stream", {"lstm_width": 8}),
    ("shufflenetv2", {}), ("squeezenet", {}), ("resnet18", {})])
def test_a_saved_model_gives_the_same_logits(tmp_path, name, options):
    folder = tmp_path / "new" / "model"
    model, card = save_small(folder, name, **options)
    loaded, read = load_model(folder)
    assert read == card and not loaded.training and getattr(loaded, "frozen", None) == getattr(model, "frozen", None)
    clips = torch.rand((2, 3, 8, 32, 32), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(loaded(clips), model(clips), atol=1e-5)
    assert is_equal(loaded, model.state_dict())
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "weights.safetensors"]


def test_an_incomplete_card_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=f"lacks {CARD_KEYS[-2]}, {CARD_KEYS[-1]}"):
        save_model(tmp_path / "model", nn.Linear(1, 1), dict.fromkeys(CARD_KEYS[:-2]))
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", ["card.json", "weights.safetensors"])
def test_a_missing_file_of_a_model_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"no {name} in .*train the model first"):
        load_model(folder)


@pytest.mark.parametrize("name", ["card.json", "weights.safetensors"])
@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:len(content) // 2],
                                    lambda content: b"\xff\xfe" + content[2:]], ids=["empty", "cut", "overwritten"])
def test_a_damaged_file_of_a_model_is_reported_in_one_line(folder, name, damage):
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    for read in (load_model, lambda path: build_model("squeezenet", **SMALL, pretrained=str(path))):
        with pytest.raises(ValueError, match="is no usable model folder") as caught:
            read(folder)
        assert "\n" not in str(caught.value)


WHOLE = dict.fromkeys(CARD_KEYS)


@pytest.mark.parametrize("card", [
    {}, [], 1, {"architecture": {"name": "convlstm"}}, WHOLE, {**WHOLE, "architecture": {"name": "convlstm"}},
    {**WHOLE, "architecture": [1]}, {**WHOLE, "architecture": {"name": ["convlstm"], **SMALL}},
    {**WHOLE, "architecture": {"name": "convlstm", **SMALL}},
    {**WHOLE, "architecture": {"name": "cnn_lstm_efficientnet_lite0", **SMALL, "lstm_width": 8, "pretrained": "x/y"}}])
def test_a_card_that_does_not_belong_to_the_weights_is_refused(folder, card):
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match="is no usable model folder: .") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_a_pretraining_leaves_the_path_to_start_from(tmp_path):
    for weights in ("weights/x.pth", None):
        write_start(tmp_path, weights)
        assert read_start(tmp_path) == weights
    with pytest.raises(FileNotFoundError, match="run the pretraining first"):
        read_start(tmp_path / "none")
    for content, words in (("{}", "is damaged"), ("[", "is damaged"), ('{"weights": "../x"}', "leads out of")):
        (tmp_path / "start.json").write_text(content)
        with pytest.raises(ValueError, match=words):
            read_start(tmp_path)
