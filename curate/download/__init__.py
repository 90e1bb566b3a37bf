"""A pool's metadata from the Hub, and its pictures from their urls.

- options: what the command takes; run: metadata, shards, report
- metadata: the pool's files from the Hub
- processes: shards in processes of their own; images: one shard, of some rows of the metadata
- web: urls to bytes; resize: bytes to a picture as the pool's are
- arrived: what share of the pool is there, and its uids
"""
