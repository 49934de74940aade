"""The vendors' SDKs at their newest, LiteLLM, LangChain's Voyage reranker, and plain HTTP.

Left out: langchain-community's `JinaRerank` (0.4.2), whose address is a constant; its
`InfinityRerank`, which wants a client that is generated for one server.
"""

import asyncio
import contextlib
import logging
import math

import cohere
import huggingface_hub
import langchain_voyageai
import litellm
import openai
import requests
import voyageai
from checks import NOBODY, case, main, near, raises, same
from langchain_core.documents import Document

KEY = "any"
EMBEDDER = "bge-small"
logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)  # it logs every error that it raises
litellm.suppress_debug_info = True
litellm.telemetry = False
litellm.num_retries = 0


def results(answer):
    """Indices and scores of an answer with attributes."""
    return [(result.index, result.relevance_score) for result in answer.results]


def parsed(answer):
    """Indices and scores of an answer with keys."""
    return [(result["index"], result["relevance_score"]) for result in answer.results]


# Cohere


def cohere_v2(given, **options):
    """Reranks with version 2 of Cohere's SDK."""
    options = {"model": "rerank-v3.5", "query": given.query, "documents": given.documents, **options}
    return cohere.ClientV2(KEY, base_url=given.url).rerank(**options)


def cohere_v1(given, **options):
    """Reranks with version 1."""
    options = {"model": "rerank-v3.5", "query": given.query, "documents": given.documents, **options}
    return cohere.Client(KEY, base_url=given.url).rerank(**options)


@case
def cohere_v2_reranks(given):
    answer = cohere_v2(given)
    same(given, results(answer))
    assert answer.id, "the answer has no id"
    assert answer.meta.api_version.version == "2", answer.meta
    assert answer.meta.billed_units.search_units == 1, answer.meta
    same(given, results(cohere_v2(given, top_n=2, max_tokens_per_doc=4096)), top=2)
    same(given, results(cohere_v2(given, top_n=100)))


@case
def cohere_v2_below_the_prefix(given):
    client = cohere.ClientV2(KEY, base_url=f"{given.url}/cohere")
    answer = client.rerank(model="rerank-v3.5", query=given.query, documents=given.documents)
    same(given, results(answer))


@case
def cohere_v2_asynchronously(given):
    async def ask():
        client = cohere.AsyncClientV2(KEY, base_url=given.url)
        request = {"model": "rerank-v3.5", "query": given.query, "documents": given.documents}
        return await asyncio.gather(*(client.rerank(**request) for _ in range(4)))

    for answer in asyncio.run(ask()):
        same(given, results(answer))


@case
def cohere_v2_errors(given):
    errors = cohere.errors
    raises(errors.NotFoundError, lambda: cohere_v2(given, model=NOBODY), 404, NOBODY)
    raises(errors.BadRequestError, lambda: cohere_v2(given, documents=[]), 400, "list of documents")
    raises(errors.BadRequestError, lambda: cohere_v2(given, query=" "), 400, "query")
    raises(errors.BadRequestError, lambda: cohere_v2(given, documents=["a", ""]), 400, "index 1")
    raises((errors.BadRequestError, errors.UnprocessableEntityError), lambda: cohere_v2(given, top_n=0))
    unknown = {"additional_body_parameters": {"top_k": 3}}
    raises(
        errors.UnprocessableEntityError,
        lambda: cohere_v2(given, request_options=unknown),
        422,
        "top_k",
    )


@case
def cohere_v1_reranks(given):
    answer = cohere_v1(given)
    same(given, results(answer))
    assert all(result.document is None for result in answer.results), "documents nobody asked for"
    assert answer.meta.api_version.version == "1", answer.meta
    same(given, results(cohere_v1(given, top_n=3, max_chunks_per_doc=10)), top=3)
    client = cohere.Client(KEY, base_url=given.url)
    same(given, results(client.rerank(query=given.query, documents=given.documents)))


@case
def cohere_v1_returns_documents(given):
    answer = cohere_v1(given, return_documents=True)
    same(given, results(answer))
    for result in answer.results:
        assert result.document.text == given.documents[result.index], result


@case
def cohere_v1_reads_objects(given):
    objects = [{"text": text, "source": f"{n}"} for n, text in enumerate(given.documents)]
    answer = cohere_v1(given, documents=objects, return_documents=True)
    same(given, results(answer))
    for result in answer.results:
        assert result.document.text == given.documents[result.index], result
        kept = dict(result.document).get("source") or result.document.model_extra.get("source")
        assert kept == f"{result.index}", f"other fields are not preserved: {result.document}"


@case
def cohere_v1_reads_the_rank_fields(given):
    same_text = "See the headline."
    objects = [{"headline": text, "text": same_text} for text in given.documents]
    answer = cohere_v1(given, documents=objects, rank_fields=["headline"])
    same(given, results(answer))
    answer = cohere_v1(given, documents=objects, rank_fields=["headline", "text"], top_n=1)
    assert answer.results[0].index == given.order[0], answer.results
    # Without them it is the text that is read, and the texts are all the same.
    scores = {score for _, score in results(cohere_v1(given, documents=objects))}
    assert len(scores) == 1, f"not by the text: {scores}"


@case
def cohere_v1_errors(given):
    errors = cohere.errors
    raises(errors.NotFoundError, lambda: cohere_v1(given, model=NOBODY), 404, NOBODY)
    raises(errors.BadRequestError, lambda: cohere_v1(given, documents=[]), 400, "list of documents")
    raises(errors.BadRequestError, lambda: cohere_v1(given, query=""), 400, "query")
    raises(errors.BadRequestError, lambda: cohere_v1(given, rank_fields=[]), 400, "rank_fields")


# Voyage


def voyage(given, path="/v1", **options):
    """Reranks with Voyage's SDK."""
    client = voyageai.Client(KEY, base_url=f"{given.url}{path}")
    return client.rerank(
        **{"query": given.query, "documents": given.documents, "model": "rerank-2.5", **options}
    )


@case
def voyage_reranks(given):
    for path in ("/v1", "/voyage/v1"):
        answer = voyage(given, path)
        same(given, results(answer))
        assert answer.total_tokens > 0, answer.total_tokens
        same(given, results(voyage(given, path, top_k=2)), top=2)
    same(given, results(voyage(given, truncation=False)))


@case
def voyage_asynchronously(given):
    client = voyageai.AsyncClient(KEY, base_url=f"{given.url}/v1")
    answer = asyncio.run(client.rerank(given.query, given.documents, "rerank-2.5"))
    same(given, results(answer))


@case
def voyage_errors(given):
    error = voyageai.error.InvalidRequestError
    raises(error, lambda: voyage(given, model=NOBODY), 400, NOBODY)
    raises(error, lambda: voyage(given, documents=[]), 400)
    raises(error, lambda: voyage(given, query=""), 400, "query")
    raises(error, lambda: voyage(given, documents=["word " * 5000], truncation=False), 400)
    malformed = voyageai.error.MalformedRequestError
    raises((malformed, error), lambda: voyage(given, top_k="two"))


@case
def langchain_voyage_reranks(given):
    documents = [Document(text, metadata={"n": n}) for n, text in enumerate(given.documents)]
    reranker = langchain_voyageai.VoyageAIRerank(
        model="rerank-2.5", api_key=KEY, base_url=f"{given.url}/v1", top_k=3
    )
    found = reranker.compress_documents(documents, given.query)
    pairs = [(document.metadata["n"], document.metadata["relevance_score"]) for document in found]
    same(given, pairs, top=3)
    found = asyncio.run(reranker.acompress_documents(documents, given.query))
    assert [document.metadata["n"] for document in found] == given.order[:3]


# LiteLLM


def lite(given, model, path="", **options):
    """Reranks with LiteLLM, the provider being the first word of the model."""
    options = {"query": given.query, "documents": given.documents, **options}
    return litellm.rerank(model=model, api_base=f"{given.url}{path}", api_key=KEY, **options)


def lite_reranks(given, model, path=""):
    """With all defaults, among which is that documents are returned; and with a part of them."""
    same(given, parsed(lite(given, model, path)))
    same(given, parsed(lite(given, model, path, top_n=2, return_documents=False)), top=2)


@case
def litellm_as_cohere(given):
    lite_reranks(given, "cohere/rerank-v3.5")


@case
def litellm_as_jina(given):
    # It replaces the path of the address: /v1/rerank whatever is given.
    model = "jina_ai/jina-reranker-v2-base-multilingual"
    lite_reranks(given, model)
    for result in lite(given, model).results:
        assert result["document"]["text"] == given.documents[result["index"]], result


@case
def litellm_as_voyage(given):
    # With its defaults nothing in its request is Voyage's own, so that the path has to say whose it is.
    lite_reranks(given, "voyage/rerank-2.5", "/voyage")
    for result in lite(given, "voyage/rerank-2.5", "/voyage").results:
        assert result["document"]["text"] == given.documents[result["index"]], result


@case
def litellm_as_infinity(given):
    # Its documents are plain strings where those of vLLM are objects, at the same path.
    lite_reranks(given, "infinity/minilm", "/infinity")
    for result in lite(given, "infinity/minilm", "/infinity").results:
        assert result["document"]["text"] == given.documents[result["index"]], result


@case
def litellm_as_vllm(given):
    for path in ("", "/vllm"):
        lite_reranks(given, "hosted_vllm/minilm", path)
    for result in lite(given, "hosted_vllm/minilm").results:
        assert result["document"]["text"] == given.documents[result["index"]], result


@case
def litellm_as_text_embeddings_inference(given):
    for path in ("", "/tei"):
        same(given, parsed(lite(given, "huggingface/minilm", path)))
    for result in lite(given, "huggingface/minilm").results:
        assert result["document"]["text"] == given.documents[result["index"]], result


@case
def litellm_asynchronously(given):
    options = {"query": given.query, "documents": given.documents, "api_base": given.url, "api_key": KEY}
    answer = asyncio.run(litellm.arerank(model="cohere/rerank-v3.5", **options))
    same(given, parsed(answer))


@case
def litellm_errors(given):
    missing, bad = litellm.NotFoundError, litellm.BadRequestError
    raises(missing, lambda: lite(given, f"cohere/{NOBODY}"), 404, NOBODY)
    raises(missing, lambda: lite(given, f"hosted_vllm/{NOBODY}"), 404, NOBODY)
    raises(bad, lambda: lite(given, "cohere/rerank-v3.5", documents=[]), 400)
    raises(bad, lambda: lite(given, "hosted_vllm/minilm", query=" "), 400)


@case
def litellm_embeds(given):
    options = {"api_base": f"{given.url}/v1", "api_key": KEY}
    answer = litellm.embedding(model=f"openai/{EMBEDDER}", input=given.documents, **options)
    expected = embedded(given).data
    for found, wanted in zip(answer.data, expected, strict=True):
        near(enumerate(found["embedding"]), list(enumerate(wanted.embedding)))


# OpenAI


def embedded(given, **options):
    """Embeds the documents with OpenAI's SDK."""
    client = openai.OpenAI(api_key=KEY, base_url=f"{given.url}/v1", max_retries=0)
    options = {"model": EMBEDDER, "input": given.documents, **options}
    return client.embeddings.create(**options)


@case
def openai_embeds(given):
    packed, plain = embedded(given), embedded(given, encoding_format="float")
    assert [vector.index for vector in packed.data] == list(range(len(given.documents)))
    for one, other in zip(packed.data, plain.data, strict=True):
        near(enumerate(one.embedding), list(enumerate(other.embedding)))
        length = math.sqrt(sum(x * x for x in one.embedding))
        assert len(one.embedding) == 384 and abs(length - 1) < 1e-3, length
    assert packed.usage.prompt_tokens > 0 and packed.model, packed.usage
    one = embedded(given, input=given.documents[0]).data
    near(enumerate(one[0].embedding), list(enumerate(packed.data[0].embedding)))


@case
def openai_lists_models(given):
    client = openai.OpenAI(api_key=KEY, base_url=f"{given.url}/v1", max_retries=0)
    names = [model.id for model in client.models.list()]
    assert any("bge-small" in name for name in names), names
    assert any("MiniLM" in name for name in names), names


@case
def openai_errors(given):
    raises(openai.NotFoundError, lambda: embedded(given, model=NOBODY), 404, NOBODY)
    raises(openai.BadRequestError, lambda: embedded(given, input=[]), 400)
    raises(openai.BadRequestError, lambda: embedded(given, input=""), 400)
    client = openai.OpenAI(api_key=KEY, base_url=f"{given.url}/v1", max_retries=0)
    messages = [{"role": "user", "content": "hello"}]
    chat = lambda: client.chat.completions.create(model="minilm", messages=messages)
    raises(openai.NotFoundError, chat, 404)


# Hugging Face


@case
def hugging_face_hub_embeds(given):
    for path in ("/embed", "/tei/embed"):
        client = huggingface_hub.InferenceClient(model=f"{given.url}{path}")
        vector = client.feature_extraction(given.documents[0], normalize=True)
        expected = embedded(given).data[0].embedding
        near(enumerate(vector.ravel().tolist()), list(enumerate(expected)))


# Keys


def drained(kind, call, status=429):
    """The key of one request a minute: whatever the first one gets, the second is refused."""
    with contextlib.suppress(Exception):
        call()
    raises(kind, call, status)


@case
def keys_of_cohere(given):
    def ask(key):
        client = cohere.ClientV2(key, base_url=given.keyed_url)
        request = {"model": "rerank-v3.5", "query": given.query, "documents": given.documents}
        return client.rerank(**request, request_options={"max_retries": 0})

    same(given, results(ask(given.key)))
    raises(cohere.errors.UnauthorizedError, lambda: ask("wrong"), 401, "invalid api token")
    drained(cohere.errors.TooManyRequestsError, lambda: ask(given.slow_key))


@case
def keys_of_voyage(given):
    def ask(key):
        client = voyageai.Client(key, base_url=f"{given.keyed_url}/voyage/v1")
        return client.rerank(given.query, given.documents, "rerank-2.5")

    same(given, results(ask(given.key)))
    raises(voyageai.error.AuthenticationError, lambda: ask("wrong"), 401)
    drained(voyageai.error.RateLimitError, lambda: ask(given.slow_key))


@case
def keys_of_openai(given):
    def ask(key):
        client = openai.OpenAI(api_key=key, base_url=f"{given.keyed_url}/v1", max_retries=0)
        return client.embeddings.create(model=EMBEDDER, input="a text")

    assert len(ask(given.key).data[0].embedding) == 384
    raises(openai.AuthenticationError, lambda: ask("wrong"), 401)
    drained(openai.RateLimitError, lambda: ask(given.slow_key))


@case
def keys_of_litellm(given):
    def ask(key):
        request = {"query": given.query, "documents": given.documents, "return_documents": None}
        return litellm.rerank("hosted_vllm/minilm", api_base=given.keyed_url, api_key=key, **request)

    same(given, parsed(ask(given.key)))
    raises(litellm.AuthenticationError, lambda: ask("wrong"), 401)
    drained(litellm.RateLimitError, lambda: ask(given.slow_key))


@case
def keys_by_http(given):
    asked = {"query": given.query, "documents": given.documents, "texts": given.documents, "model": "minilm"}
    for path in ("/rerank", "/tei/rerank", "/jina/v1/rerank", "/v1/rerank", "/topshelf/v1/rerank", "/score"):
        answer = requests.post(f"{given.keyed_url}{path}", json=asked, timeout=60)
        assert answer.status_code == 401, f"{path} without a key: {answer.status_code} {answer.text[:200]}"
    wrong = {"Authorization": "Bearer wrong"}
    answer = requests.post(f"{given.keyed_url}/jina/v1/rerank", json=asked, headers=wrong, timeout=60)
    assert answer.status_code == 401 and answer.json()["detail"], answer.text
    # Those that watch over it need no key.
    assert requests.get(f"{given.keyed_url}/healthz", timeout=60).status_code == 200


# Plain HTTP: servers that have no client of their own.


def post(given, path, status=200, **body):
    """The JSON of an answer that has the status."""
    answer = requests.post(f"{given.url}{path}", json=body, timeout=60)
    assert answer.status_code == status, f"{path}: {answer.status_code} {answer.text[:300]}"
    return answer.json()


@case
def text_embeddings_inference_by_http(given):
    for prefix in ("", "/tei"):
        asked = {"query": given.query, "texts": given.documents}
        found = post(given, f"{prefix}/rerank", **asked)
        same(given, [(item["index"], item["score"]) for item in found])
        assert "text" not in found[0], found[0]
        found = post(given, f"{prefix}/rerank", **asked, raw_scores=True, return_text=True, truncate=True)
        same(given, [(item["index"], item["score"]) for item in found], scores="logits")
        assert all(item["text"] == given.documents[item["index"]] for item in found), found
        said = post(given, f"{prefix}/rerank", status=400, query=given.query, texts=[])
        assert said["error_type"] == "Empty" and "empty" in said["error"], said
        said = post(given, f"{prefix}/rerank", status=422, query=given.query)
        vectors = post(given, f"{prefix}/embed", inputs=given.documents)
        assert [len(vector) for vector in vectors] == [384] * len(given.documents)
        info = requests.get(f"{given.url}{prefix}/info", timeout=60).json()
        assert info["model_id"] and info["version"] and info["max_input_length"], info


@case
def vllm_by_http(given):
    for path in ("/score", "/v1/score", "/vllm/score"):
        answer = post(given, path, model="minilm", text_1=given.query, text_2=given.documents)
        found = [(item["index"], item["score"]) for item in answer["data"]]
        assert [index for index, _ in found] == list(range(len(given.documents))), found
        near(found, list(enumerate(given.relevance)))
        assert answer["object"] == "list" and answer["data"][0]["object"] == "score", answer
    answer = post(given, "/score", model="minilm", queries=given.query, documents=given.documents[1])
    near([(1, answer["data"][0]["score"])], [(1, given.relevance[1])])
    asked = {"model": "minilm", "query": given.query, "documents": given.documents, "use_activation": False}
    for path in ("/rerank", "/vllm/rerank", "/vllm/v1/rerank", "/vllm/v2/rerank"):
        answer = post(given, path, **asked)
        found = [(item["index"], item["relevance_score"]) for item in answer["results"]]
        same(given, found, scores="logits")
        assert answer["results"][0]["document"]["text"] == given.documents[given.order[0]], answer
        assert answer["usage"]["total_tokens"] > 0, answer["usage"]
    said = post(given, "/score", status=404, model=NOBODY, text_1="a", text_2="b")
    assert said["error"]["code"] == 404 and NOBODY in said["error"]["message"], said


@case
def jina_by_http(given):
    asked = {
        "model": "jina-reranker-v2-base-multilingual",
        "query": given.query,
        "documents": given.documents,
    }
    for path in ("/jina/v1/rerank", "/v1/rerank"):
        # A field that only Jina has tells whose request it is where the path does not.
        answer = post(given, path, **asked, top_n=3, return_documents=True, max_doc_length=1024)
        found = [(item["index"], item["relevance_score"]) for item in answer["results"]]
        same(given, found, top=3)
        assert answer["usage"]["total_tokens"] > 0 and answer["object"] == "list", answer
        assert answer["results"][0]["document"]["text"] == given.documents[given.order[0]], answer
    answer = post(given, "/jina/v1/rerank", **asked)
    assert answer["results"][0]["document"]["text"], "Jina returns documents unless told not to"
    answer = post(given, "/jina/v1/rerank", **asked, return_documents=False)
    assert "document" not in answer["results"][0], answer["results"][0]
    said = post(given, "/jina/v1/rerank", status=400, **{**asked, "model": NOBODY})
    assert NOBODY in said["detail"], said


if __name__ == "__main__":
    main()
