"""Processes that do one job together: how they meet, and how each hears of the end of another."""
