"""The evaluation tasks: what they are, where their data come from, how the data are read."""
