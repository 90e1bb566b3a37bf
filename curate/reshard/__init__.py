"""Copy chosen samples from shards to shards: find them, plan where they go, copy their bytes."""
