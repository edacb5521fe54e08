"""Score embedding models and retrievers, and say honestly which is better."""
