"""Image-text shards (webdataset tars): where they lie, their samples and pictures, and the workers that read them."""
