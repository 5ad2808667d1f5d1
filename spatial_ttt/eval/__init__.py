"""Evaluation: benchmarks, scores, controls and reports."""
