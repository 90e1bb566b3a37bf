"""Pictures and captions that people have, as the shards and the metadata of a pool.

- options: what the command takes; run: a packing from its first step to its report
- layouts: where the pictures and captions of a source are; guess: what is said of that, and what it looks like
- rows: pictures with captions that a table, COCO's file or pairs of files name, kept in the order of the shards
- embedded: parquet files that hold the pictures themselves
- plan: what is packed, which rows are whose shard
- shard: one shard and its metadata
- duplicates: samples that an earlier shard has, too, taken out at the end
"""
