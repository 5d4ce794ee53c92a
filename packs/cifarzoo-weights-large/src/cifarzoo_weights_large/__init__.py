"""Weights for cifarzoo, which finds them through the entry point group cifarzoo.weights."""
