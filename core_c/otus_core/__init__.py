"""The C core's Python side: thin and typed, no policy."""
