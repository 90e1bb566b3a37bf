"""Which rows of a pool are kept: the filters, a module each, by their names (registry.py). docs/curate.md: add one."""
