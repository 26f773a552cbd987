import pytest
import torch
from conftest import mark_slow
from torch import nn
from torch.nn import functional

from health_actions.models import build_model
from health_actions.models.resnet3d import BasicBlock
from health_actions.models.weights import CARD_KEYS, save_model

PARAMETERS = {"c3d": 78_038_153, "resnet18": 33_034_697, "resnet50": 46_217_417, "resnet101": 85_263_561,
              "resnext101": 47_539_657, "mobilenetv2": 2_365_577, "shufflenetv2": 1_308_405, "squeezenet": 1_842_377}
SMALL = {"num_classes": 3, "frames": 8, "size": 32}


def draw_clips() -> torch.Tensor:
    return torch.rand((2, 3, 8, 32, 32), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", mark_slow(PARAMETERS, {*PARAMETERS} - {"resnet101", "resnext101"}))
def test_networks_have_the_published_parameters_and_take_any_clip(name):
    with torch.device("meta"):
        model = build_model(name, num_classes=9, frames=16, size=112)
        assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
        for frames, size in ((8, 32), (9, 45), (8, 80), (16, 64), (32, 112)):
            model = build_model(name, num_classes=9, frames=frames, size=size)
            assert model(torch.empty(2, 3, frames, size, size)).shape == (2, 9)


@pytest.mark.parametrize("name", mark_slow(PARAMETERS, ["resnet18", "mobilenetv2", "shufflenetv2", "squeezenet"]))
def test_every_weight_is_trained(name):
    model = build_model(name, **SMALL, **({} if name.startswith("res") else {"dropout": 0.0})).train()
    for block in model.modules():  # a bottleneck begins as its shortcut: without this, only its second step trains it
        if isinstance(block, nn.BatchNorm3d):
            nn.init.ones_(block.weight)
    functional.cross_entropy(model(draw_clips()), torch.tensor([0, 1])).backward()
    for parameter_name, parameter in model.named_parameters():
        # A bias in front of a batch normalisation has no effect.
        assert parameter.grad.isfinite().all() and (parameter.grad.any() or parameter_name.endswith("bias"))


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(4, 4, 1), (4, 8, 1), (4, 8, 2)])
def test_shortcut_a_takes_every_other_value_and_adds_empty_channels(inputs, outputs, stride):
    block = BasicBlock(inputs, outputs, outputs, stride, 1, "A").eval()
    nn.init.zeros_(block.bn2.weight)  # the other branch is silent
    maps = torch.rand(2, inputs, 5, 6, 7, requires_grad=True)
    result = block(maps)
    assert torch.equal(result[:, :inputs], functional.avg_pool3d(maps, 1, stride))
    assert not result[:, inputs:].any()
    result.sum().backward()
    assert maps.grad[:, :, ::stride, ::stride, ::stride].all()  # gradients pass, which the published code stopped


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2", "shufflenetv2", "squeezenet"])
def test_last_layer_only_trains_the_head_alone(name):
    torch.manual_seed(0)
    model = build_model(name, **SMALL, last_layer_only=True).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for _ in range(2):
        functional.cross_entropy(model(draw_clips()), torch.tensor([0, 1])).backward()
        torch.optim.SGD([weights for weights in model.parameters() if weights.requires_grad], 0.1).step()
    changed = {key.split(".")[0] for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {model.head} and model.get_submodule(model.head).training


@pytest.mark.parametrize(("name", "classes"), [("squeezenet", 5), ("squeezenet", 3), ("shufflenetv2", 5)])
def test_a_model_folder_gives_everything_but_the_head(name, classes, tmp_path):
    architecture = {"name": name, **SMALL, "num_classes": classes}
    source = build_model(**architecture)
    save_model(tmp_path / "model", source, {**dict.fromkeys(CARD_KEYS), "architecture": architecture})
    model = build_model(name, **SMALL, pretrained=str(tmp_path / "model"))
    own, stored = model.state_dict(), source.state_dict()
    assert all(torch.equal(own[key], stored[key]) for key in own if not key.startswith(model.head))
    head = next(key for key in own if key.startswith(model.head))
    assert len(own[head]) == 3 and not torch.equal(own[head], stored[head])  # a new one for equally many classes, too
    with pytest.raises(ValueError, match=f"another architecture; the checkpoint says it is '{name}'"):
        build_model("resnet18", **SMALL, pretrained=str(tmp_path / "model"))
