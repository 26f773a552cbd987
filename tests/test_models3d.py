import json
from pathlib import Path

import pytest
import torch
from test_models import Trap
from test_models import test_logits_are_those_of_the_published_code as compare_with_published
from torch import nn
from torch.nn import functional

from health_actions.learning.precision import choose_precision
from health_actions.models import build_model, load_published
from health_actions.models.conv3d import Conv3d, find_used_taps
from health_actions.models.folder import CARD_KEYS, save_model

PARAMETERS = {"c3d": 78_038_153, "resnet18": 33_034_697, "resnet50": 46_217_417, "resnet101": 85_263_561,
              "resnext101": 47_539_657, "mobilenetv2": 2_365_577, "shufflenetv2": 1_308_405, "squeezenet": 1_842_377}
PRETRAINED = [name for name in PARAMETERS if name != "c3d"]
SMALL = {"num_classes": 3, "frames": 8, "size": 32}


def draw_clips(count=2, frames=8, size=32) -> torch.Tensor:
    return torch.rand((count, 3, frames, size, size), generator=torch.Generator().manual_seed(0))


def release(path: Path, model: nn.Module, arch: str) -> Path:
    """Write a checkpoint in the form in which the published weights were released."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    torch.save({"epoch": 45, "arch": arch, "best_prec1": torch.tensor(0.5).numpy()[()],
                "state_dict": {f"module.{name}": value for name, value in model.state_dict().items()},
                "optimizer": optimizer.state_dict()}, path)
    return path


@pytest.mark.parametrize("name", ["c3d", "mobilenetv2", "shufflenetv2", "squeezenet"])
def test_new_networks_equal_the_published_code(name):
    compare_with_published(f"{name}_16x112_9")


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_and_shapes(name):
    with torch.device("meta"):
        model = build_model(name, num_classes=9, frames=16, size=112)
        assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
        for frames, size in ((8, 32), (9, 45), (8, 80), (16, 64), (32, 112)):
            model = build_model(name, num_classes=9, frames=frames, size=size)
            assert model(torch.empty(2, 3, frames, size, size)).shape == (2, 9)


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_released_checkpoint_of_600_classes_is_fine_tuned(name, tmp_path):
    released = build_model(name, **{**SMALL, "num_classes": 600})
    path = release(tmp_path / "released.pth", released, name)
    model, loaded = build_model(name, **SMALL, pretrained=str(path)), build_model(name, **SMALL)
    skipped = load_published(loaded, path, replace_head=True)
    assert len(skipped) == 2 and all(name.startswith(model.head) for name in skipped)
    for key, value in released.state_dict().items():
        if not key.startswith(model.head):
            assert torch.equal(model.state_dict()[key], value) and torch.equal(loaded.state_dict()[key], value)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    functional.cross_entropy(model.train()(draw_clips()), torch.tensor([0, 1])).backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    changed = {key.split(".")[0] for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {key.split(".")[0] for key in before}, "every part learns"
    with pytest.raises(ValueError, match="number of classes"):
        load_published(build_model(name, **SMALL), path)


def cause(name, path, **options) -> str:
    with pytest.raises(ValueError) as caught:
        load_published(build_model(name, **SMALL, **options), path, replace_head=True)
    return str(caught.value).rpartition("likely cause: ")[2]


def test_a_wrong_checkpoint_is_told_with_its_likely_cause(tmp_path):
    many = {**SMALL, "num_classes": 600}
    path = release(tmp_path / "wide.pth", build_model("shufflenetv2", **many, width_mult=0.5), "shufflenetv2")
    assert "other width" in cause("shufflenetv2", path) and "width_mult=1.0" in cause("shufflenetv2", path)
    assert "'shufflenetv2', the model is 'squeezenet'" in cause("squeezenet", path)
    path = release(tmp_path / "a.pth", build_model("resnet18", **many), "resnet-18")
    assert "shortcut='A'" in cause("resnet18", path, shortcut="B")
    path = release(tmp_path / "b.pth", build_model("resnet18", **many, shortcut="B"), "resnet")
    assert "shortcut='B'" in cause("resnet18", path)


def test_c3d_of_another_frame_size_is_told():
    with torch.device("meta"):
        state = build_model("c3d", num_classes=3, frames=8, size=64).state_dict()
        model = build_model("c3d", **SMALL)
    with pytest.raises(ValueError, match="other frame size or number of frames"):
        load_published(model, {"arch": "c3d", "state_dict": state})


def test_pretrained_is_a_path(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        build_model("squeezenet", **SMALL, pretrained=str(tmp_path / "none.pth"))
    assert str(tmp_path / "none.pth") in str(caught.value) and "\n" not in str(caught.value)
    torch.save({"state_dict": Trap(tmp_path / "sprung")}, tmp_path / "hostile.pth")
    with pytest.raises(ValueError, match="read safely"):
        build_model("squeezenet", **SMALL, pretrained=str(tmp_path / "hostile.pth"))
    assert not (tmp_path / "sprung").exists()


def test_pretrained_is_a_model_folder(tmp_path):
    architecture = {"name": "squeezenet", **SMALL, "num_classes": 5}
    first = build_model(**architecture)
    save_model(tmp_path / "model", first, {**dict.fromkeys(CARD_KEYS), "architecture": architecture})
    model = build_model("squeezenet", **SMALL, pretrained=str(tmp_path / "model"))
    assert torch.equal(model.features[0].weight, first.features[0].weight) and len(model.classifier[1].weight) == 3
    with pytest.raises(ValueError, match="another architecture; the checkpoint says it is 'squeezenet'"):
        build_model("shufflenetv2", **SMALL, pretrained=str(tmp_path / "model"))
    assert json.loads((tmp_path / "model" / "card.json").read_text())["architecture"] == architecture


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2", "shufflenetv2", "squeezenet"])
def test_the_last_layer_alone_is_trained(name):
    model = build_model(name, **SMALL, last_layer_only=True).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    for _ in range(2):
        functional.cross_entropy(model(draw_clips()), torch.tensor([0, 1])).backward()
        optimizer.step()
    changed = {key.split(".")[0] for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {model.head} and model.get_submodule(model.head).training


@pytest.mark.parametrize(("inputs", "outputs", "groups"), [
    (8, 16, 1), (3, 8, 1), (16, 16, 4), (16, 16, 16), (32, 32, 1), (64, 64, 32)])
@pytest.mark.parametrize("stride", [1, 2, (1, 2, 2)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4, 4), (2, 1, 1), (2, 7, 7), (3, 2, 5), (8, 10, 10)])
def test_convolutions_equal_torchs_in_both_precisions(inputs, outputs, groups, stride, shape):
    torch.manual_seed(0)
    own = Conv3d(inputs, outputs, 3, stride, 1, groups=groups)
    plain = nn.Conv3d(inputs, outputs, 3, stride, 1, groups=groups)
    plain.load_state_dict(own.state_dict())
    clips = torch.randn(2, inputs, *shape).contiguous(memory_format=torch.channels_last_3d)
    answers = []
    for layer, low in ((plain, False), (own, False), (own, True)):
        maps = clips.clone().requires_grad_()
        layer.zero_grad()
        del_me = [torch.full((size,), float("nan"), dtype=torch.bfloat16) for size in (1000, 10_000, 100_000)]
        del del_me  # what torch leaves unwritten would be seen
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            result = layer(maps)
        weights = torch.linspace(-1, 1, result.numel()).reshape(result.shape)
        (result.float() * weights).sum().backward()
        answers.append((result.float(), maps.grad.clone(), layer.weight.grad.clone()))
    for exact, same, near in zip(*answers, strict=True):
        assert torch.allclose(exact, same, atol=1e-3, rtol=1e-4)
        assert (near - exact).norm() <= 0.02 * exact.norm() + 1e-3


def test_only_taps_that_see_more_than_padding_are_used():
    assert find_used_taps(1, 3, 1, 1) == (1, 2, 0) and find_used_taps(1, 7, 2, 3) == (3, 4, 0)
    assert find_used_taps(2, 3, 1, 1) == (0, 3, 1) and find_used_taps(2, 3, 2, 1) == (1, 3, 0)


def test_bfloat16_is_chosen_for_these_and_not_for_torchs_own_convolutions(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert choose_precision("auto", network=build_model("squeezenet", **SMALL)) == "bf16-mixed"
    assert choose_precision("auto", network=nn.Conv3d(3, 3, 3)) == "32-true"




@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(4, 8, 8), (2, 4, 4), (1, 4, 4), (1, 2, 2)])
def test_gradients_behind_batch_normalisation_are_torchs_own(shape, stride):
    """One layer alone can be right and yet hand on maps whose strides make batch normalisation wrong."""
    torch.manual_seed(0)
    networks = [nn.Sequential(kind(8, 8, 3, stride, 1, groups=8, bias=False), nn.BatchNorm3d(8), nn.ReLU(inplace=True),
                              nn.Conv3d(8, 4, 1)) for kind in (Conv3d, nn.Conv3d)]
    networks[1].load_state_dict(networks[0].state_dict())
    clips = torch.randn(4, 8, *shape)
    networks[0].to(memory_format=torch.channels_last_3d)
    for network, maps in zip(networks, (clips.to(memory_format=torch.channels_last_3d), clips), strict=True):
        network(maps).square().mean().backward()
    for own, torchs in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(own.grad, torchs.grad, rtol=1e-3, atol=1e-5)
