"""Training: packed data, parameter groups, FSDP, the trainer."""
