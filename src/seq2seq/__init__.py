"""Encoder-decoder training with PyTorch Lightning and Hydra; read `seq2seq.nn.state` first."""
