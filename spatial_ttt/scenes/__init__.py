"""Scenes: types, readers, procedural homes, rendering, descriptions, questions. Imports no torch."""
