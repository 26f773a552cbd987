"""Datasets, training and scores."""
