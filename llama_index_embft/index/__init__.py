"""Plugging a tuned model into an index that exists: whose vectors it holds, changing them, and changing the model."""
