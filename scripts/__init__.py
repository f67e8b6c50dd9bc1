"""The scripts; a wheel installs them as commands, seq2seq-train and the like."""
