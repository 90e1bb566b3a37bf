"""A pool's metadata from the Hub, and its pictures from their urls."""
