"""What scorers and selectors ask of models and word lists: languages, WordNet."""
