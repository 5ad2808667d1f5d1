"""Frames in and out: files, folders, cameras, arrays; sampling; encoding."""
