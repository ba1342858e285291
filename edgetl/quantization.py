"""Networks in less than float32: static int8 (QDQ) and float16, by ONNX Runtime's own tools. Needs onnx, not torch."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, tee
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl import defaults, runtime, storage
from edgetl.data import Sample
from edgetl.data.decode import Decoder
from edgetl.errors import DataError, ModelError
from edgetl.events import Note, OnEvent, ignore
from edgetl.observation import Feeds, Reduction, observe
from edgetl.providers import Provider, open_placed

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

QUANTIZED_OPERATORS = (
    *("Conv", "Gemm", "MatMul", "Add", "Relu", "LeakyRelu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool"),
    *("Concat", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"),
)
"""Products with weights, and what lies between them; normalisation, softmax and gates lose too much in eight bits."""

_PRODUCTS = ("Conv", "Gemm", "MatMul")
_FLOAT_OUTPUTS = ("Gemm", "MatMul")

_SATURATED = 0.01
"""Difference between signed and unsigned weights, relative to the outputs' norm, from which products count as
saturated: without saturation all products are the same integers."""

_ENTRANCE = 0.08
"""Largest share of a network's products that stays in float32 at its entrance. MobileNetV2 and EfficientNet-Lite0:
three convolutions, 7 and 5 %; the file is as fast as without, or faster, and its error falls by a quarter to a half."""

_NARROW = 0.75
"""Share of the samples that narrower ranges hold whole: what few samples reach is cut, and all else has finer steps.
Of 1, 0.95, 0.75 and 0.5 it gave the smallest error of EfficientNet-Lite0's and MobileNetV2's features."""

_LARGE_ERROR = 0.2
"""Relative error of the outputs from which on the note says so; of the networks in docs/deploy.md it is 5 to 7 %."""

_TINY = np.finfo(np.float32).tiny


def calibration(
    samples: Sequence[Sample], decode: Decoder, preprocess: Path, names: Sequence[str], *, seed: int
) -> Iterator[Feeds]:
    """Yield the network's inputs for at most `defaults.CALIBRATION_SAMPLES` samples, drawn at random.

    Args:
        preprocess: the file `preprocess.onnx`, whose outputs are `names`.

    Raises:
        DataError: none can be read.
    """
    session = open_placed(preprocess, Provider(), threads=1, what="the preprocessing")
    found = 0
    for index in np.random.default_rng(seed).permutation(len(samples)):
        try:
            sample = samples[int(index)]
            decoded = decode(sample.read(), sample.span)
        except DataError:
            continue
        yield dict(zip(names, session.run(list(names), decoded), strict=True))
        found += 1
        if found == defaults.CALIBRATION_SAMPLES:
            break
    if not found:
        raise DataError("no sample can be read that could calibrate the quantisation")


def to_int8(
    model: onnx.ModelProto,
    feeds: Callable[[], Iterator[Feeds]],
    *,
    keep: Collection[str] = (),
    on_event: OnEvent = ignore,
) -> onnx.ModelProto:
    """Return the network with weights and activations in eight bits (QuantizeLinear and DequantizeLinear).

    Weights are symmetric, one scale for each output channel; activations unsigned, with the range that the samples
    show. Matrix products give float32, and what lies between products is in bytes only where all that it reads is
    (`quantized_nodes`); tables of embeddings have bytes with one scale for each row (`edgetl.tables`). Biases take up
    what rounding shifts the means by (`edgetl.correction`). The network is quantised as it stands and with channels
    of more equal size (`edgetl.equalization`) by the ranges of the first samples, the better of both by the ranges of
    all samples and by narrower ones, and what comes nearest to the float32 network on further samples is returned.
    The convolutions at the entrance stay in float32 (`entrance`).

    Weights are signed. Where this machine's kernels saturate at products of unsigned and signed bytes (x86-64 with
    AVX2 or AVX-512 but without VNNI), they become unsigned with the same values: slower there, and right everywhere.

    Args:
        feeds: gives the inputs of one sample after the other; called once.
        keep: names of nodes that stay in float32.
        on_event: learns how near the result comes, and of samples that are too few or all alike.

    Raises:
        ModelError: ONNX Runtime's quantiser fails, or there is nothing to quantise.
    """
    runtime.import_onnxruntime()
    from edgetl.correction import add_biases, channel_means, correct_biases
    from edgetl.equalization import equalize
    from edgetl.tables import store_in_bytes

    network = _copied(model)
    _bounds_as_clips(network)
    add_biases(network)
    keep = {*keep, *entrance(network)}
    if not quantized_nodes(network, keep):
        raise ModelError(
            "there is nothing to quantise: no convolution or matrix product has constant weights "
            "(the classifier and small convolutions at the entrance stay float32)"
        )
    stream = feeds()  # read once: decoding large pictures takes longer than all the rest
    first = list(islice(stream, defaults.CORRECTION_SAMPLES + defaults.COMPARISON_SAMPLES))
    samples = first[: defaults.CORRECTION_SAMPLES]
    compared = first[defaults.CORRECTION_SAMPLES :] or samples
    expected = _outputs(network, compared)
    forms = (network, equalize(network, samples, keep))

    def attempt(form: int, extremes: _Extremes, share: float) -> tuple[float, onnx.ModelProto]:
        quantized = _quantized(forms[form], extremes.ranges(share), keep)
        correct_biases(quantized, means[form], samples)
        runtime.return_memory()
        return difference(_outputs(quantized, compared), expected), quantized

    means = [channel_means(form, samples) for form in forms]
    seen = _extremes(forms, keep, first)
    form = min(range(len(forms)), key=lambda index: attempt(index, seen[index], 1)[0])
    extremes = seen[form].joined(_extremes([forms[form]], keep, stream)[0])
    error, best = min((attempt(form, extremes, share) for share in (1, _NARROW)), key=lambda found: found[0])
    _tell(error, first, len(extremes.low), on_event)
    if _saturates(best, compared[:4]):
        _shift_weights(best)
    store_in_bytes(best)
    return best


def _tell(error: float, first: Sequence[Feeds], count: int, on_event: OnEvent) -> None:
    """Say how near the quantised network comes, and what makes its ranges doubtful."""
    enough = defaults.CORRECTION_SAMPLES + defaults.COMPARISON_SAMPLES
    outside = "others may lie outside of its ranges"
    if count > 1 and all(np.array_equal(feed[name], first[0][name]) for feed in first[1:] for name in feed):
        on_event(Note(f"the samples that calibrate the quantisation are all alike: {outside}"))
    elif count < enough:
        few = "1 sample calibrates" if count == 1 else f"{count} samples calibrate"
        on_event(Note(f"only {few} the quantisation: {outside}; give {enough} or more"))
    large = "; that is much: compare accuracies before you use it" if error > _LARGE_ERROR else ""
    on_event(Note(f"in int8 the network's outputs differ by {error:.1%} of their norm from float32's{large}"))


def quantized_nodes(model: onnx.ModelProto, keep: Collection[str]) -> list[onnx.NodeProto]:
    """Return the nodes that compute with bytes: products with constant weights, and what lies between them.

    A sum, a pooling or the like computes with bytes where all that it reads is there in bytes: what a convolution
    gives or a product reads. Elsewhere rounding would cost accuracy and save nothing: sums in float32 between the
    products of a transformer made the error of its features 106 % instead of 14.

    Args:
        keep: names of nodes that stay in float32.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in QUANTIZED_OPERATORS and node.name not in keep]
    products = [node for node in nodes if node.op_type in _PRODUCTS and node.input[1] in constants]
    own = {node.name for node in products}
    in_bytes = {node.input[0] for node in products}
    found = []
    for node in nodes:
        read = node.input if node.op_type in ("Add", "Concat") else node.input[:1]
        between = node.op_type not in _PRODUCTS and all(name in in_bytes or name in constants for name in read)
        if node.name in own or between:
            found.append(node)
            if node.op_type not in _FLOAT_OUTPUTS:
                in_bytes.update(node.output)
    return found


def entrance(model: onnx.ModelProto) -> list[str]:
    """Return the names of the leading convolutions that together make up at most `_ENTRANCE` of all products.

    Rounding there passes through every other layer, and kernels for bytes gain nothing with a few channels.
    Of a network whose shapes are not known, none.
    """
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {value.name: value.type.tensor_type.shape.dim for value in (*inferred.value_info, *inferred.output)}
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    products: list[tuple[str, str, float]] = []
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1] in weights:
            positions = shapes.get(node.output[0], [])[2:] if node.op_type == "Conv" else []
            if any(not size.dim_value for size in positions):
                return []
            products.append(
                (node.name, node.op_type, math.prod(weights[node.input[1]] + [size.dim_value for size in positions]))
            )
    allowed = _ENTRANCE * sum(count for _, _, count in products)
    leading = []
    for name, operator, count in products:
        allowed -= count
        if operator != "Conv" or allowed < 0:
            break
        leading.append(name)
    return leading


def difference(values: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]]) -> float:
    """Return the norm of the difference relative to the norm of what is expected, the mean over outputs."""
    pairs = zip(values, expected, strict=True)
    return float(np.mean([np.linalg.norm(a - b) / max(np.linalg.norm(b), _TINY) for a, b in pairs]))


def _outputs(model: onnx.ModelProto, feeds: Iterable[Feeds], *, saturate: bool = False) -> list[NDArray[Any]]:
    """Return each output for all samples in a row, because texts may differ in length."""
    session = runtime.open_session(model.SerializeToString(), saturate=saturate)
    each = (session.run(None, dict(feed)) for feed in feeds)
    return [np.concatenate([value.ravel() for value in values]) for values in zip(*each, strict=True)]


@dataclass(frozen=True)
class _Extremes:
    """The least and the largest value in each sample of each tensor: `[samples, tensors]`."""

    names: list[str]
    low: NDArray[np.float32]
    high: NDArray[np.float32]

    def joined(self, other: _Extremes) -> _Extremes:
        """Return both, of the same tensors in other samples."""
        low, high = (np.concatenate(pair) for pair in ((self.low, other.low), (self.high, other.high)))
        return _Extremes(self.names, low, high)

    def ranges(self, share: float) -> dict[str, tuple[float, float]]:
        """Return for each tensor a range that holds this share of the samples at either end."""
        low, high = np.quantile(self.low, 1 - share, axis=0), np.quantile(self.high, share, axis=0)
        return dict(zip(self.names, zip(low.tolist(), high.tolist(), strict=True), strict=True))


def _extremes(models: Sequence[onnx.ModelProto], keep: Collection[str], feeds: Iterable[Feeds]) -> list[_Extremes]:
    """Observe what the quantiser may ask for, in all models side by side, so that one sample is held at a time."""
    names = [_quantizable(model, keep) for model in models]
    observed = [
        observe(model, [Reduction(name, operator) for name in own for operator in ("ReduceMin", "ReduceMax")], stream)
        for model, own, stream in zip(models, names, tee(feeds, len(models)), strict=True)
    ]
    rows: list[list[Any]] = [[] for _ in models]
    for values in zip(*observed, strict=True):
        for own, row in zip(rows, values, strict=True):
            own.append(row)
    tables = [np.array(own, np.float32).reshape(-1, 2 * len(each)) for own, each in zip(rows, names, strict=True)]
    return [_Extremes(own, table[:, 0::2], table[:, 1::2]) for own, table in zip(names, tables, strict=True)]


def _quantizable(model: onnx.ModelProto, keep: Collection[str]) -> list[str]:
    """Return the float tensors that the nodes to be quantised read or give."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    floats = {
        value.name
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    } - {tensor.name for tensor in graph.initializer}
    nodes = quantized_nodes(model, keep)
    names = [(*node.input, *(() if node.op_type in _FLOAT_OUTPUTS else node.output)) for node in nodes]
    return list(dict.fromkeys(name for name in chain.from_iterable(names) if name in floats))


def _quantized(
    model: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]], keep: Collection[str]
) -> onnx.ModelProto:
    """Return what ONNX Runtime's quantiser makes of it."""
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    from edgetl.graphs import prune

    # version 1.19 sets the range of each Softmax, quantised or not, and fails where there is none to change
    given_ranges = {
        **{node.output[0]: (0.0, 1.0) for node in model.graph.node if node.op_type == "Softmax"},
        **ranges,
    }
    data = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in given_ranges.items()
    }
    given = _copied(model)  # the quantiser changes it
    _drop_specks(given, ranges)
    try:
        with storage.temporary_directory(for_libraries=True), _quiet():
            quantizer = QDQQuantizer(
                given,
                per_channel=True,
                reduce_range=False,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=TensorsData(CalibrationMethod.MinMax, data),
                nodes_to_quantize=[node.name for node in quantized_nodes(given, keep)],
                nodes_to_exclude=[],
                op_types_to_quantize=list(QUANTIZED_OPERATORS),
                extra_options={
                    "MatMulConstBOnly": True,
                    "OpTypesToExcludeOutputQuantization": list(_FLOAT_OUTPUTS),
                },
            )
            quantizer.quantize_model()
    except Exception as error:  # the quantiser raises whatever its parts raise
        raise ModelError(f"ONNX Runtime cannot quantise this network ({error}): try --precision float16") from error
    quantized: onnx.ModelProto = quantizer.model.model
    prune(quantized.graph)  # and into an order that runs
    return quantized


def _bounds_as_clips(model: onnx.ModelProto) -> None:
    """Replace, in place, the Max and Min of a tensor and one number by Clip, which a range of bytes takes up."""
    numbers = {tensor.name: tensor for tensor in model.graph.initializer if all(size == 1 for size in tensor.dims)}
    for index, node in enumerate(model.graph.node):
        bounds = [name for name in node.input if name in numbers]
        values = [name for name in node.input if name not in numbers]
        if node.op_type not in ("Max", "Min") or len(bounds) != 1 or len(values) != 1:
            continue
        scalar = f"edgetl/bound/{index}"
        model.graph.initializer.add().CopyFrom(numbers[bounds[0]])
        model.graph.initializer[-1].name = scalar
        del model.graph.initializer[-1].dims[:]
        node.input[:] = [values[0], scalar] if node.op_type == "Max" else [values[0], "", scalar]
        node.op_type = "Clip"


def _drop_specks(model: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Make weights of channels zero, in place, that are so small that their bias in their scale exceeds 32 bits.

    Each of their products is less than 1/30,000 of the bias.
    """
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        constant = len(node.input) == 3 and all(name in tensors for name in node.input[1:])
        if node.op_type != "Conv" or not constant or node.input[0] not in ranges:
            continue
        weights, bias = (numpy_helper.to_array(tensors[name]) for name in node.input[1:])
        low, high = ranges[node.input[0]]
        step = (max(high, 0) - min(low, 0)) / 255
        largest = np.abs(weights).reshape(len(weights), -1).max(axis=1)
        specks = (largest > 0) & (step * largest / 127 * 2**30 < np.abs(bias))
        if specks.any():
            weights = weights.copy()
            weights[specks] = 0
            tensors[node.input[1]].CopyFrom(numpy_helper.from_array(weights, node.input[1]))


def _copied(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network with float16 weights and arithmetic; inputs and outputs stay float32.

    ONNX Runtime's CPU provider computes most operators in float32 nevertheless, with casts between; the file
    is half as large, and providers that have float16 arithmetic use it.

    Raises:
        ModelError: ONNX Runtime's converter fails.
    """
    runtime.import_onnxruntime()
    from onnxruntime.transformers.float16 import convert_float_to_float16

    from edgetl.graphs import prune

    try:
        with _quiet():
            converted: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True)
    except Exception as error:  # as above
        raise ModelError(f"ONNX Runtime cannot convert this network to float16 ({error})") from error
    prune(converted.graph)  # the converter leaves its casts at the end
    return converted


def classifier_nodes(graph: onnx.GraphProto, trainable: Collection[str]) -> tuple[str, ...]:
    """Return the names of the last layer's nodes: the last product with trainable weights, and what adds its bias."""
    reading = [node for node in graph.node if set(node.input) & set(trainable)]
    products = [node for node in reading if node.op_type in ("Gemm", "MatMul", "Conv")]
    if not products:
        return ()
    last = products[-1]
    biases = [node for node in reading if node.op_type == "Add" and last.output[0] in node.input]
    return (last.name, *(node.name for node in biases))


def _saturates(model: onnx.ModelProto, feeds: Sequence[Feeds]) -> bool:
    """Whether signed weights give other results than unsigned ones of the same values, which never saturate."""
    unsigned = _copied(model)
    _shift_weights(unsigned)
    return difference(_outputs(model, feeds, saturate=True), _outputs(unsigned, feeds, saturate=True)) > _SATURATED


def _shift_weights(model: onnx.ModelProto) -> None:
    """Make int8 weights uint8 in place: 128 is added to each and to its zero point."""
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in tensors:
            continue
        for name in (node.input[0], node.input[2]):
            values = numpy_helper.to_array(tensors[name])
            if values.dtype == np.int8:
                shifted = (values.astype(np.int16) + 128).astype(np.uint8)
                tensors[name].CopyFrom(numpy_helper.from_array(shifted, name))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what ONNX Runtime's tools log of themselves, and their warnings."""
    import warnings

    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
