"""Tools for checking this package: golden vectors, small checkpoints."""
