"""The handoff as a picture: the encoder's steps, the rows of ``h_n``, and the decoder's layers."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from seq2seq.data import PAD, SPECIALS, UNK
from seq2seq.handoff.mistakes import RIGHT
from seq2seq.handoff.verification import DIRECTIONS, EXACT, Verification, verify
from seq2seq.model import TrainedModel
from seq2seq.nn.bridge import BRIDGES
from seq2seq.nn.state import h_n_rows
from seq2seq.reporting.fonts import families, printable
from seq2seq.reporting.plots import new_figure, save

LAYER_COLOURS = ("#4c78a8", "#e08a3c", "#59a14f", "#b07aa1", "#9c755f")
INK, PALE, RED = "#222222", "#e4e4e4", "#c0392b"

MAX_STEPS = 60
"""Maximum number of tokens of the sequence that is drawn; more would be unreadable."""

HEIGHT = 0.72  # of a row's box, where rows are one apart; arrows run above it


class Layout(NamedTuple):
    """Sizes of the picture; widths are in units of the distance of two rows, which is ``inches`` long.

    Attributes:
        font: Maximum size of a text, in points.
        token: Maximum number of characters of a token.
        steps: Maximum number of steps; of more, the first two and the last few are drawn.
        brief: Whether labels are short.
    """

    inches: float
    label: float
    cell: float
    to_state: float
    state: float
    to_decoder: float
    decoder: float
    margin: float
    font: float
    token: int
    steps: int
    brief: bool


WIDE = Layout(0.62, 2.1, 1, 2.2, 3.5, 2.9, 2.6, 0.8, font=11, token=6, steps=1000, brief=False)
COMPACT = Layout(0.31, 1.9, 0.8, 1.5, 1.5, 1.1, 1.6, 0.1, font=8, token=3, steps=6, brief=True)
"""At most 3.9 inches wide, to be read on a phone."""


def shortened(token: str, size: int = 6) -> str:
    """Return a token as it fits into a step's box.

    Example:
        >>> [shortened(token) for token in ("jeudi", "Donnerstag")]
        ['jeudi', 'Donne…']
    """
    return token if len(token) <= size else token[: size - 1] + "…"


class _Drawing:
    """The parts of the picture. In the units of its axes, rows of ``h_n`` are one apart and the lowest is at 0."""

    def __init__(self, axes: Axes, measured: Verification, tokens: Sequence[str], layout: Layout) -> None:
        self.axes, self.layout = axes, layout
        self.fonts = families("".join(tokens))
        self.tokens = [shortened(printable(token), layout.token) for token in tokens]
        steps, gaps = measured.places["h"]
        layers, self.directions = steps.shape[:2]
        self.rows = layers * self.directions
        self.h_n_rows = h_n_rows(layers, self.directions).tolist()
        every = range(measured.steps)
        # The steps that are drawn, in order; those left out are a column of their own.
        self.columns: list[int | None] = [*every]
        if len(every) > layout.steps:
            self.columns[2 : 3 - layout.steps] = [None]
        letters = all(len(token) <= 2 for token in self.tokens)
        self.cell = 0.62 if letters and len(self.columns) > 6 else layout.cell  # width of a step
        self.steps_end = len(self.columns) * self.cell
        self.state_x = self.steps_end + layout.to_state
        self.decoder_x = self.state_x + layout.state + layout.to_decoder
        # Which states of the encoder reach which decoder layers, h and c together.
        self.reach = torch.stack(list(measured.reach.values())).any(0)  # (L', L, D)
        # Lower layers end where the top one does, but are not in output.
        self.ends = torch.where(gaps[-1, :, 0] <= EXACT, steps[-1, :, 0], -1).tolist()

    def encoder(self, cell: str) -> None:
        """Draw the steps of every layer and direction, and the rows of ``h_n`` that they end in."""
        for layer, rows in enumerate(self.h_n_rows):
            colour = LAYER_COLOURS[layer % len(LAYER_COLOURS)]
            for direction, row in enumerate(rows):
                self.row_of_steps(row, layer, direction, colour)
                self.box(self.state_x, row, self.layout.state, HEIGHT, colour, colour)
                state = "h_n" if cell == "gru" else "h_n, c_n "
                name = f"{state}[{row}]  layer {layer} {DIRECTIONS[direction]}"
                name = f"row {row}" if self.layout.brief else name
                self.text(self.state_x + self.layout.state / 2, row + HEIGHT / 2, name, size=8.5, color="white")
        low = self.rows - self.directions - 0.07  # a frame around the only rows that output shows
        self.box(-0.07, low, self.steps_end + 0.06, self.directions, "none", INK, linestyle="--", linewidth=1.2)
        self.text(self.steps_end + 0.1, low + 0.12, "output", ha="left", size=9, style="italic")

    def row_of_steps(self, row: int, layer: int, direction: int, colour: str) -> None:
        """Draw the steps of one layer and direction; that of its final state is filled."""
        end, middle = self.ends[direction], row + HEIGHT / 2
        arrow = ("→", "←") if self.layout.brief else ("forward →", "← backward")
        self.text(-0.2, middle, f"layer {layer} {arrow[direction]}", ha="right", size=9)
        for column, step in enumerate(self.columns):
            x = column * self.cell
            if step is None:
                self.text(x + 0.46 * self.cell, middle, "…", size=9)
                continue
            real = step < len(self.tokens)
            face = colour if step == end else "white" if real else PALE
            self.box(x, row, 0.92 * self.cell, HEIGHT, face, colour if real else PALE, linewidth=1)
            label = self.tokens[step] if real else "pad"
            ink = "white" if step == end else INK if real else "#777777"
            self.text(x + 0.46 * self.cell, middle, label, size=8, color=ink, family=self.fonts)
        if end >= 0:
            column = self.columns.index(end if end in self.columns else None)
            start = ((column + 0.92) * self.cell, middle)
            if column < len(self.columns) - 1:  # above the boxes that come after
                x, top, start = (column + 0.46) * self.cell, row + HEIGHT, (self.steps_end, row + HEIGHT + 0.12)
                self.axes.plot([x, x, start[0]], [top, start[1], start[1]], color=colour, linewidth=1.5)
            self.arrow(start, (self.state_x, middle), colour)

    def decoder(self) -> None:
        """Draw the decoder's layers, and an arrow from every row of ``h_n`` that reaches one."""
        for layer in range(len(self.reach)):
            y, width = self.decoder_y(layer), self.layout.decoder
            sources = self.reach[layer].any(-1).nonzero().flatten().tolist()
            colour = LAYER_COLOURS[sources[0] % len(LAYER_COLOURS)] if len(sources) == 1 else INK
            self.box(self.decoder_x, y, width, 1, "white", colour, linewidth=2.2)
            self.text(self.decoder_x + width / 2, y + 0.5, f"layer {layer}", size=10)
            for source, direction in self.reach[layer].nonzero().tolist():
                start = (self.state_x + self.layout.state, self.h_n_rows[source][direction] + HEIGHT / 2)
                self.arrow(start, (self.decoder_x, y + 0.5), LAYER_COLOURS[source % len(LAYER_COLOURS)])

    def decoder_y(self, layer: int) -> float:
        """Return where a decoder layer's box begins: tops are aligned, and each takes the height of its rows."""
        spacing = max(self.directions, 1.25)
        return self.rows - (len(self.reach) - layer) * spacing + (spacing - 0.16 - 1) / 2

    def box(self, x: float, y: float, width: float, height: float, face: str, edge: str, **style: Any) -> None:  # noqa: ANN401
        """Draw a rectangle."""
        style = {"facecolor": face, "edgecolor": edge, "linewidth": 1.6} | style
        self.axes.add_patch(Rectangle((x, y), width, height, **style))

    def text(self, x: float, y: float, text: str, size: float, ha: str = "center", **style: Any) -> None:  # noqa: ANN401
        """Write text around a point."""
        size = min(size, self.layout.font)
        self.axes.text(x, y, text, **{"fontsize": size, "ha": ha, "va": "center", "color": INK} | style)

    def arrow(self, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
        """Draw an arrow."""
        shape = {"arrowstyle": "-|>", "mutation_scale": 11, "shrinkA": 0, "shrinkB": 1}
        self.axes.add_patch(FancyArrowPatch(start, end, color=colour, linewidth=1.5, **shape))


def handoff_picture(
    measured: Verification, settings: Mapping[str, Any], handoff: str, tokens: Sequence[str], layout: Layout = WIDE
) -> Figure:
    """Draw the first sequence of a padded batch on its way from encoder to decoder.

    Args:
        measured: What positions and arrows are drawn from.
        settings: The section ``model`` of the config.
        handoff: ``right``, or the mistake that is made on purpose.
        tokens: The tokens of the sequence.
        layout: The sizes.
    """
    cells = (settings["encoder"]["cell"], settings["decoder"]["cell"])
    figure = new_figure(1, 1)
    axes = figure.subplots()
    axes.axis("off")
    drawing = _Drawing(axes, measured, tokens, layout)
    drawing.encoder(cells[0])
    drawing.decoder()
    label, colour = _label(measured, cells, settings["bridge"]), INK
    if handoff != RIGHT:
        label, colour = f"{handoff}, on purpose; {label}", RED
    left, right = -layout.label, drawing.decoder_x + layout.decoder + layout.margin
    bottom, top = min(0.0, drawing.decoder_y(0)) - 0.9, drawing.rows + 0.8
    encoder, decoder = (cell.upper() for cell in cells)
    state = "h_n, c_n" if encoder == "LSTM" else "h_n"
    tokens_read = f"{len(tokens)} token{'s' * (len(tokens) != 1)}"
    titles = [f"encoder ({encoder}), one sequence of {tokens_read}", state, f"decoder ({decoder}), initial state"]
    if layout.brief:
        titles, label = [f"encoder, {tokens_read}", state, "decoder"], textwrap.fill(label, 60)
        bottom -= 0.6 * label.count("\n")
    middles = [drawing.steps_end, 2 * drawing.state_x + layout.state, 2 * drawing.decoder_x + layout.decoder]
    for middle, title in zip(middles, titles, strict=True):
        drawing.text(middle / 2, top - 0.4, title, size=11, fontweight="bold")
    middle = (left + right) / 2 if layout.brief else (drawing.state_x + layout.state + drawing.decoder_x) / 2
    drawing.text(middle, bottom + 0.4 + 0.3 * label.count("\n"), label, size=10.5, style="italic", color=colour)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    figure.set_size_inches(layout.inches * (right - left), layout.inches * (top - bottom))
    return figure


def draw_handoff(path: Path, trained: TrainedModel) -> None:
    """Draw the handoff of a trained model, on the first three symbols of its vocabulary."""
    vocabulary = trained.tokenizers.source.vocabulary
    ids = torch.tensor([*range(len(SPECIALS), len(vocabulary)), *[UNK] * 5][:5])
    lengths = torch.tensor([3, 5])
    source = ids.expand(2, 5).masked_fill(torch.arange(5) >= lengths.unsqueeze(1), PAD)
    measured, settings = verify(trained.model, source, lengths), trained.settings
    tokens = vocabulary.tokens(ids[:3].tolist())
    save(handoff_picture(measured, settings["model"], settings["handoff"], tokens), path)


def _label(measured: Verification, cells: tuple[str, str], bridge: str) -> str:
    """Name the bridge, and say what happens to an LSTM's cell that only one side has."""
    label = f"bridge: {bridge}"
    if measured.of_output:
        label += ", which gets output instead of h_n"
    elif not any(sizes.any() for sizes in measured.reach.values()):
        label += ", nothing is handed over"
    if cells == ("lstm", "gru"):
        return label + "; c_n is left behind"
    if cells == ("gru", "lstm") and BRIDGES[bridge].reads != "nothing":
        return label + ("; the cell is made from h_n" if BRIDGES[bridge].has_weights else "; the cell starts at zero")
    return label
