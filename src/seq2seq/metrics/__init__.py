"""Metrics over a whole corpus."""
