"""Configuration: models, and the loading of files, environment and flags."""
