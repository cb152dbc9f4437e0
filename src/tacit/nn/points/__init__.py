"""Clouds of points: sampling, grouping into tokens, and the networks that read them. Every set of points is ragged."""
