"""The configs; in a wheel, Hydra finds them as this package."""
