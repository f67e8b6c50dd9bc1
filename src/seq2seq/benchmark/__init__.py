"""The benchmark: what is timed, how, and compared with what. Only `seq2seq.commands.benchmark` uses it."""
