"""Export of a trained model to one ONNX file, for programs without torch, and a comparison of the two."""

import json
import warnings
from pathlib import Path

import onnxruntime
import pandas as pd
import torch
from torch import nn

from health_actions.analysis.rejection import spread_clips
from health_actions.learning.precision import autocast
from health_actions.learning.scores import predict_clips
from health_actions.models import build_model
from health_actions.models.structure import measure_latency
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
        raise ValueError(f"{name} cannot be exported: OpenCV draws its flow and gradients, outside of the network")
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


class OnnxModel(nn.Module):
    """An exported model with the interface of the original; it runs on the CPU, on as many threads as torch.

    Raises:
        FileNotFoundError: without the file `exported`. ValueError: when it is damaged.
    """

    def __init__(self, exported: Path):
        super().__init__()
        if not Path(exported).is_file():
            raise FileNotFoundError(f"no {exported}: export the model first (export_model)")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self.session = onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's have no common class of their own
            raise ValueError(f"{exported} is no usable ONNX file: {error}") from None

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips (batch, 3, frames, size, size), float32 -> logits (batch, num_classes), float32."""
        return torch.from_numpy(self.session.run([OUTPUT], {INPUT: clips.numpy()})[0])


def compare_answers(folder: Path, exported: Path, splits: pd.DataFrame, *, count: int,
                    frames_folder: Path) -> pd.DataFrame:
    """Predictions of a model and of its export for the same windows: torch in float32, onnxruntime on the CPU.

    Args:
        folder: as of `save_model`.
        exported: model.onnx that was made of it.
        splits: one row a clip and fold; the first `count` test clips of the model's fold are used, every class in turn.
        frames_folder: as written by `extract_frames`.

    Returns:
        One row a clip: clip, class, torch and onnxruntime (the predicted classes), same_class, and difference: the
        largest of any probability, 0-1.

    Raises:
        FileNotFoundError, ValueError: see `load_model` and `OnnxModel`; ValueError also without test clips.
    """
    model, card = load_model(folder)
    fold = card["training"]["fold"]
    tested = splits[(splits["subset"] == "testing") & (splits["fold"] == fold)]
    if tested.empty:
        raise ValueError(f"fold {fold} of the splits has no test clips to compare answers on")
    card = {**card, "training": {**card["training"], "precision": "32-true"}}
    ours, theirs = (predict_clips(each, card, spread_clips(tested, count), frames_folder=frames_folder)
                    for each in (model, OnnxModel(exported)))
    differences = (ours[card["classes"]] - theirs[card["classes"]]).abs().max(axis=1, skipna=False)
    return pd.DataFrame({"clip": ours["clip"], "class": ours["class"], "torch": ours["predicted"],
                         "onnxruntime": theirs["predicted"], "same_class": ours["predicted"] == theirs["predicted"],
                         "difference": differences.round(6)})


def measure_onnx_latency(folder: Path, exported: Path, *, runs: int = 5) -> dict:
    """Time that a model and its export take for one clip, see `measure_latency`: torch_ms and onnxruntime_ms (medians),
    frames, pixels, threads and precision (of torch, as in the study; onnxruntime computes in float32)."""
    model, card = load_model(folder)
    frames, size, precision = card["clip"]["window"], card["clip"]["size"], card["training"]["precision"]
    model.forward = autocast(precision)(model.forward)
    ours, theirs = (measure_latency(each, frames=frames, size=size, runs=runs) for each in (model, OnnxModel(exported)))
    return {"frames": frames, "pixels": size, "precision": precision, "threads": torch.get_num_threads(),
            "torch_ms": round(1000 * ours, 1), "onnxruntime_ms": round(1000 * theirs, 1)}
