"""A server of streaming sessions and its clients."""
