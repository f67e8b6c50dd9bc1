"""How a model is trained and evaluated: the LightningModule, its data and callbacks, and what builds them."""
