import pytest
import torch
from torch.nn import functional

from health_actions.learning.precision import autocast, choose_precision
from health_actions.models import build_model, load_published
from health_actions.models.resnet3d import Block

SMALL = {"num_classes": 3, "frames": 8, "size": 32}


@pytest.mark.parametrize(("name", "parameters"), [
    ("resnet18", 33_034_697), ("resnet50", 46_217_417), ("resnet101", 85_263_561), ("resnext101", 47_539_657)])
def test_parameters_are_as_many_as_published(name, parameters):
    with torch.device("meta"):
        model = build_model(name, num_classes=9, frames=16, size=112)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_only_shortcut_b_has_weights(name, shortcut):
    with torch.device("meta"):
        model = build_model(name, **SMALL, shortcut=shortcut)
        default = build_model(name, **SMALL)
        assert model(torch.empty(2, 3, 8, 32, 32)).shape == (2, 3)
    has_weights = any("downsample" in key for key in model.state_dict())
    assert has_weights == (shortcut == "B")
    same = model.state_dict().keys() == default.state_dict().keys()
    assert same == (shortcut == {"resnet18": "A", "resnet50": "B"}[name])


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(4, 4, 1), (4, 8, 1), (4, 8, 2)])
def test_shortcut_a_takes_every_other_value_and_adds_empty_channels(inputs, outputs, stride):
    block = Block([(inputs, outputs, 3, stride, 1), (outputs, outputs, 3, 1, 1)], "A").eval()
    torch.nn.init.zeros_(block.bn2.weight)  # the other branch is silent
    maps = torch.rand(2, inputs, 5, 6, 7, requires_grad=True)
    result = block(maps)
    assert torch.equal(result[:, :inputs], functional.avg_pool3d(maps, 1, stride))
    assert not result[:, inputs:].any()
    result.sum().backward()
    assert maps.grad[:, :, ::stride, ::stride, ::stride].all()  # gradients pass, which the published code stopped


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_every_weight_is_trained(name):
    model = build_model(name, **SMALL).train()
    clips = torch.rand((2, 3, 8, 32, 32), generator=torch.Generator().manual_seed(0))
    with autocast(choose_precision("auto", network=model)):
        loss = functional.cross_entropy(model(clips).float(), torch.tensor([0, 1]))
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    # A bottleneck block begins as its shortcut: its own weights move from the second step on.
    first = model.layer1[0].conv1 if name == "resnet18" else model.layer1[0].bn3
    assert model.conv1.weight.grad.any() and first.weight.grad.any()


def test_wrong_shortcut_and_weights_are_told():
    with pytest.raises(ValueError, match="resnet18: shortcut must be 'A' or 'B', found 'C'"):
        build_model("resnet18", **SMALL, shortcut="C")
    with pytest.raises(FileNotFoundError, match="resnet18: no pretrained weights at /.*/kinetics;"):
        build_model("resnet18", **SMALL, pretrained="kinetics")


def test_a_published_checkpoint_of_other_classes_is_loaded_but_for_its_last_layer():
    checkpoint = build_model("resnet18", **{**SMALL, "num_classes": 7}).state_dict()
    model = build_model("resnet18", **SMALL)
    skipped = load_published(model, {"module." + name: value for name, value in checkpoint.items()}, replace_head=True)
    assert skipped == ["fc.weight", "fc.bias"]
    assert torch.equal(model.layer4[1].conv2.weight, checkpoint["layer4.1.conv2.weight"])
    with pytest.raises(ValueError, match="shortcut type"):
        load_published(build_model("resnet18", **SMALL, shortcut="B"), checkpoint, replace_head=True)
