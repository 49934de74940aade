"""What a server offers: its routes, each with a dialect and a valid body, and how each dialect tells a fault."""

import collections
import json

ALIAS = "minilm=cross-encoder/ms-marco-MiniLM-L12-v2"
TEXTS = ["An adult flea lives for two to three months.", "Ticks wait for a host for many months."]
QUERY = "how long does a flea live"

Route = collections.namedtuple("Route", "method path dialect body")

ROUTES = [
    Route("POST", "/v2/rerank", "cohere", {"model": "minilm", "query": QUERY, "documents": TEXTS}),
    Route("POST", "/cohere/v2/rerank", "cohere", {"model": "minilm", "query": QUERY, "documents": TEXTS}),
    Route(
        "POST",
        "/cohere/v1/rerank",
        "cohere",
        {"query": QUERY, "documents": [{"text": TEXTS[0]}, TEXTS[1]], "rank_fields": ["text"], "top_n": 2},
    ),
    Route("POST", "/v1/rerank", "cohere", {"query": QUERY, "documents": TEXTS, "return_documents": True}),
    Route(
        "POST",
        "/jina/v1/rerank",
        "jina",
        {"model": "minilm", "query": QUERY, "documents": [TEXTS[0], {"text": TEXTS[1]}], "top_n": 2},
    ),
    Route("POST", "/voyage/v1/rerank", "voyage", {"query": QUERY, "documents": TEXTS, "top_k": 2}),
    Route("POST", "/rerank", "tei", {"query": QUERY, "texts": TEXTS, "raw_scores": True}),
    Route("POST", "/tei/rerank", "tei", {"query": QUERY, "texts": TEXTS, "return_text": True}),
    Route("POST", "/embed", "tei", {"inputs": TEXTS, "truncate": True}),
    Route("POST", "/tei/embed", "tei", {"inputs": TEXTS[0], "prompt_name": "query"}),
    Route("POST", "/vllm/rerank", "vllm", {"query": QUERY, "documents": TEXTS, "top_n": 1}),
    Route("POST", "/vllm/v1/rerank", "vllm", {"query": QUERY, "documents": TEXTS, "raw_scores": True}),
    Route("POST", "/vllm/v2/rerank", "vllm", {"query": QUERY, "documents": TEXTS}),
    Route("POST", "/score", "vllm", {"text_1": QUERY, "text_2": TEXTS}),
    Route("POST", "/v1/score", "vllm", {"queries": [QUERY, QUERY], "documents": TEXTS}),
    Route("POST", "/vllm/score", "vllm", {"text_1": QUERY, "text_2": TEXTS[0]}),
    Route("POST", "/vllm/v1/score", "vllm", {"text_1": QUERY, "text_2": TEXTS}),
    Route("POST", "/v1/embeddings", "openai", {"input": TEXTS, "encoding_format": "base64"}),
    Route("POST", "/openai/v1/embeddings", "openai", {"input": TEXTS[0], "input_type": "query"}),
    Route(
        "POST",
        "/topshelf/v1/rerank",
        "native",
        {"query": QUERY, "documents": [TEXTS[0], {"title": "Ticks", "text": TEXTS[1]}], "top_n": 2, "blend": 0.5},
    ),
    Route(
        "POST",
        "/v1/search",
        "native",
        {
            "query": QUERY,
            "retriever": "hybrid",
            "fusion": "rrf",
            "rrf_k": 60.0,
            "depth": 3,
            "top_n": 2,
            "filter": "lang = en OR year > 2000",
            "prompt": {"budget": 100, "template": "{{ question }}", "near_duplicate": 0.8},
            "gate": "none",
        },
    ),
    Route(
        "POST",
        "/v1/context",
        "native",
        {
            "query": QUERY,
            "passages": [{"text": TEXTS[0], "headings": ["Fleas"]}, {"id": "b", "text": TEXTS[1]}],
            "prompt": {"budget": 100, "system": "Answer.", "near_duplicate": 0.8},
        },
    ),
    Route(
        "POST",
        "/v1/documents",
        "native",
        {"documents": [{"id": "x", "text": "A mite.", "metadata": {"year": 2001}}]},
    ),
    Route("DELETE", "/v1/documents", "native", {"ids": ["x"]}),
    Route("POST", "/v1/index/reload", "native", None),
    Route("GET", "/v1/index", "native", None),
    Route("GET", "/v1/models", "native", None),
    Route("GET", "/info", "tei", None),
    Route("GET", "/tei/info", "tei", None),
    Route("GET", "/metrics", "native", None),
    Route("GET", "/healthz", "native", None),
    Route("GET", "/readyz", "native", None),
    Route("GET", "/openapi.json", "native", None),
    Route("GET", "/docs", "native", None),
    Route("GET", "/", "native", None),
]
# Nobody is asked for a key there.
OPEN = {"/", "/docs", "/openapi.json", "/healthz", "/readyz"}
WITH_BODY = [route for route in ROUTES if route.body is not None]
RERANK = ROUTES[0]


def is_shape(dialect, body):
    """Whether these bytes are an error as that vendor writes it: these keys, and no others."""
    try:
        told = json.loads(body)
    except ValueError:
        return False
    if not isinstance(told, dict):
        return False

    def text(value):
        return isinstance(value, str) and value != ""

    if dialect == "cohere":
        return set(told) == {"message"} and text(told["message"])
    if dialect in ("jina", "voyage"):
        return set(told) == {"detail"} and text(told["detail"])
    if dialect == "tei":
        return set(told) == {"error", "error_type"} and text(told["error"]) and text(told["error_type"])
    own = told.get("error")
    if set(told) != {"error"} or not isinstance(own, dict) or not text(own.get("message")):
        return False
    if dialect in ("vllm", "openai"):
        return set(own) == {"message", "type", "param", "code"} and text(own["type"])
    return set(own) in ({"type", "message"}, {"type", "message", "field"}) and text(own["type"])


def expected(dialect, kind):
    """The status of a fault in a dialect: see the tables in error.rs and in the dialects' own files."""
    faults = {
        "not json": {"tei": 422},
        "wrong type": {"vllm": 400, "openai": 400, None: 422},
        "too large": {"vllm": 400, None: 413},
    }[kind]
    return faults.get(dialect, faults.get(None, 400))
