"""The handoff as a picture: the encoder's steps, the rows of ``h_n``, and the decoder's layers."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from seq2seq.handoff import Handoff
from seq2seq.nn.bridge import WEIGHTED
from seq2seq.plots import new_figure

LAYER_COLOURS = ("#4c78a8", "#e08a3c", "#59a14f", "#b07aa1", "#9c755f")
INK, PALE = "#222222", "#e4e4e4"
CELL, ROW = 1.0, 1.0  # width of a step and height of a row, in units of the axes
STATE_X, STATE_WIDTH = 7.2, 3.5
DECODER_X, DECODER_WIDTH = 13.6, 2.6


def handoff_picture(measured: Handoff, cells: tuple[str, str], bridge: str) -> Figure:
    """Draw one padded row on its way from encoder to decoder.

    Args:
        measured: Positions and arrows are drawn from it, not from what they should be.
        cells: Of encoder and decoder.
        bridge: Its name.
    """
    layers, directions = measured.places.shape
    rows = layers * directions
    bottom = min(0.0, _decoder_y(0, measured.reach.size(0), rows, directions)) - 0.9
    figure = new_figure(11.5, 0.62 * (rows + 1.0 - bottom))
    axes = figure.subplots()
    axes.axis("off")
    for row in range(rows):
        layer, direction = divmod(row, directions)
        _draw_steps(axes, row, layer, direction, measured)
        _draw_state_row(axes, row, layer, direction, cells[0])
    _draw_output_bracket(axes, rows, directions, measured.steps)
    _draw_decoder(axes, rows, directions, measured)
    middle = (STATE_X + STATE_WIDTH + DECODER_X) / 2
    label = _bridge_label(measured, cells, bridge)
    axes.text(middle, bottom + 0.3, label, ha="center", fontsize=10.5, style="italic", color=INK)
    top = rows * ROW + 0.45
    _title(axes, measured.steps / 2, top, f"encoder ({cells[0].upper()}), one row of {measured.length} tokens")
    _title(axes, STATE_X + STATE_WIDTH / 2, top, "h_n" + (" and c_n" if cells[0] == "lstm" else ""))
    _title(axes, DECODER_X + DECODER_WIDTH / 2, top, f"decoder ({cells[1].upper()}) starts from")
    axes.set_xlim(-2.1, DECODER_X + DECODER_WIDTH + 0.2)
    axes.set_ylim(bottom, rows * ROW + 1.0)
    return figure


def _title(axes: Axes, x: float, y: float, text: str) -> None:
    axes.text(x, y, text, ha="center", fontsize=11, fontweight="bold", color=INK)


def _draw_steps(axes: Axes, row: int, layer: int, direction: int, measured: Handoff) -> None:
    """Draw the steps of one layer and direction, the one that is its final state filled."""
    colour = LAYER_COLOURS[layer % len(LAYER_COLOURS)]
    final = int(measured.places[-1, direction])  # lower layers end where the top one does, but output does not show it
    arrow = "forward →" if direction == 0 else "← backward"
    axes.text(-0.15, row * ROW + 0.42, f"layer {layer} {arrow}", ha="right", va="center", fontsize=9, color=INK)
    for step in range(measured.steps):
        real = step < measured.length
        face = colour if step == final else "white" if real else PALE
        box = Rectangle(
            (step * CELL, row * ROW), 0.92 * CELL, 0.84 * ROW, facecolor=face, edgecolor=colour if real else PALE,
            linewidth=1.4, hatch=None if real else "///",
        )  # fmt: skip
        axes.add_patch(box)
        label = f"t={step}" if real else "pad"
        ink = "white" if step == final else "#999999" if not real else INK
        axes.text(
            (step + 0.46) * CELL,
            row * ROW + (0.42 if real else 0.18),
            label,
            ha="center",
            va="center",
            fontsize=8,
            color=ink,
        )
    start = ((final + 0.92) * CELL, row * ROW + 0.42 + (0.3 if direction else 0))
    _arrow(axes, start, (STATE_X, row * ROW + 0.42), colour, bend=-0.06 if direction else 0.0)


def _draw_state_row(axes: Axes, row: int, layer: int, direction: int, cell: str) -> None:
    colour = LAYER_COLOURS[layer % len(LAYER_COLOURS)]
    axes.add_patch(Rectangle((STATE_X, row * ROW), STATE_WIDTH, 0.84 * ROW, facecolor=colour, edgecolor=colour))
    name = f"[{row}]  layer {layer} {'backward' if direction else 'forward'}"
    text = f"h_n{name}" if cell == "gru" else f"h_n, c_n {name}"
    axes.text(STATE_X + STATE_WIDTH / 2, row * ROW + 0.42, text, ha="center", va="center", fontsize=8.5, color="white")


def _draw_output_bracket(axes: Axes, rows: int, directions: int, steps: int) -> None:
    """Frame the only rows that ``output`` shows."""
    low = (rows - directions) * ROW - 0.07
    frame = Rectangle(
        (-0.07, low), steps * CELL + 0.06, directions * ROW, fill=False, edgecolor=INK, linewidth=1.6, linestyle="--"
    )
    axes.add_patch(frame)
    axes.text(steps * CELL + 0.1, low + 0.03, "output", ha="left", va="bottom", fontsize=9, style="italic", color=INK)


def _draw_decoder(axes: Axes, rows: int, directions: int, measured: Handoff) -> None:
    count = measured.reach.size(0)
    for layer in range(count):
        y = _decoder_y(layer, count, rows, directions)
        sources = measured.reach[layer].any(-1).nonzero().flatten().tolist()
        colour = LAYER_COLOURS[sources[0] % len(LAYER_COLOURS)] if len(sources) == 1 else INK
        box = Rectangle((DECODER_X, y), DECODER_WIDTH, ROW, facecolor="white", edgecolor=colour, linewidth=2.2)
        axes.add_patch(box)
        centre = DECODER_X + DECODER_WIDTH / 2
        axes.text(centre, y + ROW / 2, f"layer {layer}", ha="center", va="center", fontsize=10, color=INK)
        for source, direction in measured.reach[layer].nonzero().tolist():
            row = source * directions + direction
            start = (STATE_X + STATE_WIDTH, row * ROW + 0.42)
            _arrow(axes, start, (DECODER_X, y + ROW / 2), LAYER_COLOURS[source % len(LAYER_COLOURS)])


def _bridge_label(measured: Handoff, cells: tuple[str, str], bridge: str) -> str:
    """Name the bridge, and say what becomes of an LSTM's cell that only one side has."""
    label = f"bridge: {bridge}" if measured.reach.any() else f"bridge: {bridge}, nothing is handed over"
    if cells == ("lstm", "gru"):
        return label + "; c_n is left behind"
    if cells == ("gru", "lstm") and bridge not in ("learned", "zeros"):
        return label + ("; the cell is made from h_n" if bridge in WEIGHTED else "; the cell starts at zero")
    return label


def _decoder_y(layer: int, count: int, rows: int, directions: int) -> float:
    """Return where a decoder layer's box begins: tops are aligned, and each layer takes the height of its rows."""
    spacing = max(directions, 1.25) * ROW
    return rows * ROW - (count - layer) * spacing + (spacing - 0.16 - ROW) / 2


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, bend: float = 0.0) -> None:
    arrow = FancyArrowPatch(
        start, end, arrowstyle="-|>", mutation_scale=11, color=colour, linewidth=1.5, shrinkA=1, shrinkB=1,
        connectionstyle=f"arc3,rad={bend}",
    )  # fmt: skip
    axes.add_patch(arrow)
