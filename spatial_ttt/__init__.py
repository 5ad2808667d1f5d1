"""Streaming spatial memory: a video language model that writes what it sees into fast weights."""

__version__ = "0.1.0"
