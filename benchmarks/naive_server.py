"""What `reprise serve` is compared with: FastAPI around a transformers pipeline, as tutorials write it."""

import os
import sys
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline


class Texts(BaseModel):
    """The body of a request."""

    inputs: str


def main(folder: Path, port: int) -> None:
    """Serve the model in a folder."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    pipe = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(folder), top_k=None)
    app = FastAPI()

    def predict(texts: Texts) -> Any:
        return pipe(texts.inputs, truncation=True, max_length=128)

    def ready() -> str:
        return "ready"

    app.add_api_route("/predict", predict, methods=["POST"])  # FastAPI runs plain functions in its forty threads
    app.add_api_route("/ready", ready)
    uvicorn.run(app, port=port, log_level="error")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
