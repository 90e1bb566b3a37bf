"""What `python -m curate.inspect` finds out about a subset, and the page that shows it."""
