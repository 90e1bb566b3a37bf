"""Training pictures that show evaluation pictures: hashes of both, what lies how near, and the page; docs/audits.md."""
