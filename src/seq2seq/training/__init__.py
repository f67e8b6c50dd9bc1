"""The LightningModule, its callbacks and checkpoints, and what builds them from a config."""
