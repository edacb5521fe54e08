"""The ground floor: texts to vectors, each text once, and saved results back to embedding models."""
