"""Synthetic clips that stand in for recordings that cannot be shipped."""
