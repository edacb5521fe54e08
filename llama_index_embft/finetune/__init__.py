"""Engines: a data set and an embedding model in, a better embedding model out."""
