"""Image-text shards (webdataset tars): where they lie, their samples and pictures, and the workers that read them.

Python's `tarfile` reads them, with headers of ours that raise where it would end in silence (`members`); webdataset's
`group_by_keys` makes the samples (`samples`), and its `TarWriter` writes shards (`writer`). docs/bad_data.md says what
is ours, and why.
"""
