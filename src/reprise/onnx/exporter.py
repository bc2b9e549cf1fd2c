"""Write a trained model as ONNX, with transformers' own exporter, and its smaller forms."""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import onnx_ir
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.float16 import convert_float_to_float16
from transformers import PreTrainedModel
from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

from reprise.data.tokenization import load_tokenizer
from reprise.modeling.classifier import load_classifier
from reprise.onnx.files import FILES, Precision

OPSET = 20  # which onnxruntime 1.17 and later read
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def export_onnx(source: Path, target: Path, precisions: Sequence[Precision]) -> None:
    """Write the model in `source` to files of ONNX, for any number of rows of any length.

    Args:
        source: a trained model, with its tokenizer.
        target: folder for the files.
        precisions: fp32 is written always, since the others are made from it.
    """
    model = load_classifier(source).eval()
    names = [name for name in INPUTS if name in load_tokenizer(source).model_input_names]
    fp32 = target / FILES["fp32"]
    with _quiet():
        onnx_ir.save(_export(model, names), str(fp32))
        if "fp16" in precisions:
            half = convert_float_to_float16(onnx.load(fp32), keep_io_types=True)
            onnx.save(half, target / FILES["fp16"])
        if "int8" in precisions:
            with tempfile.TemporaryDirectory() as folder:
                plain = Path(folder) / "plain.onnx"
                onnx.save(_without_stale_shapes(onnx.load(fp32)), plain)
                quantize_dynamic(plain, target / FILES["int8"], per_channel=True, weight_type=QuantType.QInt8)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which prints each of its steps and warns of what no model here uses."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _export(model: PreTrainedModel, names: list[str]) -> onnx_ir.Model:
    """Trace a model on two rows, with rows and length left open."""
    # A tensor for each input: one that is passed twice would become one input.
    sample = {name: torch.ones(2, 16, dtype=torch.int64) for name in names}
    config = OnnxConfig(dynamic=True, opset_version=OPSET)
    program: onnx_ir.Model = OnnxExporter().export(model, sample, config=config).program
    graph = program.graph
    for value in (*graph.inputs, *graph.outputs):  # instead of the tracer's s18 and s41
        for axis, size in enumerate(value.shape):
            if not isinstance(size, int):
                value.shape[axis] = ("rows", "length")[axis]
    return program


def _without_stale_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the shapes of weights, which the quantizer transposes without changing them."""
    weights = {weight.name for weight in model.graph.initializer}
    kept = [value for value in model.graph.value_info if value.name not in weights]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    return model
