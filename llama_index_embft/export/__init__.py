"""A saved result to where it is served from."""
