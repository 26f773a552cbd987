import pytest
import torch
from matplotlib import pyplot

from health_actions.figures.networks import draw_structure
from health_actions.models import build_model
from health_actions.models.resnet3d import ARCHITECTURES
from health_actions.models.structure import count_operations, describe_structure, measure_latency
from health_actions.models.torchvision_video import VIDEO_WEIGHTS

CLIP = {"frames": 8, "size": 32}
NETWORKS = ["c3d", *ARCHITECTURES, "mobilenetv2", "shufflenetv2", "squeezenet"]
SIZES = ["channels", "frames", "height", "width"]


def describe(name: str):
    with torch.device("meta"):  # shapes alone
        model = build_model(name, num_classes=5, **CLIP)
    return model, describe_structure(model, **CLIP)


@pytest.mark.parametrize("name", [*NETWORKS, "convlstm", "cnn_lstm_custom", *VIDEO_WEIGHTS])
def test_the_parts_sum_up_to_the_whole(name):
    model, table = describe(name)
    assert table["parameters"].sum() == sum(weights.numel() for weights in model.parameters())
    assert table["multiply_adds"].sum() == pytest.approx(count_operations(model, **CLIP) / 1e6)
    assert (table["parameters"] >= 0).all() and (table["multiply_adds"] >= 0).all() and table["part"].is_unique
    assert table.loc[table["part"] != "others", "channels"].iloc[-1] == 5
    assert not any(module._forward_hooks for module in model.modules())


def test_a_resnet_18_has_the_parts_and_sizes_of_its_definition():
    """Hara et al., 2018: stride 1 x 2 x 2, a pooling by 2, and 2 from each layer to the next."""
    _, table = describe("resnet18")
    assert list(table["part"]) == ["conv1, bn1", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc"]
    assert list(table["repeats"]) == [1, 1, 2, 2, 2, 2, 1, 1]
    assert list(table["kind"][:3]) == ["convolution 7 x 7 x 7", "pooling", "basic block"]
    sizes = table[SIZES].astype(object).where(table[SIZES].notna(), None).to_numpy().tolist()
    assert sizes == [[64, 8, 16, 16], [64, 4, 8, 8], [64, 4, 8, 8], [128, 2, 4, 4], [256, 1, 2, 2], [512, 1, 1, 1],
                     [512, None, None, None], [5, None, None, None]]
    assert table["parameters"].iloc[0] == 64 * 3 * 7**3 + 2 * 64 and table["parameters"].iloc[-1] == 512 * 5 + 5
    assert table["multiply_adds"].iloc[0] == pytest.approx(64 * 8 * 16 * 16 * 3 * 7**3 / 1e6)
    assert table["multiply_adds"].iloc[2] == pytest.approx(4 * 64 * 4 * 8 * 8 * 64 * 3**3 / 1e6)


def test_equal_blocks_share_a_row():
    described = {name: describe(name)[1].set_index("part") for name in NETWORKS}
    assert list(described["resnext101"]["repeats"][2:6]) == [3, 4, 23, 3]
    assert described["resnext101"].loc["layer3", "kind"] == "bottleneck, 32 groups"
    assert described["mobilenetv2"].loc["features.7-10", "repeats"] == 4
    assert described["shufflenetv2"].loc["features.4-11", ["kind", "repeats"]].tolist() == ["shuffle unit", 8]
    assert described["squeezenet"].loc["features.4-5", ["kind", "repeats"]].tolist() == ["fire module", 2]
    assert described["squeezenet"].loc["features.0-2", ["kind", "repeats"]].tolist() == ["convolution 3 x 3 x 3", 1]
    assert described["c3d"].loc["group3", "kind"] == "2 convolutions 3 x 3 x 3 + pooling"


@pytest.mark.parametrize("name", ["shufflenetv2", "cnn_lstm_custom", "mvit_v2_s"])
def test_a_structure_is_drawn_with_all_its_parts(name):
    table = describe(name)[1]
    texts = "".join(text.get_text() for axis in draw_structure(table, "a network").axes for text in axis.texts)
    pyplot.close("all")
    assert all(part.split(",")[0] in texts for part in table["part"])


def test_operations_and_latency_are_those_of_convolutions_and_linear_layers():
    convolution, linear = torch.nn.Conv3d(3, 4, 3, padding=1), torch.nn.Linear(4 * 2 * 5 * 5, 7)
    convolved = 4 * 2 * 5 * 5 * 3 * 27  # taps that meet padding count, too
    assert count_operations(convolution, frames=2, size=5) == convolved
    network = torch.nn.Sequential(convolution, torch.nn.BatchNorm3d(4), torch.nn.Flatten(), linear)
    assert count_operations(network, frames=2, size=5) == convolved + 200 * 7
    assert measure_latency(network, frames=2, size=5, runs=2) > 0
