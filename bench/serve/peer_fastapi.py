"""The server that one writes in an afternoon: sentence-transformers' `CrossEncoder` behind FastAPI.

    peer_fastapi.py FOLDER PORT THREADS

`POST /rerank` takes `{"query", "documents"}` and answers `{"results": [{"index", "relevance_score"}]}`; the
handler is a plain function, which FastAPI runs on a thread. The batch size and all else are the defaults.
"""

import sys

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import CrossEncoder

app = FastAPI()
folder, port, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
model = CrossEncoder(folder, device="cpu")


class Asked(BaseModel):
    """A request."""

    query: str
    documents: list[str]


@app.post("/rerank")
def rerank(asked: Asked):
    """The documents, best first."""
    scores = model.predict([(asked.query, document) for document in asked.documents])
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    return {"results": [{"index": i, "relevance_score": float(scores[i])} for i in order]}


@app.get("/health")
def health():
    """It is there."""
    return {"status": "ok"}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)
