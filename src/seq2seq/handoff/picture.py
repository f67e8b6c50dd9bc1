"""The handoff as a picture: the encoder's steps, the rows of ``h_n``, and the decoder's layers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
from seq2seq.reporting.plots import new_figure, printable, save

LAYER_COLOURS = ("#4c78a8", "#e08a3c", "#59a14f", "#b07aa1", "#9c755f")
INK, PALE, RED = "#222222", "#e4e4e4", "#c0392b"

MAX_STEPS = 60
"""Maximum number of tokens of the sequence that is drawn; more would be unreadable."""

STATE_WIDTH, DECODER_WIDTH = 3.5, 2.6
HEIGHT = 0.84  # of a row's box, where rows are one apart


def shortened(token: str) -> str:
    """Return a token as it fits into a step's box.

    Example:
        >>> [shortened(token) for token in ("jeudi", "Donnerstag")]
        ['jeudi', 'Donne…']
    """
    return token if len(token) <= 6 else token[:5] + "…"


class _Drawing:
    """The parts of the picture. In the units of its axes, rows of ``h_n`` are one apart and the lowest is at 0."""

    def __init__(self, axes: Axes, measured: Verification, tokens: Sequence[str]) -> None:
        self.axes = axes
        self.tokens = [shortened(printable(token)) for token in tokens]
        self.steps = measured.steps
        steps, gaps = measured.places["h"]
        layers, self.directions = steps.shape[:2]
        self.rows = layers * self.directions
        self.h_n_rows = h_n_rows(layers, self.directions).tolist()
        letters = all(len(token) <= 2 for token in self.tokens)
        self.cell = 0.62 if letters and self.steps > 6 else 1.0  # width of a step
        self.state_x = self.steps * self.cell + 2.2
        self.decoder_x = self.state_x + STATE_WIDTH + 2.9
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
                self.box(self.state_x, row, STATE_WIDTH, HEIGHT, colour, colour)
                state = "h_n" if cell == "gru" else "h_n, c_n "
                name = f"{state}[{row}]  layer {layer} {DIRECTIONS[direction]}"
                self.text(self.state_x + STATE_WIDTH / 2, row + HEIGHT / 2, name, size=8.5, color="white")
        low = self.rows - self.directions - 0.07  # a frame around the only rows that output shows
        self.box(-0.07, low, self.steps * self.cell + 0.06, self.directions, "none", INK, linestyle="--")
        self.text(self.steps * self.cell + 0.1, low + 0.12, "output", ha="left", size=9, style="italic")

    def row_of_steps(self, row: int, layer: int, direction: int, colour: str) -> None:
        """Draw the steps of one layer and direction; that of its final state is filled."""
        end = self.ends[direction]
        arrow = "← backward" if direction else "forward →"
        self.text(-0.15, row + HEIGHT / 2, f"layer {layer} {arrow}", ha="right", size=9)
        for step in range(self.steps):
            real = step < len(self.tokens)
            face = colour if step == end else "white" if real else PALE
            hatch = None if real or step == end else "///"
            x, edge = step * self.cell, colour if real else PALE
            self.box(x, row, 0.92 * self.cell, HEIGHT, face, edge, hatch=hatch, linewidth=1.4)
            label, height = (self.tokens[step], HEIGHT / 2) if real else ("pad", 0.18)
            ink = "white" if step == end else INK if real else "#999999"
            self.text((step + 0.46) * self.cell, row + height, label, size=8 if self.cell == 1 else 6.5, color=ink)
        if end >= 0:
            start = ((end + 0.92) * self.cell, row + HEIGHT / 2 + (0.3 if direction else 0))
            self.arrow(start, (self.state_x, row + HEIGHT / 2), colour, bend=-0.3 / self.steps if direction else 0.0)

    def decoder(self) -> None:
        """Draw the decoder's layers, and an arrow from every row of ``h_n`` that reaches one."""
        for layer in range(len(self.reach)):
            y = self.decoder_y(layer)
            sources = self.reach[layer].any(-1).nonzero().flatten().tolist()
            colour = LAYER_COLOURS[sources[0] % len(LAYER_COLOURS)] if len(sources) == 1 else INK
            self.box(self.decoder_x, y, DECODER_WIDTH, 1, "white", colour, linewidth=2.2)
            self.text(self.decoder_x + DECODER_WIDTH / 2, y + 0.5, f"layer {layer}", size=10)
            for source, direction in self.reach[layer].nonzero().tolist():
                start = (self.state_x + STATE_WIDTH, self.h_n_rows[source][direction] + HEIGHT / 2)
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
        self.axes.text(x, y, text, **{"fontsize": size, "ha": ha, "va": "center", "color": INK} | style)

    def arrow(self, start: tuple[float, float], end: tuple[float, float], colour: str, bend: float = 0.0) -> None:
        """Draw an arrow."""
        curve, shape = f"arc3,rad={bend}", {"arrowstyle": "-|>", "mutation_scale": 11, "shrinkA": 1, "shrinkB": 1}
        self.axes.add_patch(FancyArrowPatch(start, end, connectionstyle=curve, color=colour, linewidth=1.5, **shape))


def handoff_picture(measured: Verification, settings: Mapping[str, Any], handoff: str, tokens: Sequence[str]) -> Figure:
    """Draw the first sequence of a padded batch on its way from encoder to decoder.

    Args:
        measured: What positions and arrows are drawn from.
        settings: The section ``model`` of the config.
        handoff: ``right``, or the mistake that is made on purpose.
        tokens: The tokens of the sequence.
    """
    cells = (settings["encoder"]["cell"], settings["decoder"]["cell"])
    figure = new_figure(1, 1)
    axes = figure.subplots()
    axes.axis("off")
    drawing = _Drawing(axes, measured, tokens)
    drawing.encoder(cells[0])
    drawing.decoder()
    label, colour = _label(measured, cells, settings["bridge"]), INK
    if handoff != RIGHT:
        label, colour = f"{handoff}, on purpose; {label}", RED
    bottom, top = min(0.0, drawing.decoder_y(0)) - 0.9, drawing.rows + 0.8
    middle = (drawing.state_x + STATE_WIDTH + drawing.decoder_x) / 2
    drawing.text(middle, bottom + 0.4, label, size=10.5, style="italic", color=colour)
    for x, title in (
        (drawing.steps * drawing.cell / 2, f"encoder ({cells[0].upper()}), one sequence of {len(tokens)} tokens"),
        (drawing.state_x + STATE_WIDTH / 2, "h_n and c_n" if cells[0] == "lstm" else "h_n"),
        (drawing.decoder_x + DECODER_WIDTH / 2, f"decoder ({cells[1].upper()}) starts from"),
    ):
        drawing.text(x, top - 0.4, title, size=11, fontweight="bold")
    width = drawing.decoder_x + DECODER_WIDTH + 2.9
    axes.set(xlim=(-2.1, width - 2.1), ylim=(bottom, top))
    figure.set_size_inches(0.62 * width, 0.62 * (top - bottom))
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
