"""The network: fast weights, hybrid decoder, vision; tensors only."""
