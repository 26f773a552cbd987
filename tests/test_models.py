import importlib.util
import json
import re
from urllib.error import URLError

import pytest
import torch
import torchvision
from conftest import SHARED, mark_slow
from torch import nn

from health_actions.data.transforms import IMAGENET
from health_actions.models import MODEL_NAMES, build_model, get_normalisation
from health_actions.models.cnn_lstm import BACKBONES, EFFICIENTNETS
from health_actions.models.torchvision_video import VIDEO_WEIGHTS

SMALL = {"num_classes": 3, "frames": 8, "size": 32}
GOLDEN = sorted((SHARED / "golden").glob("*.json"))  # what the published code computed
LARGE = ("c3d", "resnet50", "resnet101", "resnext101", "cnn_lstm_alexnet", "cnn_lstm_resnet50")


def draw_clips(frames=8, size=32, count=2) -> torch.Tensor:
    return torch.rand((count, 3, frames, size, size), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("fixture", [
    pytest.param(file, id=file.stem, marks=[pytest.mark.slow] * file.stem.startswith(LARGE)) for file in GOLDEN])
def test_logits_equal_the_published_code(fixture):
    spec = importlib.util.spec_from_file_location("golden", SHARED / "checks" / "golden.py")
    golden = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(golden)
    assert golden.check(json.loads(fixture.read_text())) is None


@pytest.mark.parametrize("size", mark_slow([32, 64], [32]))
@pytest.mark.parametrize("name", [name for name in MODEL_NAMES if name not in VIDEO_WEIGHTS])
def test_every_model_returns_one_logit_per_class(name, size):
    for frames in (8, 16):
        model = build_model(name, num_classes=5, frames=frames, size=size).eval()
        with torch.inference_mode():
            logits = model(draw_clips(frames, size))
        assert logits.shape == (2, 5) and logits.dtype == torch.float32 and logits.isfinite().all()


@pytest.mark.parametrize("name", mark_slow(VIDEO_WEIGHTS, ["r3d_18", "s3d", "mvit_v2_s"]))
def test_every_torchvision_video_model_takes_clips_of_any_size(name):
    with torch.device("meta"):  # shapes alone: some of them look at 16 frames of 224 pixels at least
        model = build_model(name, num_classes=5, frames=8, size=32).eval()
        for frames, size in ((8, 32), (9, 45), (24, 256)):
            assert model(torch.empty(2, 3, frames, size, size)).shape == (2, 5)


@pytest.mark.parametrize("name", ["convlstm", "cnn_lstm_custom"])
def test_recurrent_models_use_every_frame_and_their_order(name):
    model, clips = build_model(name, **SMALL).eval(), draw_clips(count=1)
    with torch.inference_mode():
        logits = model(clips)
        assert not torch.allclose(model(clips.flip(2)), logits)
        for frame in range(8):
            changed = clips.clone()
            changed[:, :, frame] = 0
            assert not torch.equal(model(changed), logits)


def test_each_model_has_the_normalisation_of_its_weights():
    unchanged = ([0.0] * 3, [1.0] * 3)
    assert all(get_normalisation(name) == unchanged for name in ("convlstm", "three_stream", "c3d", "resnet18"))
    assert get_normalisation("cnn_lstm_resnet50") == get_normalisation("swin3d_t") == IMAGENET
    assert all(get_normalisation(f"cnn_lstm_{name}") == ([0.5] * 3, [0.5] * 3) for name in EFFICIENTNETS)
    assert get_normalisation("r2plus1d_18") == ([0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989])


@pytest.mark.parametrize(("name", "options", "words"), [
    ("lstm", {}, "unknown model 'lstm'; known models: convlstm, cnn_lstm_custom"),
    ("convlstm", {"size": 31}, "size must be at least 32, found 31"),
    ("convlstm", {"frames": 7}, "frames must be at least 8, found 7"),
    ("convlstm", {"num_classes": 1}, "num_classes must be at least 2, found 1"),
    ("convlstm", {"wings": 2}, "convlstm has no option wings; it has width, dropout$"),
    ("three_stream", {"wings": 2}, "it has backbone, freeze, lstm_width, dropout, grid$"),
    ("resnet18", {"wings": 2}, "it has shortcut, last_layer_only$"), ("r3d_18", {"wings": 2}, "it has none$"),
    ("convlstm", {"pretrained": "imagenet"}, "pretrained must be None"),
    ("cnn_lstm_custom", {"pretrained": "imagenet"}, "pretrained must be None"),
    ("three_stream", {"pretrained": "kinetics400"}, "pretrained must be None or 'imagenet'"),
    ("s3d", {"pretrained": "imagenet"}, "pretrained must be None"),
    ("cnn_lstm_alexnet", {"pretrained": "/kinetics"}, "no weights at /kinetics: expected a released checkpoint"),
    ("cnn_lstm_resnet50", {"batch_norm": True}, "batch_norm is for AlexNet.*found resnet50"),
    ("three_stream", {"freeze": False}, "must be frozen, found freeze=False"),
    ("resnet18", {"shortcut": "C"}, "resnet18: shortcut must be 'A' or 'B', found 'C'"),
    ("shufflenetv2", {"width_mult": 3}, "shufflenetv2: width_mult must be one of .*1.5, 2.0.*found 3"),
    ("mobilenetv2", {"width_mult": 0.01}, "mobilenetv2: width_mult must be at least 0.0625"),
    ("resnet18", {"pretrained": "/kinetics"}, "no weights at /kinetics: expected a released checkpoint")], ids=str)
def test_what_cannot_be_built_is_refused_with_what_can(name, options, words):
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        build_model(name, **SMALL | options)


@pytest.mark.parametrize("freeze", [True, None])
def test_a_frozen_backbone_does_not_change_and_one_with_random_weights_is_trained(freeze):
    model = build_model("cnn_lstm_efficientnet_lite0", **SMALL, freeze=freeze, lstm_width=16).train()
    before = {name: value.clone() for name, value in model.features.state_dict().items()}
    assert model.frozen == bool(freeze) and model.fc.training
    assert all(module.training != model.frozen for module in model.features.modules())
    model(draw_clips()).sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (model.frozen and name.startswith("features"))
    assert model.frozen == all(torch.equal(value, before[name]) for name, value in model.features.state_dict().items())


def test_alexnet_can_have_a_normalisation_behind_each_convolution():
    plain, normalised = (build_model("cnn_lstm_alexnet", **SMALL, freeze=False, batch_norm=batch_norm).features
                         for batch_norm in (False, True))
    kinds = [type(layer) for layer in normalised]
    assert [kind for kind in kinds if kind is not nn.BatchNorm2d] == [type(layer) for layer in plain]
    assert [kinds[place + 1] for place, kind in enumerate(kinds) if kind is nn.Conv2d] == [nn.BatchNorm2d] * 5


@pytest.mark.parametrize(("name", "channels"), [("efficientnet_lite0", 112), ("efficientnet_lite2", 120)])
def test_efficientnet_takes_the_packages_weights_and_is_frozen_by_default(name, channels):
    stored = torch.load(EFFICIENTNETS[name].get_model_file_path(), weights_only=True)
    options = {**SMALL, "pretrained": "imagenet", "lstm_width": 16}
    model = build_model(f"cnn_lstm_{name}", **options)
    assert model.frozen and not build_model(f"cnn_lstm_{name}", **options, freeze=False).frozen
    assert model.features(torch.zeros(1, 3, 64, 64)).shape == (1, channels, 4, 4), "a cell is 16 pixels wide"
    assert torch.equal(model.features[0].weight, next(iter(stored.values())))
    known = {tuple(value.flatten()[:4].tolist()) for value in stored.values()}
    assert all(tuple(value.flatten()[:4].tolist()) in known for value in model.features.state_dict().values())


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of torch.hub, and no network."""
    def refuse(url, *_, **__):
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return tmp_path / "hub" / "checkpoints"


def plant(hub, weights, state):
    """Place a file where the hub looks for these weights."""
    hub.mkdir(parents=True)
    torch.save(state, hub / weights.url.rpartition("/")[2])


def test_densenet_weights_are_read_under_their_old_names(hub):
    network = torchvision.models.densenet121()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): value
           for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    plant(hub, torchvision.models.DenseNet121_Weights.IMAGENET1K_V1, old)
    model = build_model("cnn_lstm_densenet121", **SMALL, pretrained="imagenet").eval()
    assert model.frozen
    with torch.inference_mode():
        images = draw_clips()[:, :, 0]
        blocks = network.eval().features[:-3](images)
        expected = torch.nn.Sequential(*list(network.features.transition3)[:3])(blocks)
        assert torch.allclose(model.features(images), expected, atol=1e-5) and expected.shape[1:] == (512, 2, 2)


def test_kinetics_weights_are_read_but_for_the_last_layer(hub):
    published = torchvision.models.get_model("mc3_18")
    plant(hub, torchvision.models.video.MC3_18_Weights.KINETICS400_V1, published.state_dict())
    model = build_model("mc3_18", **SMALL, pretrained="kinetics400")
    assert torch.equal(model.stem[0].weight, published.stem[0].weight) and model.fc.out_features == 3
    whole = build_model("mc3_18", **{**SMALL, "num_classes": 400}, pretrained="kinetics400")
    assert torch.equal(whole.fc.bias, published.fc.bias)


@pytest.mark.parametrize(("name", "weights", "words"), [
    ("cnn_lstm_alexnet", "imagenet", ["ImageNet", "alexnet-owt-7be5be79.pth"]),
    ("three_stream", "imagenet", ["ImageNet", "densenet121-a639ec97.pth"]),
    ("mc3_18", "kinetics400", ["Kinetics-400", "mc3_18-a90a0ba3.pth"])])
def test_missing_weights_are_reported_with_file_and_folder(hub, name, weights, words):
    options = {"backbone": "densenet121"} if name == "three_stream" else {}
    with pytest.raises(FileNotFoundError) as caught:
        build_model(name, **SMALL, pretrained=weights, **options)
    for word in (*words, str(hub), "no route to host", "params.yaml"):
        assert word in str(caught.value)


@pytest.fixture(scope="module")
def three_stream():
    return build_model("three_stream", **SMALL, lstm_width=8).eval()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_three_streams_have_different_features(backbone):
    model = build_model("three_stream", **SMALL, lstm_width=8, backbone=backbone).train()
    assert model.frozen and not any(module.training for module in model.features.modules())
    assert not any(parameter.requires_grad for parameter in model.features.parameters())
    clips = draw_clips()
    with torch.inference_mode():
        features = model.encode(clips)
        assert features.shape == (2, 8, 3 * model.feature_width)
        rgb, flow, gradients = features.chunk(3, dim=-1)
        assert not torch.equal(rgb, flow) and not torch.equal(flow, gradients)
        # A clip's features do not depend on the other clips; and a grey, still clip has neither motion nor edges.
        assert torch.allclose(model.encode(clips[1:]), features[1:], atol=1e-4)
        still = model.encode(torch.full((1, 3, 8, 32, 32), 0.5)).chunk(3, dim=-1)
        assert all(torch.allclose(part, part[:, :1].expand_as(part), atol=1e-4) for part in still)


def test_the_rgb_stream_equals_the_cnn_lstm_with_the_same_backbone(three_stream):
    model = build_model("cnn_lstm_efficientnet_lite0", **SMALL, lstm_width=8, freeze=True).eval()
    model.features.load_state_dict(three_stream.features.state_dict())
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in get_normalisation("cnn_lstm_efficientnet_lite0"))
    with torch.inference_mode():
        rgb = three_stream.encode(draw_clips()).chunk(3, dim=-1)[0]
        assert torch.allclose(rgb, model.encode((draw_clips() - mean) / std), atol=1e-5)


def test_three_stream_refuses_normalised_clips(three_stream):
    with pytest.raises(ValueError, match="takes clips in 0-1 .*found -1.00 to 1.00"):
        three_stream.encode(torch.tensor([-1.0, 1.0]).repeat(2, 3, 8, 32, 16))
