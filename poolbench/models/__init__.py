"""CLIP models: made, loaded and run, with all that their weights ask for."""
