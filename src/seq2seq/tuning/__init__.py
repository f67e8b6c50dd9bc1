"""Tuning with Optuna: search spaces, pruning, and the study."""
