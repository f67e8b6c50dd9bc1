"""Run directories, files, error messages and sweeps. Loads no torch."""
