"""What a selection does to groups of a pool's rows: who is in the training set, and who is out; docs/audits.md."""
