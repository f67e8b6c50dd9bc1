"""Run directories, files, errors and sweeps; loads no torch."""
