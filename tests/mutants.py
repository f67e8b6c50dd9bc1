"""Break the project in every way we can think of, and see the suite notice: ``make mutants``.

Each mutant is one edit of the source, or a mistake of the gallery in place of the encoder's call. It is applied to a
copy of the project, in which the tests that should notice run until the first one fails. A mutant that survives is a
hole in the suite: the table shows it, and the exit code is 1.
"""

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seq2seq.handoff.mistakes import MISTAKES

ROOT = Path(__file__).parents[1]
NETWORK = (
    "tests/test_handoff.py",
    "tests/test_handoff_properties.py",
    "tests/nn",
    "tests/decoding",
    "tests/handoff/test_verification.py",
)
"""Tests for a mutant of the network, the searches or the verification; a mutant of another package runs its own."""

OTHERS = {
    "data": ("tests/data",),
    "metrics": ("tests/metrics",),
    "training": ("tests/training",),
    "export": ("tests/export/test_export.py",),
    "demo": ("tests/demo",),
    "tuning": ("tests/tuning",),
    "api.py": ("tests/test_vote.py",),
    "commands/tune.py": ("tests/tuning",),
}
AGAIN = "test_a_run_that_dies_again_and_again_ends_like_one_that_never_died"
LIMIT = 600  # seconds for a mutant; one that takes longer is neither killed nor alive, which fails, too
TIMED_OUT = "TIMED OUT"


class Mutant(NamedTuple):
    """An edit.

    Attributes:
        name: What it breaks.
        file: Below ``src/seq2seq``.
        old: Occurs there exactly once.
        new: Its replacement.
        test: The test of a whole run that must notice; by default, any test of the file's package.
    """

    name: str
    file: str
    old: str
    new: str
    test: str = ""


MUTANTS = [
    # The final state
    Mutant("layers and directions swapped in h_n", "nn/state.py",
           "part.unflatten(0, (rows // directions, directions)) for",
           "part.unflatten(0, (directions, rows // directions)).transpose(0, 1) for"),
    Mutant("layers and directions swapped in h_0", "nn/state.py",
           "h = self.h.flatten(0, 1).contiguous()", "h = self.h.transpose(0, 1).flatten(0, 1).contiguous()"),
    Mutant("layers and directions swapped in c_0", "nn/state.py",
           "(h, self.c.flatten(0, 1).contiguous())", "(h, self.c.transpose(0, 1).flatten(0, 1).contiguous())"),
    Mutant("forward and backward swapped", "nn/state.py",
           "part.unflatten(0, (rows // directions, directions)) for",
           "part.unflatten(0, (rows // directions, directions)).flip(1) for"),
    Mutant("c is h when a state is read", "nn/state.py",
           "for part in parts))\n\n    def to_torch", "for part in (parts[0],) * len(parts)))\n\n    def to_torch"),
    Mutant("c of other layers than h", "nn/state.py", "else self.c.split(1)", "else self.c.flip(0).split(1)"),
    Mutant("layers stacked from the top", "nn/state.py",
           "torch.cat([layer.h for layer in layers])", "torch.cat([layer.h for layer in layers][::-1])"),
    Mutant("c not selected with h", "nn/state.py",
           "self.c.index_select(2, indices)", "self.c[:, :, : len(indices)]"),
    Mutant("h not selected", "nn/state.py", "h=self.h.index_select(2, indices)", "h=self.h[:, :, : len(indices)]"),
    # Padding
    Mutant("packing skipped", "nn/rnn.py", "if lengths is None:", "if True:"),
    Mutant("lengths sorted, sequences left as they are", "nn/rnn.py",
           "pack_padded_sequence(inputs, lengths,", "pack_padded_sequence(inputs, lengths.sort(descending=True)[0],"),
    Mutant("outputs not padded to S", "nn/rnn.py", ", total_length=inputs.size(1))", ")"),
    Mutant("the network starts from zero", "nn/rnn.py",
           "initial = None if state is None else state.to_torch()", "initial = None"),
    Mutant("a state of another shape taken", "nn/rnn.py",
           "if state is not None and state.h.shape != expected:", "if False:"),
    Mutant("no dropout between layers", "nn/rnn.py", "dropout=dropout if num_layers > 1 else 0.0", "dropout=0.0"),
    Mutant("mask shifted by one", "nn/encoder.py",
           "mask = torch.arange(steps) < lengths.unsqueeze(1)", "mask = torch.arange(steps) <= lengths.unsqueeze(1)"),
    Mutant("mask inverted on its way out", "nn/encoder.py", "mask.to(source.device))", "~mask.to(source.device))"),
    # Attention
    Mutant("attention not masked", "nn/attention.py",
           "scores.masked_fill(~mask, -torch.inf)", "scores"),
    Mutant("attention masks real tokens", "nn/attention.py", "masked_fill(~mask,", "masked_fill(mask,"),
    Mutant("attention masked with a large number only", "nn/attention.py",
           "masked_fill(~mask, -torch.inf)", "masked_fill(~mask, -2.0)"),
    Mutant("heads not masked", "nn/attention.py",
           "memory.mask[:, None, None]", "memory.mask[:, None, None] | True"),
    Mutant("sparse weights: the threshold of all scores", "nn/normalisers.py",
           "thresholds.gather(-1, inside - 1)", "thresholds[..., -1:]"),
    Mutant("sparse weights: not squared", "nn/normalisers.py", ".clamp(min=0) ** 2\n", ".clamp(min=0)\n"),
    Mutant("sparse weights: a gradient that moves all scores", "nn/normalisers.py",
           "roots.sum(-1, keepdim=True)", "roots.sum(-1, keepdim=True) * 0.5"),
    Mutant("features of other sequences", "nn/attention.py",
           "name: part[indices]", "name: part[: len(indices)] if name == \"added\" else part[indices]"),
    Mutant("features: padding is one, too", "nn/features.py", ", padding_idx=NONE)", ")"),
    Mutant("features: only the first", "nn/features.py", ".sum(1)", "[:, :1].sum(1)"),
    Mutant("features: those of a layer given to another", "nn/features.py",
           ".permute(2, 1, 0, 3)", ".permute(2, 1, 0, 3).flip(0)"),
    Mutant("features: those of other hypotheses' sources", "nn/decoders/decoder.py",
           "grouped + memory.added", "grouped + memory.added.flip(0)"),
    Mutant("features: not attended to", "nn/seq2seq.py", "features.beside(encoded)", "encoded"),
    Mutant("features: attended to at padding", "nn/features.py", "mask=features != NONE", "mask=features >= NONE"),
    Mutant("features: the encoder reads those of other sequences", "nn/encoder.py",
           "embedded + added", "embedded + added.flip(0)"),
    Mutant("features: not in the state", "nn/seq2seq.py", "features.added_to(initial)", "initial"),
    Mutant("features read in the place of the source", "data/tokenizer.py",
           "COLUMN.join(columns[self.source.columns :])", "COLUMN.join(columns[: len(columns) - self.source.columns])"),
    Mutant("heads mixed", "nn/attention.py",
           "joined.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)",
           "joined.unflatten(-1, (-1, self.num_heads)).movedim(-1, 1)"),
    Mutant("scores of heads not scaled", "nn/attention.py", " * queries.size(-1) ** -0.5", ""),
    Mutant("keys of other sequences", "nn/attention.py",
           "name: part[indices]", "name: part[: len(indices)] if name == \"keys\" else part[indices]"),
    Mutant("values of other sequences", "nn/attention.py",
           "name: part[indices]", "name: part[: len(indices)] if name == \"values\" else part[indices]"),
    Mutant("mask of other sequences", "nn/attention.py",
           "name: part[indices]", "name: part[: len(indices)] if name == \"mask\" else part[indices]"),
    # The bridge
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
           "self.cell = BRIDGES[name](*sizes) if", "self.cell = self.hidden if"),
    Mutant("c not handed over", "nn/bridge.py",
           "cell_has_source = encoder.cell == \"lstm\" or BRIDGES[name].has_weights", "cell_has_source = False"),
    Mutant("c made of h where there is a c", "nn/bridge.py",
           "self.cell(state.h if state.c is None else state.c)", "self.cell(state.h)"),
    Mutant("top bridge takes the bottom layer", "nn/bridge.py",
           "self.map(side_by_side(layers[-1]))", "self.map(side_by_side(layers[0]))"),
    Mutant("mean bridge takes one direction", "nn/bridge.py",
           "layers[self.sources].mean(1, keepdim=True)", "layers[self.sources][:, :1]"),
    Mutant("linear bridge without tanh", "nn/bridge.py", "torch.stack(mapped).tanh()", "torch.stack(mapped)"),
    # Decoders
    Mutant("state not handed to the decoder", "nn/decoders/decoder.py",
           "run_rnn(layer, self.dropout(inputs) if number > 0 else inputs, state=state)",
           "run_rnn(layer, self.dropout(inputs) if number > 0 else inputs)"),
    Mutant("no dropout between the decoder's layers", "nn/decoders/decoder.py",
           "self.dropout(inputs) if number > 0 else inputs", "inputs"),
    Mutant("no dropout before the output layer", "nn/decoders/decoder.py",
           "self.output_layer(self.dropout(attentional_state))", "self.output_layer(attentional_state)"),
    Mutant("hypotheses grouped by rank instead of source", "nn/decoders/decoder.py",
           "queries.reshape(sequences, -1, queries.size(-1))",
           "queries.unflatten(0, (-1, sequences)).transpose(0, 1).flatten(1, 2)"),
    Mutant("queries mixed with steps", "nn/decoders/decoder.py",
           "queries.reshape(sequences, -1, queries.size(-1))",
           "queries.transpose(0, 1).reshape(sequences, -1, queries.size(-1))"),
    Mutant("contexts given to other hypotheses", "nn/decoders/decoder.py",
           "contexts.reshape(batch, steps, -1)", "contexts.reshape(steps, batch, -1).transpose(0, 1)"),
    Mutant("context and output swapped", "nn/decoders/decoder.py",
           "torch.cat([contexts, outputs], dim=-1)", "torch.cat([outputs, contexts], dim=-1)"),
    Mutant("tied embeddings are two parameters", "nn/decoders/decoder.py",
           "self.output_layer.weight = self.embedding.weight", "pass"),
    Mutant("weights of the steps in reverse", "nn/decoders/decoder.py",
           "torch.cat(steps, dim=1)", "torch.cat(steps[::-1], dim=1)"),
    Mutant("state after a step not handed on", "nn/decoders/luong.py",
           "DecoderState(RNNState.stack(states), attention), weights)", "state, weights)"),
    Mutant("input feeding feeds nothing", "nn/decoders/luong.py",
           "torch.cat([embedded, attentional_state], dim=-1)", "torch.cat([embedded, 0 * attentional_state], dim=-1)"),
    Mutant("the fed state is that before the call", "nn/decoders/luong.py",
           "attention, attentional_state)\n", "attention, state.prev_attentional_state)\n"),
    Mutant("the fed state of other sequences", "nn/decoders/decoder.py",
           "else one[indices] for one in others", "else one[: len(indices)] for one in others"),
    Mutant("the attention begins anew in every call", "nn/decoders/luong.py",
           "attention = self.attend(outputs, memory, state.attention)",
           "_ = self.attend(outputs, memory, attention := state.attention)"),
    Mutant("an attention's state meets the memory of other sequences", "nn/decoders/decoder.py",
           "memory.repeat(batch // sequences)", "memory.select(torch.arange(batch) % sequences)"),
    Mutant("the context does not reach the upper layers", "nn/decoders/gnmt.py",
           "torch.cat([outputs, contexts], dim=-1)", "torch.cat([outputs, contexts * 0], dim=-1)"),
    Mutant("the bottom layer's state attends instead of the top one's", "nn/decoders/bahdanau.py",
           "states[-1].h[0, 0]", "states[0].h[0, 0]"),
    Mutant("the state before a step is kept", "nn/seq2seq.py", "encoded._replace(state=output.state)", "encoded"),
    Mutant("memory selected without its state", "nn/seq2seq.py",
           "state=self.state.select(indices)", "state=self.state"),
    # The fast layers
    Mutant("the backward direction reads forward", "nn/fast/rnn.py",
           "reverse_indices(batch_sizes) if rnn", "torch.arange(len(tokens)) if rnn"),
    Mutant("outputs of the backward direction left in its own order", "nn/fast/rnn.py",
           "outputs.append(permute(after_each, order))", "outputs.append(after_each)"),
    Mutant("sequences read backward from the end of the longest", "nn/fast/rnn.py",
           "lengths[sequences] - 1 - steps", "(len(sizes) - 1 - steps).minimum(lengths[sequences] - 1)"),
    Mutant("gradients of a reversed order not put back", "nn/fast/rnn.py",
           "grad_outputs[0].index_select(0, ctx.order)", "grad_outputs[0]"),
    Mutant("the final state left as it was sorted", "nn/fast/rnn.py",
           "torch.stack(part).index_select(1, unsorted)", "torch.stack(part)"),
    Mutant("the first state not sorted with its sequences", "nn/fast/rnn.py",
           "else part.index_select(1, order) for", "else part for"),
    Mutant("both directions start from the first one's state", "nn/fast/rnn.py",
           "part[len(finals)] for", "part[layer * (1 + rnn.bidirectional)] for"),
    Mutant("padded outputs with steps for sequences", "nn/fast/rnn.py",
           "outputs.unflatten(0, inputs.shape[1::-1]).transpose(0, 1)", "outputs.unflatten(0, inputs.shape[:2])"),
    Mutant("the fast layers run without gradients, too", "nn/fast/rnn.py", "torch.is_grad_enabled() and ", ""),
    Mutant("the fast layers leave a bias out", "nn/fast/rnn.py", "rnn.bias and ", ""),
    Mutant("the fast layers drop nothing", "nn/fast/rnn.py",
           "tokens = dropout(tokens, rnn.dropout, rnn.training)", "pass"),
    Mutant("a state in lower precision kept so", "nn/fast/rnn.py",
           "state = [part.to(u.dtype) for part in state]", "pass"),
    Mutant("final states in the order in which sequences end", "nn/fast/kernels.py",
           "reversed(list(last_tokens(batch_sizes)))", "last_tokens(batch_sizes)"),
    Mutant("unfinished sequences taken for those that end", "nn/fast/kernels.py",
           "slice(start + next_size, start + size)", "slice(start, start + size - next_size)"),
    Mutant("no gradient through the final state", "nn/fast/kernels.py",
           "gradient[tokens] += d_final[sequences]", "pass"),
    Mutant("no gradient through c", "nn/fast/kernels.py",
           "d_c_before[step][:size].addcmul_(d_c_t, f_t)", "pass"),
    Mutant("no gradient to h before the first step of a GRU", "nn/fast/kernels.py",
           "d_before = [d_state, *", "d_before = [d_state.clone(), *"),
    Mutant("no gradient to h before the first step of an LSTM", "nn/fast/kernels.py",
           "d_h_before, d_c_before = [d_state, *", "d_h_before, d_c_before = [d_state.clone(), *"),
    Mutant("no gradient to c before the first step", "nn/fast/kernels.py", "[d_cell, *", "[d_cell.clone(), *"),
    Mutant("weights learn from the state after a step", "nn/fast/kernels.py",
           "torch.cat([first, *(step[:size] for", "torch.cat([0 * first, *(step[:size] for"),
    Mutant("both biases of a GRU get one gradient", "nn/fast/kernels.py",
           "d_u, local_grads.sum(0), d_u_bias, None", "d_u, d_u_bias, d_u_bias.clone(), None"),
    Mutant("kept units not scaled", "nn/fast/dropout.py", "kept.mul_(CHANCES / (CHANCES - dropped))", "kept"),
    # Ensembles and searches
    Mutant("log-probabilities averaged", "decoding/ensemble.py",
           "torch.stack(log_probs).logsumexp(0) - math.log(len(log_probs))", "torch.stack(log_probs).mean(0)"),
    Mutant("attention weights of the first model only", "decoding/ensemble.py",
           "torch.stack(weights).mean(0)", "weights[0]"),
    Mutant("an ensemble forgets the state", "decoding/ensemble.py",
           "EnsembleEncoded(tuple(one for _, one in steps))", "encoded"),
    Mutant("memory not selected", "decoding/ensemble.py", "memory=one.memory.select(indices)", "memory=one.memory"),
    Mutant("states not selected", "decoding/ensemble.py", "state=one.state.select(indices)", "state=one.state"),
    Mutant("special tokens may be chosen", "decoding/output.py", "= (PAD, BOS, UNK)", "= (PAD, BOS)"),
    Mutant("greedy: the state forgotten", "decoding/greedy.py",
           "log_probs, encoded = ensemble.step(tokens, encoded)", "log_probs, _ = ensemble.step(tokens, encoded)"),
    Mutant("greedy: sequences kept, but not their state", "decoding/greedy.py",
           "encoded.select(kept)", "encoded.select_memory(kept).select_states(torch.arange(len(kept)))"),
    Mutant("greedy: the end not counted", "decoding/greedy.py",
           "chosen.masked_fill(finished, 0)", "chosen.masked_fill(finished | (tokens == EOS), 0)"),
    Mutant("greedy: what follows the end counted", "decoding/greedy.py", "chosen.masked_fill(finished, 0)", "chosen"),
    Mutant("greedy: log-probabilities of other sequences", "decoding/greedy.py",
           "totals[indices] +=", "totals[: len(indices)] +="),
    Mutant("sampling: hypotheses of other sources", "decoding/sampling.py",
           ".repeat_interleave(self.n_best)", ".repeat(self.n_best)"),
    Mutant("sampling: the token that passes top_p left out", "decoding/sampling.py",
           "before >= self.top_p", "before + ordered > self.top_p"),
    Mutant("sampling: ranks taken for tokens", "decoding/sampling.py", "tokens.gather(-1, chosen)", "chosen"),
    Mutant("beam: states not re-indexed by parent", "decoding/beam.py",
           "select_states(parents.flatten())", "select_states(parents.flatten().sort().values)"),
    Mutant("beam: history of other hypotheses", "decoding/beam.py",
           "take(beams.history, parents)", "take(beams.history, parents.sort().values)"),
    Mutant("beam: the first hypotheses taken for those of the first sequences", "decoding/beam.py",
           ".unsqueeze(1) * width", ".unsqueeze(1)"),
    Mutant("beam: memory of other sequences", "decoding/beam.py",
           "select_memory(kept)", "select_memory(torch.arange(len(kept)))"),
    Mutant("beam: parents of other sequences", "decoding/beam.py", "parents[active]", "parents[: int(active.sum())]"),
    Mutant("beam: results in the order in which sequences are done", "decoding/beam.py",
           ".argsort()", ".sort().values"),
    Mutant("beam: an ended hypothesis frees its place", "decoding/beam.py",
           "free = self.beam_size - beams", "free = self.beam_size - 0 * beams"),
    Mutant("beam: stops before it may", "decoding/beam.py",
           "live / self.divisor(self.max_length) > (beams", "live > (beams"),
    Mutant("beam: what is cut is dropped", "decoding/beam.py", "if step + 1 == self.max_length:", "if False:"),
    # What verifies a handoff
    Mutant("verification: ends not compared", "handoff/verification.py",
           "faults = [*check_final_positions(encoded, lengths), *", "faults = [*"),
    Mutant("verification: sequences alone not compared", "handoff/verification.py",
           "*check_padding_leak(model, encoded, source, lengths, read)]", "]"),
    Mutant("verification: PyTorch's own state not compared", "handoff/verification.py",
           "faults += check_against_pytorch(inner, encoded, source, lengths, read)", "pass"),
    Mutant("verification: other sequences not looked at", "handoff/verification.py",
           "fill_diagonal_(0).any())", "fill_diagonal_(0).gt(9).any())"),
    # Data
    Mutant("batches not shuffled", "data/sampler.py",
           "[batches[number] for number in torch.randperm(len(batches), generator=generator).tolist()]", "batches"),
    Mutant("pairs not shuffled", "data/sampler.py", "pools = shuffled.split(", "pools = shuffled.sort()[0].split("),
    Mutant("seed and epoch added", "data/sampler.py", "self.seed * 1_000_003 + self.epoch", "self.seed + self.epoch"),
    Mutant("the epoch does not matter", "data/sampler.py",
           "self.seed * 1_000_003 + self.epoch", "self.seed * 1_000_003"),
    Mutant("pools not sorted by length", "data/sampler.py", "self._divide(self._sort(pool))", "self._divide(pool)"),
    Mutant("sources all ascend", "data/sampler.py", "torch.where(target % 2 == 0, source, -source)", "source"),
    Mutant("one token too many in a batch", "data/sampler.py",
           "* longest <= (self.max_tokens or 0)", "* longest <= (self.max_tokens or 0) + 1"),
    Mutant("no end in a target", "data/batch.py", "target.scatter_(1, (target_lengths + 1).unsqueeze(1), EOS)", "pass"),
    Mutant("the end after the padding", "data/batch.py", "(target_lengths + 1).unsqueeze(1), EOS",
           "torch.full_like(target_lengths, target.size(1) - 1).unsqueeze(1), EOS"),
    Mutant("no begin in a target", "data/batch.py",
           "F.pad(target, (1, 0), value=BOS)", "F.pad(target, (1, 0), value=EOS)"),
    Mutant("inputs are labels", "data/batch.py", "return self.target[:, :-1]", "return self.target[:, 1:]"),
    Mutant("references with their end", "data/batch.py",
           "lengths = (self.target_lengths - 1).tolist()", "lengths = self.target_lengths.tolist()"),
    Mutant("padding left as it was", "data/dataset.py", ".masked_fill(steps >= lengths, PAD)", ""),
    Mutant("ids numbered by their first occurrence", "data/dataset.py",
           "chunk[:] = table[chunk]", "pass"),
    Mutant("text not normalised", "data/tokenizer.py",
           "return text if self.form ==", "return text if True or self.form =="),
    Mutant("empty tokens between spaces", "data/tokenizer.py",
           '[token for token in text.split(self.separator) if token]', 'text.split(self.separator)'),
    Mutant("texts not in lower case", "data/tokenizer.py", "text = text.lower()", "pass"),
    Mutant("predictions not composed", "data/tokenizer.py",
           'return unicodedata.normalize("NFC", text) if self.form in ("nfd", "nfkd") else text', "return text"),
    Mutant("a feature taken for a letter", "data/tokenizer.py",
           "            COLUMN * number + token\n            for", "            token\n            for"),
    Mutant("subwords forgotten in a checkpoint", "data/tokenizer.py",
           "size=self.size, model=tokenizer.to_str()", "size=self.size"),
    Mutant("rare subwords unknown", "data/preparation.py", "own.update(dict", "dict(own).update(dict"),
    Mutant("a shared vocabulary of one side", "data/preparation.py", "[counts[0] + counts[1]]", "[counts[0]]"),
    Mutant("the first reference alone", "data/preparation.py", "*map(encode, pair.alternatives)", ""),
    Mutant("references merged in training", "data/sources/tsv.py",
           'if self.merge_references and split != "train" else', "if self.merge_references else"),
    Mutant("pronunciations on both sides of the split", "data/sources/cmudict.py", "if pair.source in kept)", ")"),
    Mutant("the header is a pair", "data/sources/files.py", "(self.header and number == 1) or ", ""),
    Mutant("all training pairs", "data/sources/files.py",
           'islice(found, self.max_pairs) if split == "train" else found', "found"),
    Mutant("invalid test pairs skipped", "data/sources/files.py",
           'if split != "train" or not self.skip_invalid:', "if not self.skip_invalid:"),
    Mutant("surplus lines dropped", "data/sources/parallel.py", "zip_longest(*(", "zip(*("),
    Mutant("a change while reading unnoticed", "data/lines.py",
           "if (before.st_size, before", "if False and (before.st_size, before"),
    Mutant("a cache for any content", "data/cache.py",
           'digest.update(hashlib.file_digest(file, "blake2b").digest())', "pass"),
    Mutant("a cache for any setting", "data/cache.py",
           "json.dumps([VERSION, settings], sort_keys=True)", "json.dumps([VERSION])"),
    Mutant("half a cache", "data/cache.py",
           "shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed", "pass"),
    Mutant("BLEU by sentence", "metrics/text.py", "content.splitlines())", "content.splitlines()[:1])"),
    Mutant("rare symbols first", "data/vocabulary.py", "(-count, symbol) for", "(count, symbol) for"),
    Mutant("rare symbols kept", "data/vocabulary.py", "if count >= min_count", "if count >= 0"),
    Mutant("unknown symbols are padding", "data/vocabulary.py",
           "self._ids.get(token, UNK)", "self._ids.get(token, PAD)"),
    Mutant("vocabulary of validation", "data/preparation.py",
           'accepted(source, "train", splitters)', 'accepted(source, "val", splitters)'),
    Mutant("a text without tokens in training", "data/sources/files.py", "if 1 <= length <=", "if length <="),
    Mutant("byte order mark kept", "data/lines.py", '"utf-8-sig" if number == 1 else "utf-8"', '"utf-8"'),
    Mutant("carriage return kept", "data/lines.py", '.removesuffix("\\r")', ""),
    Mutant("columns counted from 0", "data/sources/tsv.py", "columns[number - 1]", "columns[number - 2]"),
    Mutant("days shared by splits", "data/sources/dates.py", "days[held_out : 2 * held_out]", "days[: 2 * held_out]"),
    # Metrics
    Mutant("only the first reference counts", "metrics/tokens.py",
           "float(ids in references)", "float(ids == references[0])"),
    Mutant("the first reference instead of the closest", "metrics/tokens.py",
           "return min(references, key=lambda reference: Levenshtein.distance(prediction, reference))",
           "return next(iter(references))"),
    Mutant("ids joined without spaces", "metrics/tokens.py", '" ".join(map(str, ids))', '"".join(map(str, ids))'),
    Mutant("padding counts in the loss", "metrics/tokens.py",
           "real = labels != PAD\n        super().update(F.nll_loss",
           "real = labels >= 0\n        super().update(F.nll_loss"),
    Mutant("perplexity is the loss", "metrics/tokens.py", "return super().compute().exp()", "return super().compute()"),
    Mutant("a predicted unknown symbol is right", "metrics/tokens.py", " & (labels != UNK)", ""),
    # Training
    Mutant("padding counts in the training loss", "training/module.py", "ignore_index=PAD, ", ""),
    Mutant("no label smoothing", "training/module.py",
           "label_smoothing=self.label_smoothing\n", "label_smoothing=0.0\n"),
    Mutant("predictions not shifted", "training/module.py",
           "mask_special_tokens(logits).argmax(-1)[:, :-1]", "mask_special_tokens(logits).argmax(-1)[:, 1:]"),
    Mutant("metrics not reset", "training/evaluation.py", "self.metrics.reset()", "pass",
           "test_evaluating_again_gives_the_same_metrics"),
    Mutant("special tokens sampled", "training/module.py", "mask_special_tokens(logits).argmax", "logits.argmax"),
    Mutant("the learning rate stays", "training/schedule.py", "math.pi * min(1.0, progress)", "0 * progress"),
    Mutant("no warm-up", "training/schedule.py", "if step < rise:", "if False:"),
    Mutant("a constant rate without warm-up", "training/schedule.py", "min(1.0, (step + 1) / max(1, rise))", "1.0"),
    Mutant("of equal epochs the earlier", "resuming/saving.py", "return equal or super()", "return super()",
           "test_of_equally_good_epochs_the_later_is_kept"),
    Mutant("the score forgotten at a resume", "resuming/saving.py",
           'scores = {str(path): score for score in state["best_k_models"].values()}', "scores = {}",
           "test_a_run_that_resumes_elsewhere_takes_its_best_checkpoint_along"),
    Mutant("patience counts zeros", "training/callbacks.py", "self.monitor, 0) > 0", "self.monitor, 0) > -1",
           "test_patience_is_counted_from_the_first_match_and_the_log_says_when_it_is_over"),
    Mutant("patience of the checkpoint", "training/callbacks.py",
           'state_dict | {"patience": self.patience}', "state_dict",
           "test_a_resumed_run_may_be_more_patient"),
    Mutant("dropout seeded by the batch alone", "training/callbacks.py",
           "(self.seed * 1_000_003 + number)", "(number)"),
    Mutant("dropout seeded alike in every epoch", "training/callbacks.py",
           "trainer.current_epoch * int(trainer.num_training_batches) + batch_idx", "batch_idx"),
    Mutant("the average tested is that of the end", "training/callbacks.py", "self._average_model = None", "pass",
           "test_the_best_checkpoint_is_tested_as_it_was_saved"),
    Mutant("checkpoints of any format accepted", "checkpoint.py", "if found != FORMAT:", "if False:",
           "test_a_file_that_is_not_a_checkpoint_of_this_project_is_refused"),
    Mutant("another model may resume", "resuming/continuing.py", "if key.startswith(FIXED):", "if False:",
           "test_a_run_does_not_resume_with_settings_that_must_not_change"),
    Mutant("rows after the checkpoint kept", "resuming/continuing.py", 'if step < saved["global_step"]:', "if True:",
           AGAIN),
    Mutant("an epoch begins anew at a resume", "data/sampler.py", "[done if self.epoch == epoch else 0 :]", "[0:]",
           AGAIN),
    Mutant("every epoch is cut at a resume", "data/sampler.py", "[done if self.epoch == epoch else 0 :]", "[done:]",
           AGAIN),
    Mutant("the batch that has not run counts", "resuming/lightning.py", 'counts["completed"]))', 'counts["ready"]))',
           AGAIN),
    Mutant("steps of the log shift at a resume", "resuming/lightning.py", '["_batches_that_stepped"] -= 1',
           '["_batches_that_stepped"] -= 0',
           AGAIN),
    Mutant("saved while gradients are gathered", "resuming/saving.py", "batch % trainer.accumulate_grad_batches",
           "False",
           AGAIN),
    Mutant("a run that had stopped early goes on", "training/callbacks.py", "trainer.should_stop = True", "pass",
           "test_a_run_that_had_stopped_early_does_not_go_on"),
    Mutant("two processes run one trial", "tuning/study.py",
           "suppress(UserError), locked(lock)", "suppress(UserError)"),
    Mutant("checksums not compared", "checkpoint.py", "if not is_whole(opened):", "if False:",
           "test_a_flipped_byte_is_noticed_or_changes_nothing"),
    Mutant("a checkpoint written in its place", "resuming/saving.py", 'with atomic_write(Path(path), "checkpoint") as '
           'temporary, temporary.open("wb")', 'with Path(path).open("wb")',
           "test_a_full_disk_leaves_the_last_checkpoint_as_it_was"),
    Mutant("weights that are no number are saved", "resuming/saving.py",
           'all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values())', "True",
           "test_weights_that_are_no_numbers_do_not_replace_a_good_checkpoint"),
    Mutant("a signal ends training without saving", "resuming/signals.py",
           "callback.save_between_batches(trainer)", "pass",
           "test_a_signal_waits_for_the_step_and_saves_its_state"),
    Mutant("workers keep the lock", "runs/directory.py", "os.close(HANDLES.pop())", "HANDLES.pop()",
           "test_a_process_that_a_run_has_forked_does_not_keep_its_lock"),
    Mutant("every process has the whole batch", "data/dataset.py", "indices[self.rank :: self.processes]", "indices"),
    Mutant("a share weighs as much as the batch", "data/dataset.py",
           "int(own.target_lengths.sum()) * self.processes / tokens", "1.0",
           "test_the_average_of_the_shares_of_a_batch_is_the_mean_over_all"),
    Mutant("a request is heard by who made it alone", "training/processes.py",
           "zip(REQUESTS, total[1:].tolist(), strict=True)", "zip(REQUESTS, asked, strict=True)",
           "test_with_several_processes_a_request_is_granted_to_all_when_the_loss_is_averaged"),
    Mutant("parameters without a gradient are waited for", "training/processes.py",
           "requires_grad_(gradient is not None)", "requires_grad_(True)",
           "test_parameters_that_no_loss_reaches_are_not_waited_for"),
    Mutant("the final weights tested", "training/results.py",
           "ckpt_path=checkpoint, verbose", "ckpt_path=None, verbose",
           "test_the_best_checkpoint_is_tested_as_it_was_saved"),
    Mutant("a run may be overwritten", "runs/directory.py", "if resumed_here or not any(", "if True or not any(",
           "test_a_directory_that_holds_a_run_is_refused_and_left_as_it_is"),
    Mutant("results of part of the data not labelled", "training/evaluation.py",
           'if number < count else ""', 'if number < 0 else ""',
           "test_results_of_part_of_the_data_are_labelled"),
    Mutant("references cut to a token", "training/evaluation.py",
           "reference_ids=references.ids",
           "reference_ids=[[ids[:1] for ids in several] for several in references.ids]",
           "test_the_results_are_those_of_the_predictions"),
    Mutant("errors of others laundered", "errors.py", " and not foreign:", ":",
           "test_an_error_of_a_class_of_ones_own_keeps_its_traceback_below_the_setting"),
    Mutant("a missing package told as a wrong name", "training/build.py",
           "if isinstance(error.value, ModuleNotFoundError):", "if False:",
           "test_a_mistake_in_a_setting_is_one_line_whoever_notices_it"),
    # Export and demo
    Mutant("a GRU's gates in PyTorch's order", "export/graphs.py", '"GRU": (1, 0, 2)', '"GRU": (0, 1, 2)'),
    Mutant("an LSTM's gates in PyTorch's order", "export/graphs.py", '"LSTM": (0, 3, 1, 2)', '"LSTM": (0, 1, 2, 3)'),
    Mutant("the reset gate before the multiplication", "export/graphs.py",
           'attributes["linear_before_reset"] = 1', 'attributes["linear_before_reset"] = 0'),
    Mutant("an export without lengths", "export/graphs.py", "dim=-1), lengths, *starts]", "dim=-1), None, *starts]"),
    Mutant("an exported state upside down", "export/graphs.py",
           "part.squeeze(1).transpose(0, 1) for", "part.squeeze(1).flip(0).transpose(0, 1) for"),
    Mutant("hypotheses of other sequences in an exported step", "export/graphs.py",
           "{name: part.flatten(0, 1) for name", "{name: part.transpose(0, 1).flatten(0, 1) for name"),
    Mutant("the states of other hypotheses in backend=onnx", "export/backend.py",
           "part.index_select(0, indices)", "part[: len(indices)]"),
    Mutant("a vote for the text with the fewest votes", "api.py", "text, own = max(", "text, own = min("),
    Mutant("equal votes decided by the least probable", "api.py", "fmean(item[1]))", "-fmean(item[1]))"),
    Mutant("a vote that compares texts in the first model's symbols", "data/vocabulary.py",
           "if token not in self._ids:", "if False:"),
    Mutant("the result of a trial is that of its last run", "commands/tune.py",
           "study.tell(number, fmean(results)", "study.tell(number, results[-1]"),
    Mutant("a comparison of the best case", "export/parity.py",
           "(values - other[name]).abs().max()", "(values - other[name]).abs().min()"),
    Mutant("requests answered side by side", "demo/app.py", "max_workers=1", "max_workers=4"),
    Mutant("requests that wait for ever", "demo/app.py",
           "asyncio.timeout(seconds):\n                found", "asyncio.timeout(None):\n                found"),
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
    end = '    "build_decoder", "build_model",\n]  # fmt: skip\n'
    for name, mistake in MISTAKES.items():
        new = end + GALLERY.format(name=name)
        yield Mutant(f"{name}: {mistake.code}", "nn/__init__.py", end, new)
    yield from MUTANTS


def apply(mutant: Mutant, folder: Path) -> None:
    """Copy what the tests need, with the edit."""
    for name in ("src", "tests", "configs", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    path = folder / "src" / "seq2seq" / mutant.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: {mutant.file} holds this {text.count(mutant.old)} times: {mutant.old}")
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")


def ordered_tests(file: str) -> list[str]:
    """Return the tests for a mutant of a file, those first that are most likely to fail."""
    folder = Path(file).parent
    for part in (file, *folder.parts[:1]):
        if part in OTHERS:
            return list(OTHERS[part])
    package = "test_handoff" if folder == Path("nn") else folder.parts[0]
    return sorted(NETWORK, key=lambda test: not test.startswith(f"tests/{package}"))


class FirstFailure:
    """A plugin for pytest that keeps the name of the first test that fails, or of a file that cannot be imported."""

    def __init__(self) -> None:
        self.name = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Look at a test."""
        if report.failed:
            self.name = self.name or report.nodeid

    pytest_collectreport = pytest_runtest_logreport


def first_failure(mutant: Mutant | None) -> str:
    """Return the first test that fails; empty if none does. Without a mutant the project is as it is.

    To be called in a process of its own: it imports the copy of the project and changes the working directory.
    """
    others = ["tests/commands/test_train.py", *(test for tests in OTHERS.values() for test in tests)]
    if mutant is None:
        tests = [*NETWORK, *others]
    elif mutant.test:
        tests = ["tests/commands/test_train.py", "tests/training", "tests/test_checkpoint.py", "-k", mutant.test]
    else:
        tests = ordered_tests(mutant.file)
    recorder = FirstFailure()
    with tempfile.TemporaryDirectory() as name:
        apply(mutant or Mutant("", "nn/state.py", "class RNNState(", "class RNNState("), Path(name))
        os.chdir(name)
        sys.path.insert(0, str(Path(name) / "src"))
        for module in [module for module in sys.modules if module.split(".")[0] == "seq2seq"]:
            del sys.modules[module]
        options = ["-x", "-q", "--tb=no", "-m", "not slow and not docs", "-p", "no:cacheprovider", "-p", "no:xdist"]
        code = pytest.main([*options, *tests], [recorder])
        os.chdir(ROOT)
    if code not in (0, 1, 2) or (code != 0) is not bool(recorder.name):
        raise RuntimeError(f"pytest ended with {code}: {mutant}")
    return recorder.name


def send_first_failure(sender: Connection, mutant: Mutant | None) -> None:
    """Send the first failure, or that it takes too long, and print nothing but errors."""

    def time_out(*_: object) -> None:
        sender.send(TIMED_OUT)
        os._exit(1)

    signal.signal(signal.SIGALRM, time_out)
    signal.alarm(LIMIT)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    sender.send(first_failure(mutant))


def run_all(mutants: list[Mutant | None]) -> list[str]:
    """Return the first failure of each mutant; every mutant gets a process, forked from this one to save imports."""
    import matplotlib.figure  # noqa: F401 - imported before the forks
    import pytorch_lightning  # noqa: F401

    os.environ |= {"OMP_NUM_THREADS": "1", "CI": "1"}
    context = multiprocessing.get_context("fork")
    waiting, running, results = list(enumerate(mutants)), {}, [""] * len(mutants)
    while waiting or running:
        while waiting and len(running) < (os.cpu_count() or 1):
            number, mutant = waiting.pop(0)
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=send_first_failure, args=(sender, mutant))
            process.start()
            sender.close()
            running[receiver] = number, process
        ready = wait(list(running))
        for receiver in [one for one in running if one in ready]:
            number, process = running.pop(receiver)
            results[number] = receiver.recv()  # EOFError if the process has died; its traceback is on stderr
            process.join()
    return results


def main() -> int:
    """Try them all, and return the exit code."""
    console = Console() if sys.stdout.isatty() else Console(width=150)
    start = time.monotonic()
    if failure := run_all([None])[0]:
        console.print(f"the suite fails without a mutant: {failure}", markup=False)
        return 1
    mutants = list(all_mutants())
    failures = run_all([*mutants])
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
