"""The benchmark. Only `seq2seq.commands.benchmark` imports it."""
