"""Break the handoff in every way we can think of, and see the suite notice: ``make mutants``.

Each mutant is one edit of the source, or a mistake of the gallery in the place of the encoder's call. It is applied to
a copy of the project, in which the tests of the network run until the first one fails. A mutant that survives is a hole
in the suite: the table shows it, and the exit code is 1.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from seq2seq.handoff.mistakes import MISTAKES

ROOT = Path(__file__).parents[1]
TESTS = (
    "tests/test_handoff.py",
    "tests/nn",
    "tests/decoding",
    "tests/handoff/test_verification.py",
)
LIMIT = 600  # seconds for a mutant; one that takes longer is neither killed nor alive, which fails, too


TIMED_OUT = "TIMED OUT"


class Mutant(NamedTuple):
    """An edit.

    Attributes:
        name: What it breaks.
        file: Below ``src/seq2seq``.
        old: Stands there exactly once.
        new: What takes its place.
    """

    name: str
    file: str
    old: str
    new: str


MUTANTS = [
    Mutant("layers and directions swapped in h_n", "nn/state.py",
           "part.unflatten(0, (rows // directions, directions)) for",
           "part.unflatten(0, (directions, rows // directions)).transpose(0, 1) for"),
    Mutant("layers and directions swapped on the way back", "nn/state.py",
           "h = self.h.flatten(0, 1).contiguous()", "h = self.h.transpose(0, 1).flatten(0, 1).contiguous()"),
    Mutant("forward and backward swapped", "nn/state.py",
           "part.unflatten(0, (rows // directions, directions)) for",
           "part.unflatten(0, (rows // directions, directions)).flip(1) for"),
    Mutant("c is h when a state is read", "nn/state.py",
           "for part in parts))", "for part in (parts[0],) * len(parts)))"),
    Mutant("rows of c not selected with those of h", "nn/state.py",
           "c=None if self.c is None else self.c.index_select(2, rows)", "c=self.c"),
    Mutant("rows of h not selected", "nn/state.py", "h=self.h.index_select(2, rows)", "h=self.h[:, :, : len(rows)]"),
    Mutant("packing skipped", "nn/encoder.py",
           "Packing.of(lengths, steps", "Packing.of(torch.full_like(lengths, steps), steps"),
    Mutant("lengths sorted, rows not put back", "nn/encoder.py",
           "Packing.of(lengths, steps", "Packing.of(lengths.sort(descending=True)[0], steps"),
    Mutant("mask shifted by one", "nn/encoder.py",
           "mask = torch.arange(steps) < lengths.unsqueeze(1)", "mask = torch.arange(steps) <= lengths.unsqueeze(1)"),
    Mutant("mask inverted on its way out", "nn/encoder.py", "mask.to(source.device))", "~mask.to(source.device))"),
    Mutant("outputs not padded to S", "nn/encoder.py",
           "Packing.of(lengths, steps", "Packing.of(lengths, int(lengths.max())"),
    Mutant("tokens put back one place too far", "nn/fast/packing.py",
           "index_copy(0, self.places,", "index_copy(0, (self.places + 1) % len(flat),"),
    Mutant("rows of the decoder's state not sorted as its tokens", "nn/decoders/decoder.py", "places.sort(state)", "state"),
    Mutant("rows that end take those that go on with them", "nn/fast/packing.py",
           "pieces.append(after[rows:])", "pieces.append(after[: len(after) - rows])"),
    Mutant("attention not masked", "nn/attention.py",
           "scores.masked_fill(~memory.mask.unsqueeze(1), -torch.inf)", "scores"),
    Mutant("attention masks real tokens", "nn/attention.py", "~memory.mask.unsqueeze(1)", "memory.mask.unsqueeze(1)"),
    Mutant("attention masked with a large number only", "nn/attention.py",
           "memory.mask.unsqueeze(1), -torch.inf)", "memory.mask.unsqueeze(1), -2.0)"),
    Mutant("heads not masked", "nn/attention.py",
           "scores.masked_fill(~memory.mask[:, None, None], -torch.inf)", "scores"),
    Mutant("layer offset one too low", "nn/bridge.py",
           "offset = encoder.num_layers - num_layers", "offset = encoder.num_layers - num_layers - 1"),
    Mutant("bottoms aligned instead of tops", "nn/bridge.py",
           "max(0, layer + offset) for", "min(layer, encoder.num_layers - 1) for"),
    Mutant("directions of a layer swapped", "nn/bridge.py",
           "layer.transpose(0, 1).flatten(1)", "layer.flip(0).transpose(0, 1).flatten(1)"),
    Mutant("directions mixed with the batch", "nn/bridge.py",
           "layer.transpose(0, 1).flatten(1)", "layer.reshape(layer.size(1), -1)"),
    Mutant("one direction only", "nn/bridge.py",
           "layer.transpose(0, 1).flatten(1)", "layer[:1].expand_as(layer).transpose(0, 1).flatten(1)"),
    Mutant("weights shared between layers", "nn/bridge.py",
           "zip(self.sources, self.maps, strict=True)",
           "zip(self.sources, [self.maps[0]] * len(self.maps), strict=True)"),
    Mutant("weights shared between h and c", "nn/bridge.py",
           "self.cell = BRIDGES[name](sizes) if", "self.cell = self.hidden if"),
    Mutant("c not handed over", "nn/bridge.py", "cell_has_source = encoder.cell == \"lstm\" or name in WEIGHTED",
           "cell_has_source = False"),
    Mutant("top bridge takes the bottom layer", "nn/bridge.py",
           "self.map(side_by_side(layers[-1]))", "self.map(side_by_side(layers[0]))"),
    Mutant("mean bridge takes one direction", "nn/bridge.py",
           "layers[list(self.sources)].mean(1, keepdim=True)", "layers[list(self.sources)][:, :1]"),
    Mutant("state not handed to the decoder", "nn/decoders/decoder.py",
           "run(rnn, inputs, packing, state.layer(layer))",
           "run(rnn, inputs, packing, RNNState(*(None if p is None else p * 0 for p in state.layer(layer))))"),
    Mutant("the backward direction reads forward", "nn/fast/rnn.py",
           "orders = [None, mirrored(sizes, len(tokens))]", "orders = [None, torch.arange(len(tokens))]"),
    Mutant("rows read backward from the end of the longest", "nn/fast/rnn.py",
           "lengths[rows] - 1 - steps", "(len(sizes) - 1 - steps).minimum(lengths[rows] - 1)"),
    Mutant("rows of the state left as they were sorted", "nn/encoder.py", "packing.unsort(state)", "state"),
    Mutant("final states in the order in which rows end", "nn/fast/packing.py",
           "torch.cat(pieces)", "torch.cat(pieces[::-1])"),
    Mutant("no gradient through the final state", "nn/fast/layers.py", "gradient[tokens] += d_last[rows]", "pass"),
    Mutant("tokens of no row in the gradients of weights", "nn/fast/layers.py",
           "        slopes[sum(sizes) :] = 0\n\n        by_gate", "        by_gate"),
    Mutant("no gradient through c", "nn/fast/layers.py",
           "(d_cells[step - 1][:rows] if step else d_cell).addcmul_(d_cells[step], f_steps[step])", "pass"),
    Mutant("no gradient to the state before the first step", "nn/fast/layers.py",
           "d_befores = [d_state, *", "d_befores = [d_state.clone(), *"),
    Mutant("state after a step not handed on", "nn/decoders/luong.py",
           "RNNState.stack(after), weights", "state, weights"),
    Mutant("memory of other rows", "nn/memory.py", "values=self.values[rows]", "values=self.values[: len(rows)]"),
    Mutant("proof: ends not compared", "handoff/verification.py",
           "faults = [*ends_missed(encoded, lengths), *", "faults = [*"),
    Mutant("proof: rows alone not compared", "handoff/verification.py",
           "*padding_let_in(model, encoded, source, lengths)]", "]"),
    Mutant("proof: PyTorch's own state not compared", "handoff/verification.py",
           "faults += misplaced(model.encoder, encoded, source, lengths)", "pass"),
    Mutant("proof: other rows not looked at", "handoff/verification.py",
           "fill_diagonal_(0).any())", "fill_diagonal_(0).gt(9).any())"),
    Mutant("input feeding feeds nothing", "nn/decoders/luong.py",
           "steps.step(step, first(fed[-1], rows))", "steps.step(step, first(fed[-1], rows) * 0)"),
    Mutant("the context does not reach the upper layers", "nn/decoders/gnmt.py",
           "torch.cat([outputs, contexts], dim=-1)", "torch.cat([outputs, contexts * 0], dim=-1)"),
    Mutant("the bottom layer's state attends instead of the top one's", "nn/fast/steps.py",
           "first(self._h[-1][-1], rows)", "first(self._h[0][-1], rows)"),
    Mutant("beam: states not re-indexed by parent", "decoding/beam.py",
           "place[grown_from.flatten()[live]]", "place[grown_from.flatten()[live]].sort().values"),
    Mutant("beam: the first hypotheses taken for those of the first rows", "decoding/beam.py",
           "live = rows * beam_size", "live = rows"),
    Mutant("beam: an ended hypothesis frees its place", "decoding/beam.py",
           "free = beam_size - self.pool.taken.unsqueeze(1)", "free = beam_size - 0 * self.pool.taken.unsqueeze(1)"),
    Mutant("beam: stops before it may", "decoding/beam.py",
           "beams.totals.amax(1) / longest > beams", "beams.totals.amax(1) > beams"),
    Mutant("search forgets the state", "decoding/greedy.py", "Encoded(memory, output.state)", "Encoded(memory, state)"),
    Mutant("search keeps rows but not their state", "decoding/greedy.py",
           "encoded = [one.select(kept) for one in encoded]",
           "encoded = [Encoded(e.memory.select(kept), e.state.select(torch.arange(len(kept)))) for e in encoded]"),
]  # fmt: skip

GALLERY = """

import seq2seq.handoff.mistakes

_right = Encoder.forward
Encoder.forward = lambda self, source, lengths: seq2seq.handoff.mistakes.MISTAKES["{name}"].apply(
    lambda *batch: _right(self, *batch), source, lengths
)
"""


def all_mutants() -> Iterator[Mutant]:
    """Yield the mistakes of the gallery as mutants of the encoder, and the edits."""
    end = '    "build_model",\n]\n'
    for name, mistake in MISTAKES.items():
        new = end + GALLERY.format(name=name)
        yield Mutant(f"{name}: {mistake.code}", "nn/__init__.py", end, new)
    yield from MUTANTS


def apply(mutant: Mutant, folder: Path) -> None:
    """Copy what the tests need, with the edit."""
    for name in ("src", "tests", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    path = folder / "src" / "seq2seq" / mutant.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: {mutant.file} holds this {text.count(mutant.old)} times: {mutant.old}")
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")


def first_failure(mutant: Mutant | None) -> str:
    """Return the first test that fails; empty if none does. Without a mutant the project is as it is."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        apply(mutant or Mutant("", "nn/state.py", "RNNS: dict", "RNNS: dict"), folder)
        environment = os.environ | {"PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1", "CI": "1"}
        command = [sys.executable, "-m", "pytest", "-x", "--tb=no", "-p", "no:cacheprovider", *TESTS]
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
            )
        except subprocess.TimeoutExpired:
            return TIMED_OUT
    failed = [line.split(" ")[1] for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if done.returncode not in (0, 1) or (done.returncode == 1) is not bool(failed):
        raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return failed[0] if failed else ""


def main() -> int:
    """Try them all, and return the exit code."""
    console = Console() if sys.stdout.isatty() else Console(width=150)
    start = time.monotonic()
    if failure := first_failure(None):
        console.print(f"the suite fails without a mutant: {failure}", markup=False)
        return 1
    mutants = list(all_mutants())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        failures = list(pool.map(first_failure, mutants))
    table = Table(title="Mutants")
    table.add_column("mutant")
    table.add_column("first failing test", overflow="fold")
    for mutant, failure in zip(mutants, failures, strict=True):
        killed = failure not in ("", TIMED_OUT)
        table.add_row(Text(mutant.name), Text(failure or "SURVIVED", style="" if killed else "bold red"))
    console.print(table)
    left = failures.count("") + failures.count(TIMED_OUT)
    console.print(f"{len(mutants) - left} of {len(mutants)} killed, {time.monotonic() - start:.0f} s")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
