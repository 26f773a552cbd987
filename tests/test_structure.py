import pytest
import torch
from conftest import mark_slow
from matplotlib import pyplot

from health_actions.figures.networks import draw_structure
from health_actions.models import build_model
from health_actions.models.resnet3d import RESNETS
from health_actions.models.structure import count_operations, describe_structure, measure_latency
from health_actions.models.torchvision_video import VIDEO_WEIGHTS

CLIP = {"frames": 8, "size": 32}
NETWORKS = ["c3d", *RESNETS, "mobilenetv2", "shufflenetv2", "squeezenet"]
DRAWN = ["shufflenetv2", "cnn_lstm_custom", "mvit_v2_s"]


@pytest.mark.parametrize("name", mark_slow([*NETWORKS, "convlstm", "cnn_lstm_custom", *VIDEO_WEIGHTS],
                                           ["resnet18", "convlstm", *DRAWN]))
def test_the_parts_sum_up_to_the_whole(name):
    with torch.device("meta"):  # shapes alone
        model = build_model(name, num_classes=5, **CLIP)
    table = describe_structure(model, **CLIP)
    assert table["parameters"].sum() == sum(weights.numel() for weights in model.parameters())
    assert table["multiply_adds"].sum() == pytest.approx(count_operations(model, **CLIP) / 1e6)
    assert (table["parameters"] >= 0).all() and (table["multiply_adds"] >= 0).all() and table["part"].is_unique
    assert table["channels"].iloc[-1] == 5
    if name in DRAWN:
        texts = "".join(text.get_text() for axis in draw_structure(table, "a network").axes for text in axis.texts)
        pyplot.close("all")
        assert all(part.split(",")[0] in texts for part in table["part"])


@pytest.mark.parametrize("name, part, expected", [
    # Hara et al., 2018: stride 1 x 2 x 2, a pooling by 2, and 2 from each layer to the next.
    ("resnet18", "conv1, bn1", ["convolution 7 x 7 x 7", 1, 64, 8, 16, 16, 64 * 3 * 7**3 + 2 * 64,
                                64 * 8 * 16 * 16 * 3 * 7**3]),
    ("resnet18", "maxpool", ["pooling", 1, 64, 4, 8, 8, 0, 0]),
    ("resnet18", "layer1", ["basic block", 2, 64, 4, 8, 8, 4 * (64 * 64 * 27 + 2 * 64), 4 * 64 * 4 * 8 * 8 * 64 * 27]),
    ("resnet18", "fc", ["linear", 1, 5, None, None, None, 512 * 5 + 5, 512 * 5]),
    ("resnext101", "layer3", ["bottleneck, 32 groups", 23]), ("mobilenetv2", "features.7-10", ["inverted residual", 4]),
    ("shufflenetv2", "features.4-11", ["shuffle unit", 8]), ("squeezenet", "features.4-5", ["fire module", 2]),
    ("squeezenet", "features.0-2", ["convolution 3 x 3 x 3", 1]),
    ("cnn_lstm_alexnet", "features", ["convolution 11 x 11 + 3 poolings + convolution 5 x 5 + 3 convolutions 3 x 3"]),
    ("c3d", "group3", ["2 convolutions 3 x 3 x 3 + pooling", 1])])
def test_equal_blocks_share_a_row(name, part, expected):
    with torch.device("meta"):
        row = describe_structure(build_model(name, num_classes=5, **CLIP), **CLIP).set_index("part").loc[part]
    row["multiply_adds"] *= 1e6
    row = row.astype(object).where(row.notna(), None).tolist()
    assert row[:len(expected)] == pytest.approx(expected)


def test_operations_and_latency_are_those_of_convolutions_and_linear_layers():
    convolution, linear = torch.nn.Conv3d(3, 4, 3, padding=1), torch.nn.Linear(4 * 2 * 5 * 5, 7)
    convolved = 4 * 2 * 5 * 5 * 3 * 27  # taps that meet padding count, too
    network = torch.nn.Sequential(convolution, torch.nn.BatchNorm3d(4), torch.nn.Flatten(), linear)
    assert count_operations(network, frames=2, size=5) == convolved + 200 * 7
    assert measure_latency(network, frames=2, size=5) > 0
