"""Networks in less than float32: static int8 (QDQ) and float16, by ONNX Runtime's own tools. Needs onnx, not torch."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl import defaults, runtime, storage
from edgetl.data import Sample
from edgetl.data.decode import Decoder
from edgetl.errors import DataError, ModelError
from edgetl.providers import Provider, open_placed

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

Feeds = Mapping[str, "NDArray[Any]"]

QUANTIZED_OPERATORS = (
    *("Conv", "Gemm", "MatMul", "Add", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool"),
    *("Concat", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"),
)
"""Products with weights, and what lies between them; normalisation, softmax and gates lose too much in eight bits."""

_SATURATED = 0.05
"""Relative difference between the optimised graph and the graph as it stands from which products count as saturated."""


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
    model: onnx.ModelProto, feeds: Callable[[], Iterator[Feeds]], *, keep: Collection[str] = ()
) -> onnx.ModelProto:
    """Return the network with weights and activations in eight bits (QuantizeLinear and DequantizeLinear).

    Weights are signed and symmetric, one scale for each output channel; activations unsigned, with the range
    that the samples show. Where this machine's kernels saturate at products of unsigned and signed bytes
    (x86-64 with AVX2 or AVX-512 but without VNNI), weights become unsigned with the same values: slower, and
    right everywhere.

    Args:
        feeds: gives the inputs of one sample after the other, from the first on at each call.
        keep: names of nodes that stay in float32.

    Raises:
        ModelError: ONNX Runtime's quantiser fails.
    """
    runtime.import_onnxruntime()
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds = feeds()

        def get_next(self) -> Feeds | None:
            return next(self._feeds, None)

    with storage.temporary_directory(for_libraries=True) as directory, _quiet():
        before, after = directory / "float32.onnx", directory / "int8.onnx"
        before.write_bytes(model.SerializeToString())
        try:
            quantize_static(
                str(before),
                str(after),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTIZED_OPERATORS),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=list(keep),
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={"MatMulConstBOnly": True},
            )
        except DataError:
            raise
        except Exception as error:  # the quantiser raises whatever its parts raise
            raise ModelError(f"ONNX Runtime cannot quantise this network ({error}): try --precision float16") from error
        quantized = onnx.load(after)
    if _saturates(quantized, islice(feeds(), 4)):
        _shift_weights(quantized)
    return quantized


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


def _saturates(model: onnx.ModelProto, feeds: Iterable[Feeds]) -> bool:
    content = model.SerializeToString()
    optimised, plain = runtime.open_session(content), runtime.open_session(content, optimize=False)
    for feed in feeds:
        for found, expected in zip(optimised.run(None, feed), plain.run(None, feed), strict=True):
            if np.linalg.norm(found - expected) > _SATURATED * np.linalg.norm(expected):
                return True
    return False


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
