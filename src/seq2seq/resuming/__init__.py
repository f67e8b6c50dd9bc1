"""A run that stops anywhere and is started again ends like one that never stopped, bit for bit.

Only `seq2seq.commands` and ``configs/callbacks`` name this package; training works without it.
"""
