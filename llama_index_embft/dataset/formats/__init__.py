"""Other people's formats: one file a family, and a registry of them; see `registry`."""
