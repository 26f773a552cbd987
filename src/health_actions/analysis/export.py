"""Export of a trained model to one ONNX file, for programs without torch."""

import json
import warnings
from pathlib import Path

import torch

from health_actions.models import build_model
from health_actions.models.weights import load_model
from health_actions.paths import atomic_write, write_text

FILE, INPUT, OUTPUT = "model.onnx", "clips", "logits"


def export_model(folder: Path, output: Path) -> Path:
    """Write the model of a folder as one ONNX file, and beside it a card that says what its inputs are.

    The file takes any number of clips (batch, 3, frames, size, size), float32, and gives logits (batch, classes),
    float32. It has no paths and no dates in it: the same folder gives the same bytes on the same machine.

    Args:
        folder: as of `save_model`.
        output: folder that gets model.onnx, whose path is returned, and card.json: the model's card with one more
            entry, "onnx". Files of an earlier export stay when this one fails.

    Raises:
        FileNotFoundError, ValueError: see `load_model`; ValueError also when ONNX has no operators for the model.
    """
    model, card = load_model(folder)
    name = card["architecture"]["name"]
    if name == "three_stream":
        raise ValueError(f"{name} cannot be exported: its optical flow and HOG are computed outside of the network")
    plain = build_model(**card["architecture"])  # without what makes it faster in torch
    plain.load_state_dict(model.state_dict())
    try:
        onnx = _describe_input(card)
    except (LookupError, TypeError) as error:
        raise ValueError(f"{folder} is no usable model folder: its card has no usable {error}") from None
    clips = torch.zeros(2, *onnx["input"]["shape"][1:])  # torch takes a batch of 1 for a fixed size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about its own code
        try:
            graph = torch.onnx.export(
                plain.eval(), (clips,), dynamo=True, input_names=[INPUT], output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False).model_proto
        except torch.onnx.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().partition("\n")[0]
            raise ValueError(f"{name} cannot be exported: {reason}") from None
    parts = graph.graph
    for part in (parts, *parts.node, *parts.value_info, *parts.initializer, *parts.input, *parts.output):
        part.ClearField("metadata_props")  # the file and line of each operator on this computer
        part.ClearField("doc_string")
    with atomic_write(Path(output) / FILE) as temporary:
        temporary.write_bytes(graph.SerializeToString(deterministic=True))
    write_text(Path(output) / "card.json", json.dumps({**card, "onnx": onnx}, indent=1) + "\n")
    return Path(output) / FILE


def _describe_input(card: dict) -> dict:
    """Inputs and outputs of an exported model, for the card: shapes, range, preprocessing."""
    view, colours = card["clip"], card["preprocessing"]
    mean, std, size = colours["mean"], colours["std"], view["size"]
    ends = [(end - middle) / width for end in (0, 1) for middle, width in zip(mean, std, strict=True)]
    scaling = {"squash": f"scale each whole frame to {size} x {size} pixels",
               "corner": f"scale each frame's short side to {size} pixels, crop {size} x {size} pixels in the centre"}
    return {
        "file": FILE,
        "input": {"name": INPUT, "type": "float32", "shape": ["batch", 3, view["window"], size, size],
                  "axes": "clips, channels, frames, height, width", "channels": colours["colour"],
                  "range": [round(min(ends), 4), round(max(ends), 4)]},
        "preprocessing": [scaling[view["crop"]], "divide the values of 0-255 by 255",
                          f"subtract the mean {mean} of each channel, then divide by the standard deviation {std}"],
        "output": {"name": OUTPUT, "type": "float32", "shape": ["batch", len(card["classes"])],
                   "meaning": "softmax over the last axis gives probabilities, in the order of the card's classes"}}
