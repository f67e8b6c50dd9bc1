"""A graph with a fault that no shape shows."""

import onnx


def spoiled(content):
    """An encoder whose GRU has the wrong reset gate, or whose LSTM reads the padding."""
    graph = onnx.load_from_string(content)
    for node in graph.graph.node:
        if node.op_type == "GRU":  # what an exporter wrote for nn.GRU in pytorch/pytorch#189225
            next(one for one in node.attribute if one.name == "linear_before_reset").i = 0
        if node.op_type == "LSTM":  # without the lengths
            node.input[4] = ""
    return graph.SerializeToString()
