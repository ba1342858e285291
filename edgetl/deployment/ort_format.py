"""The format of ONNX Runtime Mobile, as the tool convert_onnx_models_to_ort writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetl.files import storage
from edgetl.runtime import sessions

if TYPE_CHECKING:
    from onnx import ModelProto


def to_ort(model: ModelProto) -> bytes:
    """Return the model as the content of an `.ort` file, optimised as far as it runs on any processor."""
    ort = sessions.import_onnxruntime()
    options = sessions.session_options(1)
    # what lies beyond depends on the processor that this runs on
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.save_model_format", "ORT")
    with storage.temporary_directory() as directory:
        file = directory / "model.ort"
        options.optimized_model_filepath = str(file)
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return file.read_bytes()
