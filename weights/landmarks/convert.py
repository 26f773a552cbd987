"""Convert MediaPipe's networks for hands and bodies from TensorFlow Lite to ONNX. Run once; what it wrote is in git.

The networks are those of the wheel mediapipe 0.10.21, folder mediapipe/modules: copyright The MediaPipe Authors,
Apache License 2.0 (LICENSE beside this file). Weights stay as they are, float16; zeros of sparse ones are written out.
To run it again, in an empty folder:

    pip download --no-deps mediapipe==0.10.21 && unzip -q mediapipe-*.whl 'mediapipe/modules/*'
    pip install tflite==2.18.0
    python <project>/weights/landmarks/convert.py mediapipe/modules
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import tflite
from onnx import TensorProto, helper, numpy_helper

# File in MediaPipe -> its outputs that are kept, and their names here. A person's silhouette is not.
NETWORKS = {
    "palm_detection/palm_detection_full": {"Identity": "boxes", "Identity_1": "scores"},
    "hand_landmark/hand_landmark_full": {"Identity": "landmarks", "Identity_1": "presence", "Identity_2": "handedness",
                                         "Identity_3": "world"},
    "pose_detection/pose_detection": {"Identity": "boxes", "Identity_1": "scores"},
    "pose_landmark/pose_landmark_full": {"Identity": "landmarks", "Identity_1": "presence", "Identity_3": "heatmaps",
                                         "Identity_4": "world"}}
OPERATORS = {code: name for name, code in vars(tflite.BuiltinOperator).items() if isinstance(code, int)}
KINDS = tflite.TensorType
TYPES = {KINDS.FLOAT16: np.float16, KINDS.FLOAT32: np.float32, KINDS.INT32: np.int32}
SAME, NHWC_TO_NCHW, NCHW_TO_NHWC = tflite.Padding.SAME, [0, 3, 1, 2], [0, 2, 3, 1]


class Converter:
    """One network. Maps are (batch, height, width, channels) in TensorFlow Lite, (batch, channels, ...) in ONNX."""

    def __init__(self, data: bytes):
        self.model = tflite.Model.GetRootAs(data, 0)
        self.graph = self.model.Subgraphs(0)
        self.nodes, self.weights, self.stored = [], [], {}

    def convert(self, kept: dict[str, str]) -> onnx.ModelProto:
        """The network with one input, "image" (1, size, size, 3) float32, and the outputs `kept`: name -> new name."""
        image = self.graph.Inputs(0)
        outputs = {kept[name]: index for index in self.graph.OutputsAsNumpy() if (name := self.name(index)) in kept}
        operators = [self.graph.Operators(number) for number in range(self.graph.OperatorsLength())]
        needed, chosen = set(outputs.values()), []
        for operator in reversed(operators):  # only what leads to the outputs
            if operator.Outputs(0) in needed:
                needed.update(operator.InputsAsNumpy().tolist())
                chosen.append(operator)
        self.add("Transpose", ["image"], f"t{image}", perm=NHWC_TO_NCHW)
        for operator in reversed(chosen):
            self.translate(operator)
        for name, index in outputs.items():
            self.add("Identity", [f"t{index}"], name)
        shapes = {name: self.shape(index) for name, index in outputs.items()}
        graph = helper.make_graph(
            self.nodes, "network", [helper.make_tensor_value_info("image", TensorProto.FLOAT, self.shape(image))],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape if len(shape) < 4 else np.array(shape)[
                NHWC_TO_NCHW].tolist()) for name, shape in shapes.items()], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        helper.set_model_props(model, {"source": "mediapipe 0.10.21, The MediaPipe Authors", "license": "Apache-2.0"})
        onnx.checker.check_model(model, full_check=True)
        return model

    def translate(self, operator) -> None:
        """Append the ONNX nodes of one operator."""
        code = self.model.OperatorCodes(operator.OpcodeIndex())
        kind = OPERATORS[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        inputs, output = operator.InputsAsNumpy().tolist(), operator.Outputs(0)
        first, target, options, activation = f"t{inputs[0]}", f"t{output}", self.read_options(operator, kind), 0
        if kind in ("DEQUANTIZE", "DENSIFY"):  # of weights
            self.stored[output] = self.constant(inputs[0])
        elif kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            deep, activation = kind == "DEPTHWISE_CONV_2D", options.FusedActivationFunction()
            kernel = self.constant(inputs[1]).transpose((3, 0, 1, 2) if deep else NHWC_TO_NCHW)
            strides = [options.StrideH(), options.StrideW()]
            assert options.DilationHFactor() == options.DilationWFactor() == 1
            self.add("Conv", [first, self.weight(kernel), self.weight(self.constant(inputs[2]))], target,
                     group=len(kernel) if deep else 1, strides=strides, kernel_shape=kernel.shape[2:],
                     pads=self.pads(inputs[0], kernel.shape[2:], strides, options))
        elif kind == "MAX_POOL_2D":
            size, strides = [options.FilterHeight(), options.FilterWidth()], [options.StrideH(), options.StrideW()]
            self.add("MaxPool", [first], target, kernel_shape=size, strides=strides,
                     pads=self.pads(inputs[0], size, strides, options))
        elif kind == "PRELU":
            slopes = self.constant(inputs[1]).reshape(-1, 1, 1, 1)  # as what ONNX Runtime does in half of PRelu's time:
            rest = self.store(1 - slopes.astype(np.float32))  # slopes * x + (1 - slopes) * relu(x)
            self.add("Relu", [first], f"{target}_relu")
            self.add("Conv", [first, self.weight(slopes)], f"{target}_low", group=len(slopes))
            self.add("Conv", [f"{target}_relu", rest], f"{target}_high", group=len(slopes))
            self.add("Add", [f"{target}_low", f"{target}_high"], target)
        elif kind == "ADD":
            activation = options.FusedActivationFunction()
            self.add("Add", [first, f"t{inputs[1]}"], target)
        elif kind == "PAD":
            before, after = self.constant(inputs[1])[NHWC_TO_NCHW].T
            self.add("Pad", [first, self.store(np.concatenate([before, after]).astype(np.int64))], target)
        elif kind == "RESIZE_BILINEAR":
            assert options.HalfPixelCenters()
            sizes = np.array(self.shape(output))[NHWC_TO_NCHW]
            self.add("Resize", [first, "", "", self.store(sizes)], target, mode="linear")
        elif kind == "DEPTH_TO_SPACE":
            self.add("DepthToSpace", [first], target, blocksize=options.BlockSize())
        elif kind == "RESHAPE":
            self.add("Transpose", [first], f"{target}_nhwc", perm=NCHW_TO_NHWC)
            self.add("Reshape", [f"{target}_nhwc", self.store(np.array(self.shape(output)))], target)
        elif kind == "CONCATENATION":
            self.add("Concat", [f"t{index}" for index in inputs], target, axis=options.Axis())
        elif kind == "MEAN":  # over height and width
            self.add("GlobalAveragePool", [first], f"{target}_mean")
            self.add("Flatten", [f"{target}_mean"], target)
        elif kind == "FULLY_CONNECTED":
            self.add("Gemm", [first, *(self.weight(self.constant(index)) for index in inputs[1:])], target, transB=1)
        elif kind == "LOGISTIC":
            self.add("Sigmoid", [first], target)
        else:
            raise NotImplementedError(kind)
        if activation:
            last = self.nodes[-1]
            last.output[0] = f"{target}_linear"
            if activation == tflite.ActivationFunctionType.RELU6:
                self.add("Clip", [f"{target}_linear", self.store(np.float32(0)), self.store(np.float32(6))], target)
            else:
                assert activation == tflite.ActivationFunctionType.RELU
                self.add("Relu", [f"{target}_linear"], target)

    def add(self, kind: str, inputs: list[str], output: str, **attributes) -> None:
        """Append one ONNX node."""
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))

    def weight(self, values: np.ndarray) -> str:
        """Store float16 weights, which a node casts to float32; the name of the result."""
        assert values.dtype == np.float16
        name = self.store(np.ascontiguousarray(values))
        self.add("Cast", [name], f"{name}_float32", to=TensorProto.FLOAT)
        return f"{name}_float32"

    def store(self, values: np.ndarray) -> str:
        """Store a constant; its name."""
        self.weights.append(numpy_helper.from_array(values, f"w{len(self.weights)}"))
        return self.weights[-1].name

    def constant(self, index: int) -> np.ndarray:
        """The values of a tensor that the file holds; (rows, 1, 1, columns) where they are sparse."""
        if index in self.stored:
            return self.stored[index]
        tensor = self.graph.Tensors(index)
        values = np.frombuffer(self.model.Buffers(tensor.Buffer()).DataAsNumpy(), TYPES[tensor.Type()])
        if tensor.Sparsity() is None:
            return values.reshape(self.shape(index))
        pattern, vectors = tensor.Sparsity().DimMetadata(3), {2: tflite.Uint16Vector, 3: tflite.Uint8Vector}
        ends = _init(vectors[pattern.ArraySegmentsType()], pattern.ArraySegments()).ValuesAsNumpy()
        columns = _init(vectors[pattern.ArrayIndicesType()], pattern.ArrayIndices()).ValuesAsNumpy()
        dense = np.zeros(self.shape(index), values.dtype)
        dense[np.repeat(np.arange(len(dense)), np.diff(ends.astype(int))), 0, 0, columns] = values
        return dense

    def pads(self, index: int, kernel, strides, options) -> list[int]:
        """Padding above, left, below and right: TensorFlow's SAME puts the odd one below and right."""
        if options.Padding() != SAME:
            return [0, 0, 0, 0]
        sizes = self.shape(index)[1:3]
        total = [max((-(-size // stride) - 1) * stride + width - size, 0)
                 for size, width, stride in zip(sizes, kernel, strides)]
        return [pad // 2 for pad in total] + [pad - pad // 2 for pad in total]

    def shape(self, index: int) -> list[int]:
        return self.graph.Tensors(index).ShapeAsNumpy().tolist()

    def name(self, index: int) -> str:
        return self.graph.Tensors(index).Name().decode()

    def read_options(self, operator, kind: str):
        """Strides, padding and the like of an operator; None where it has none."""
        names = {"CONV_2D": "Conv2DOptions", "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions", "ADD": "AddOptions",
                 "MAX_POOL_2D": "Pool2DOptions", "RESIZE_BILINEAR": "ResizeBilinearOptions",
                 "DEPTH_TO_SPACE": "DepthToSpaceOptions", "CONCATENATION": "ConcatenationOptions"}
        return _init(getattr(tflite, names[kind]), operator.BuiltinOptions()) if kind in names else None


def _init(kind, table):
    found = kind()
    found.Init(table.Bytes, table.Pos)
    return found


if __name__ == "__main__":
    for path, kept in NETWORKS.items():
        data = (Path(sys.argv[1]) / f"{path}.tflite").read_bytes()
        converted = Converter(data).convert(kept).SerializeToString(deterministic=True)
        (Path(__file__).parent / f"{Path(path).name}.onnx").write_bytes(converted)
