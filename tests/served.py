"""Servers of tiny exported models in the process of the test, and requests to them."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from reprise.core.files import read_json
from reprise.onnx.model import OnnxModel
from reprise.serve.app import Limits, Service, create_app
from reprise.serve.info import describe_model
from tiny import BAD, FILLER, GOOD


def make_texts(count: int, seed: int = 0) -> list[str]:
    """Return synthetic texts, some of them empty, some longer than the model reads."""
    draw = random.Random(seed)
    texts = [" ".join(draw.choices(FILLER + GOOD + BAD, k=draw.choice([1, 2, 3, 5, 8, 13, 30]))) for _ in range(count)]
    return ["", " ", *texts]


@contextmanager
def serving(folder: Path, file: str = "model.onnx", **limits: Any) -> Iterator[Service]:
    """A service of an exported model."""
    path = folder / "onnx" / file
    model = OnnxModel(path, 2)
    judged = read_json(path.parent / "evaluation.json")
    service = Service(model, describe_model(path, model.recipe, judged), Limits(**limits))
    yield service
    service.close()


def ask_all(service: Service, bodies: list[Any], at_once: int = 16) -> list[httpx2.Response]:
    """Send requests concurrently, and return the answers in their order."""

    async def ask() -> list[httpx2.Response]:
        transport = httpx2.ASGITransport(app=create_app(service), raise_app_exceptions=False)
        places = asyncio.Semaphore(at_once)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:

            async def one(body: Any) -> httpx2.Response:
                async with places:
                    if isinstance(body, bytes):
                        return await client.post("/predict", content=body, headers={"content-type": "application/json"})
                    return await client.post("/predict", json=body)

            return list(await asyncio.gather(*map(one, bodies)))

    return asyncio.run(ask())
