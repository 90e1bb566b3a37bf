"""Train CLIP with a pinned recipe: recipe -> model, data stream, step, loop, checkpoint."""
