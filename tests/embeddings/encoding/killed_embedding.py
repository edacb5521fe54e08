"""Embeds texts through a hosted model until it is killed: ``python killed_embedding.py API_BASE CACHE N``."""

from __future__ import annotations

import sys

from llama_index.embeddings.openai import OpenAIEmbedding

from llama_index_embft.embeddings import EmbeddingCache, as_encoder


def main() -> None:
    api_base, path, count = sys.argv[1:]
    model = OpenAIEmbedding(
        model_name="m", api_base=api_base, api_key="none", embed_batch_size=4, num_workers=2, dimensions=8
    )
    cache = EmbeddingCache(path)
    vectors = as_encoder(model, cache=cache).encode_documents([f"text number {n}" for n in range(int(count))])
    sys.stdout.write(f"{vectors.shape}\n")


if __name__ == "__main__":
    main()
