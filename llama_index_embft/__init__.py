"""Fine-tune the embedding model behind a LlamaIndex retriever, and prove that it retrieves better."""
