"""`reprise serve`: open the model, check it, and run the server."""

from pathlib import Path

from reprise.core.errors import UserError
from reprise.onnx.files import check_judged, find_onnx
from reprise.onnx.model import OnnxModel
from reprise.serve.app import Limits, Service
from reprise.serve.info import describe_model
from reprise.serve.server import open_socket, run


def serve(path: Path, host: str, port: int, threads: int | None, limits: Limits) -> None:
    """Serve a model until a signal.

    Args:
        path: folder of `reprise export --format onnx`, or a file of ONNX in one.
        host: address to listen on.
        port: 0 for any that is free.
        threads: batches at a time; None for one on each processor.
        limits: of requests.

    Raises:
        UserError: there is no model, its files are not those that were evaluated, or the address cannot be used.
    """
    file = find_onnx(path)
    if file is None:
        raise UserError("no model in ONNX", file=path, expected="the folder that `reprise export --format onnx` wrote")
    judged = check_judged(file)
    listening = open_socket(host, port)  # before the model is loaded, which takes a second
    model = OnnxModel(file, threads)
    run(Service(model, describe_model(file, model.recipe, judged), limits), listening)
