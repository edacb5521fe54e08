"""Calling web APIs, of language and of embedding models: limits, failures, retries, connections; the ground floor."""
