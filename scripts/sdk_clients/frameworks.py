"""Integrations that pin older SDKs: LangChain's Cohere reranker, LlamaIndex's postprocessors."""

import cohere
import voyageai
from checks import NOBODY, case, main, raises, same
from langchain_cohere import CohereRerank as LangChainCohere
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank
from llama_index.postprocessor.jinaai_rerank import JinaRerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference
from llama_index.postprocessor.voyageai_rerank import VoyageAIRerank

KEY = "any"


def nodes(given):
    """The documents as LlamaIndex has them, under their places as ids."""
    texts = enumerate(given.documents)
    return [NodeWithScore(node=TextNode(id_=f"{n}", text=text), score=0.0) for n, text in texts]


def ranked(given, postprocessor):
    """Places and scores of what a postprocessor answers."""
    found = postprocessor.postprocess_nodes(nodes(given), query_str=given.query)
    return [(int(node.node.node_id), node.score) for node in found]


@case
def cohere_5_reranks(given):
    asked = {"model": "rerank-v3.5", "query": given.query, "documents": given.documents}
    for client in (cohere.ClientV2, cohere.Client):
        answer = client(KEY, base_url=given.url).rerank(**asked)
        same(given, [(result.index, result.relevance_score) for result in answer.results])
        wrong = {**asked, "model": NOBODY}
        call = lambda client=client, wrong=wrong: client(KEY, base_url=given.url).rerank(**wrong)
        raises(cohere.errors.NotFoundError, call, 404, NOBODY)
    # What this version still offers in version 2 of the interface, newer ones do not.
    answer = cohere.Client(KEY, base_url=given.url).rerank(**asked, return_documents=True)
    assert all(result.document.text == given.documents[result.index] for result in answer.results)


@case
def voyage_0_3_reranks(given):
    client = voyageai.Client(KEY, base_url=f"{given.url}/v1")
    answer = client.rerank(given.query, given.documents, "rerank-2.5", top_k=4)
    same(given, [(result.index, result.relevance_score) for result in answer.results], top=4)


@case
def langchain_cohere_reranks(given):
    documents = [Document(text, metadata={"n": n}) for n, text in enumerate(given.documents)]
    reranker = LangChainCohere(model="rerank-v3.5", cohere_api_key=KEY, base_url=given.url, top_n=3)
    found = reranker.compress_documents(documents, given.query)
    pairs = [(document.metadata["n"], document.metadata["relevance_score"]) for document in found]
    same(given, pairs, top=3)
    found = reranker.rerank(documents, given.query, top_n=None, max_tokens_per_doc=4000)
    same(given, [(result["index"], result["relevance_score"]) for result in found])
    objects = [{"title": text, "rest": "nothing"} for text in given.documents]
    found = reranker.rerank(objects, given.query, rank_fields=["title"], top_n=1)
    assert found[0]["index"] == given.order[0], found
    wrong = LangChainCohere(model=NOBODY, cohere_api_key=KEY, base_url=given.url)
    raises(cohere.errors.NotFoundError, lambda: wrong.rerank(documents, given.query), 404, NOBODY)


@case
def llama_index_cohere_reranks(given):
    options = {"model": "rerank-v3.5", "api_key": KEY, "base_url": given.url}
    same(given, ranked(given, CohereRerank(top_n=3, **options)), top=3)


@case
def llama_index_jina_reranks(given):
    for path in ("/v1", "/jina/v1"):
        options = {
            "model": "jina-reranker-v2-base-multilingual",
            "api_key": KEY,
            "base_url": f"{given.url}{path}",
        }
        same(given, ranked(given, JinaRerank(top_n=4, **options)), top=4)
    # It reads what is wrong from `detail`.
    wrong = JinaRerank(model=NOBODY, api_key=KEY, base_url=f"{given.url}/jina/v1")
    raises(RuntimeError, lambda: ranked(given, wrong), word=NOBODY)


@case
def llama_index_voyage_reranks(given):
    # Version 0.6.0 has no option for the address: its client is replaced.
    reranker = VoyageAIRerank(model="rerank-2.5", api_key=KEY, top_n=2)
    reranker._client = voyageai.Client(KEY, base_url=f"{given.url}/v1")
    same(given, ranked(given, reranker), top=2)


@case
def llama_index_text_embeddings_inference_reranks(given):
    for path in ("", "/tei"):
        reranker = TextEmbeddingInference(base_url=f"{given.url}{path}", top_n=5)
        same(given, ranked(given, reranker), top=5)


if __name__ == "__main__":
    main()
