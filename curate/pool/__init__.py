"""A pool: its files, columns, and the passes over them."""
