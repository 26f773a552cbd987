import pytest
import torch
from matplotlib import pyplot

from health_actions.figures.networks import draw_structure, plot_costs
from health_actions.figures.style import save_figure
from health_actions.models import MODEL_NAMES, build_model
from health_actions.models.resnet3d import ARCHITECTURES
from health_actions.models.structure import count_operations, count_whole_operations, describe_structure
from health_actions.models.torchvision_video import VIDEO_NAMES

CLIP = {"frames": 8, "size": 32}
NETWORKS = ["c3d", *ARCHITECTURES, "mobilenetv2", "shufflenetv2", "squeezenet"]
SIZES = ["channels", "frames", "height", "width"]


@pytest.mark.parametrize("name", [*NETWORKS, "convlstm", "cnn_lstm_custom", "r3d_18"])
def test_the_parts_sum_up_to_the_whole(name):
    model = build_model(name, num_classes=5, **CLIP)
    table = describe_structure(model, **CLIP)
    assert table["parameters"].sum() == sum(weights.numel() for weights in model.parameters())
    assert table["multiply_adds"].sum() == pytest.approx(count_operations(model, **CLIP) / 1e6)
    assert (table["parameters"] >= 0).all() and (table["multiply_adds"] >= 0).all() and table["part"].is_unique
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_resnet_18_has_the_parts_and_sizes_of_its_definition():
    """Hara et al., 2018: stride 1 x 2 x 2, a pooling by 2, and 2 from each layer to the next."""
    table = describe_structure(build_model("resnet18", num_classes=5, **CLIP), **CLIP)
    assert list(table["part"]) == ["conv1, bn1", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc"]
    assert list(table["repeats"]) == [1, 1, 2, 2, 2, 2, 1, 1]
    assert list(table["kind"][:3]) == ["convolution 7 x 7 x 7", "pooling", "basic block"]
    sizes = table[SIZES].astype(object).where(table[SIZES].notna(), None).to_numpy().tolist()
    assert sizes == [[64, 8, 16, 16], [64, 4, 8, 8], [64, 4, 8, 8], [128, 2, 4, 4], [256, 1, 2, 2], [512, 1, 1, 1],
                     [512, None, None, None], [5, None, None, None]]
    assert table["parameters"].iloc[0] == 64 * 3 * 7**3 + 2 * 64 and table["parameters"].iloc[-1] == 512 * 5 + 5
    # No tap of these sees padding alone.
    assert table["multiply_adds"].iloc[0] == pytest.approx(64 * 8 * 16 * 16 * 3 * 7**3 / 1e6)
    assert table["multiply_adds"].iloc[2] == pytest.approx(4 * 64 * 4 * 8 * 8 * 64 * 3**3 / 1e6)


def test_equal_blocks_share_a_row():
    described = {name: describe_structure(build_model(name, num_classes=5, **CLIP), **CLIP).set_index("part")
                 for name in ("resnext101", "mobilenetv2", "shufflenetv2", "squeezenet", "c3d")}
    assert list(described["resnext101"]["repeats"][2:6]) == [3, 4, 23, 3]
    assert described["resnext101"].loc["layer3", "kind"] == "bottleneck block, 32 groups"
    assert described["mobilenetv2"].loc["features.7-10", "repeats"] == 4
    assert described["shufflenetv2"].loc["features.4-11", ["kind", "repeats"]].tolist() == ["shuffle unit", 8]
    assert described["squeezenet"].loc["features.4-5", ["kind", "repeats"]].tolist() == ["fire module", 2]
    assert described["c3d"].loc["group3", "kind"] == "2 convolutions 3 x 3 x 3 + pooling"


@pytest.mark.parametrize("name", VIDEO_NAMES)
def test_every_video_model_of_torchvision_has_a_structure(name, tmp_path):
    with torch.device("meta"):  # shapes alone
        model = build_model(name, num_classes=5, **CLIP)
    table = describe_structure(model, **CLIP)
    assert table["parameters"].sum() == sum(weights.numel() for weights in model.parameters())
    assert (table["multiply_adds"] >= 0).all() and table["channels"].iloc[-1] == 5
    save_figure(draw_structure(table, name), tmp_path / "structure.svg")
    pyplot.close("all")


def test_taps_on_padding_biases_and_normalisation_count_in_a_whole_count():
    model = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3, padding=1), torch.nn.BatchNorm3d(4))
    assert count_whole_operations(model, **CLIP) == 4 * 8 * 32 * 32 * (3 * 27 + 1 + 2)
    network = build_model("resnet18", num_classes=5, **CLIP)
    assert count_whole_operations(network, **CLIP) > count_operations(network, **CLIP)


@pytest.mark.parametrize("name", ["shufflenetv2", "cnn_lstm_custom"])
def test_structures_and_costs_are_drawn(name, tmp_path):
    assert name in MODEL_NAMES
    table = describe_structure(build_model(name, num_classes=5, **CLIP), **CLIP)
    figure = draw_structure(table, "a network")
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert all(any(text.startswith(part.split(",")[0]) for text in texts) for part in table["part"])
    costs = table[["parameters", "multiply_adds"]].sum().to_frame().T.assign(
        model=name, published_parameters=None, published_multiply_adds=None)
    save_figure(figure, tmp_path / "structure.svg")
    save_figure(plot_costs(costs), tmp_path / "costs.svg")
    assert {path.name for path in tmp_path.iterdir()} == {"structure.svg", "costs.svg"}
    pyplot.close("all")
