"""A trained model as one ONNX file, for programs without torch and this project; whether it gives the same answers."""

import json
import warnings
from pathlib import Path

import onnxruntime
import pandas as pd
import torch
from torch import nn

from health_actions.learning.evaluation import predict_clips
from health_actions.learning.precision import autocast
from health_actions.models.folder import load_model
from health_actions.models.structure import measure_latency
from health_actions.models.three_stream import ThreeStream
from health_actions.paths import atomic_write, write_text

FILE, INPUT, OUTPUT = "model.onnx", "clips", "logits"


def export_model(folder: Path, output: Path) -> Path:
    """Write the model of a folder as one ONNX file, and beside it a card that says how to feed it.

    The file takes any number of clips (batch, 3, frames, size, size) as float32 and gives logits (batch, classes) as
    float32. It holds no paths and no dates: the same folder gives the same bytes on the same machine.

    Args:
        folder: as of `save_model`.
        output: folder, made if missing; it gets model.onnx and card.json, which is the model's card with one more
            entry, "onnx". Files of these names that are there already stay as they are when the export fails.

    Returns:
        The path of model.onnx.

    Raises:
        FileNotFoundError, ValueError: when the folder is none, see `load_model`.
        ValueError: when ONNX cannot say what the model computes.
    """
    model, card = load_model(folder)
    name = card["architecture"]["name"]
    if isinstance(model, ThreeStream):
        raise ValueError(f"{name} cannot be exported: OpenCV draws its flow and gradients, outside of the network")
    try:
        told = _describe_input(card)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder} is no usable model folder: its card has no usable {error}") from None
    # Of a batch of one torch takes the one for a fixed size.
    clips = torch.zeros(2, *told["input"]["shape"][1:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about its own code
        try:
            program = torch.onnx.export(
                model, (clips,), dynamo=True, input_names=[INPUT], output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False)
        except torch.onnx.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().partition("\n")[0]
            raise ValueError(f"{name} cannot be exported: {reason}") from None
    exported = program.model_proto
    graph = exported.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("metadata_props")  # where in which file of this computer each operator comes from
        part.ClearField("doc_string")
    with atomic_write(Path(output) / FILE) as temporary:
        temporary.write_bytes(exported.SerializeToString(deterministic=True))
    write_text(Path(output) / "card.json", json.dumps({**card, "onnx": told}, indent=1) + "\n")
    return Path(output) / FILE


def _describe_input(card: dict) -> dict:
    """What goes in and comes out of an exported model, for the card: shapes, range, preprocessing."""
    clip, preprocessing = card["clip"], card["preprocessing"]
    mean, std, size = preprocessing["mean"], preprocessing["std"], clip["size"]
    ends = [(end - middle) / width for end in (0, 1) for middle, width in zip(mean, std, strict=True)]
    whole = clip.get("stride") is None  # study A's frames
    return {
        "file": FILE,
        "input": {
            "name": INPUT, "type": "float32", "shape": ["batch", 3, clip["window"], size, size],
            "axes": "clips, channels, frames, height, width", "channels": preprocessing["colour"],
            "range": [round(min(ends), 4), round(max(ends), 4)]},
        "preprocessing": [
            f"scale each whole frame to {size} x {size} pixels" if whole else
            f"scale each frame's short side to {size} pixels, take the square of {size} x {size} in the middle",
            "divide the values of 0-255 by 255",
            f"of each channel take away its mean, {mean}, then divide by its std, {std}"],
        "output": {"name": OUTPUT, "type": "float32", "shape": ["batch", len(card["classes"])],
                   "meaning": "softmax over the last axis gives probabilities, in the order of the card's classes"}}


class OnnxModel(nn.Module):
    """An exported model that is called like the one it was made of; it runs on the CPU, on as many threads as torch.

    Args:
        exported: model.onnx.

    Raises:
        FileNotFoundError: when it is not there.
        ValueError: when it is damaged.
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


def choose_clips(splits: pd.DataFrame, card: dict, count: int) -> pd.DataFrame:
    """Test clips of a model's fold: the first of each class, then the second of each, and so on up to `count`.

    Args:
        splits: one row a clip and fold.
        card: the model's.

    Raises:
        ValueError: when its fold has no test clips.
    """
    tested = splits[(splits["subset"] == "testing") & (splits["fold"] == card["training"]["fold"])]
    if tested.empty:
        raise ValueError(f"fold {card['training']['fold']} has no test clips to compare answers on")
    turns = tested.groupby("class").cumcount()
    return tested.loc[turns.sort_values(kind="stable").index[:count]]


def compare_answers(folder: Path, exported: Path, clips: pd.DataFrame, *, frames_folder: Path) -> pd.DataFrame:
    """Let a model and its export see the same windows of clips: torch in float32, onnxruntime on the CPU.

    The windows are those of the test, and probabilities are rounded as its are; see `predict_clips`.

    Args:
        folder: as of `save_model`.
        exported: model.onnx that was made of it.
        clips: one row a clip: clip, class, fold.
        frames_folder: where the clips' frames are.

    Returns:
        One row a clip: clip, class, torch and onnxruntime (the predicted classes), same_class, and difference: the
        largest of a probability, 0-1.

    Raises:
        FileNotFoundError, ValueError: see `load_model` and `OnnxModel`.
    """
    model, card = load_model(folder)
    card = {**card, "training": {**card["training"], "precision": "32-true"}}
    one, other = (predict_clips(each, card, clips, frames_folder=frames_folder)
                  for each in (model, OnnxModel(exported)))
    differences = (one[card["classes"]] - other[card["classes"]]).abs().max(axis=1, skipna=False)
    return pd.DataFrame({"clip": one["clip"], "class": one["class"], "torch": one["predicted"],
                         "onnxruntime": other["predicted"], "same_class": one["predicted"] == other["predicted"],
                         "difference": differences.round(6)})


def measure_onnx_latency(folder: Path, exported: Path, *, runs: int = 5) -> dict:
    """How long a model and its export take for one clip, on the same number of threads; see `measure_latency`.

    Args:
        folder: as of `save_model`.
        exported: model.onnx that was made of it.
        runs: of which the median is taken.

    Returns:
        frames, pixels, precision (of torch, as the project runs the model; onnxruntime computes in float32), threads,
        torch_ms and onnxruntime_ms (milliseconds).

    Raises:
        FileNotFoundError, ValueError: see `load_model` and `OnnxModel`.
    """
    model, card = load_model(folder)
    frames, size, precision = card["clip"]["window"], card["clip"]["size"], card["training"]["precision"]
    model.forward = autocast(precision)(model.forward)
    seconds = [measure_latency(each, frames=frames, size=size, runs=runs) for each in (model, OnnxModel(exported))]
    return {"frames": frames, "pixels": size, "precision": precision, "threads": torch.get_num_threads(),
            **{f"{name}_ms": round(1000 * value, 1) for name, value in zip(("torch", "onnxruntime"), seconds)}}
