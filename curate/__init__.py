"""From a pool to the samples that are trained on: filters, scores, resharding, and the embedded demo pool."""
