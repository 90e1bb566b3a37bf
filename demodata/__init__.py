"""The embedded default: emoji under right and wrong names. Nothing but the default of data= knows it."""
