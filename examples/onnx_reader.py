"""Predict with an export, by numpy and ONNX Runtime only: ``python onnx_reader.py FOLDER [BEAM_SIZE] < TEXTS``."""

import hashlib
import itertools
import json
import sys
import unicodedata
from pathlib import Path

import numpy as np
import onnxruntime


class Reader:
    """An exported model; a file to copy and change. The texts of a batch may differ in length."""

    def __init__(self, folder):
        info = json.loads((Path(folder) / "tokenizers.json").read_text(encoding="utf-8"))
        sums = info.pop("sha256")
        graphs = [(Path(folder) / name).read_bytes() for name in ("encoder.onnx", "decoder_step.onnx")]
        contents = [*graphs, json.dumps(info, sort_keys=True).encode()]
        if [hashlib.sha256(content).hexdigest() for content in contents] != [*sums.values()]:
            raise SystemExit(f"error: the files in {folder} do not belong together, or are damaged")
        self.encoder, self.decoder = map(onnxruntime.InferenceSession, graphs)
        self.source, self.target, self.features = info["source"], info["target"], info.get("features")
        self.max_length, self.special = info["max_length"], info["special"]
        self.never = [self.special[name] for name in ("pad", "bos", "unk")]
        self.ids = {}
        for side in filter(None, (self.source, self.features)):
            numbers = enumerate(side["symbols"], start=len(self.special))
            self.ids[id(side)] = {symbol: number for number, symbol in numbers}

    def encode(self, texts):
        """Return what the decoder reads, by name: memory and first state of each text."""
        sources, features = zip(*map(self.split, texts), strict=True)
        source, lengths = self.padded(sources, self.source)
        given = {"source": source, "lengths": lengths}
        if self.features:
            given["features"] = self.padded(features, self.features)[0]
        return run(self.encoder, given)

    def split(self, text):
        """Return the source of a text, and its features, whose columns come last."""
        if not self.features:
            return text, ""
        columns, count = text.split("\t"), len(columns_of(self.source))
        if len(columns) != count + len(columns_of(self.features)):
            raise SystemExit(f"error: {text!r} has {len(columns)} columns, and the model reads another number")
        return "\t".join(columns[:count]), "\t".join(columns[count:])

    def padded(self, texts, side):
        """Return the ids of texts, padded at the right, and their lengths."""
        numbers, unknown = self.ids[id(side)], self.special["unk"]
        ids = [[numbers.get(token, unknown) for token in tokenize(text, side)] for text in texts]
        rows = np.zeros((len(ids), max(map(len, ids))), np.int64)
        for row, own in zip(rows, ids, strict=True):
            row[: len(own)] = own
        return rows, np.array([len(own) for own in ids])

    def step(self, tokens, inputs):
        """Read a token of each hypothesis, (B, K); return the next one's log-probabilities, (B, K, V), and inputs."""
        outputs = run(self.decoder, inputs | {"tokens": tokens})
        logits = outputs["logits"] - outputs["logits"].max(-1, keepdims=True)
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        log_probs[..., self.never] = -np.inf
        return log_probs, inputs | {name[5:]: part for name, part in outputs.items() if name.startswith("next_")}

    def greedy(self, texts):
        """Return the prediction for each text."""
        inputs, tokens, found = self.encode(texts), np.full((len(texts), 1), self.special["bos"]), []
        while len(found) < self.max_length and not (found and (np.array(found) == self.special["eos"]).any(0).all()):
            log_probs, inputs = self.step(tokens, inputs)
            tokens = log_probs.argmax(-1)
            found.append(tokens[:, 0])
        return [self.text(row) for row in np.stack(found, axis=1)]

    def beam(self, text, size=5, alpha=0.6):
        """Return the hypotheses for a text as pairs of score and prediction, the best first."""
        inputs, live, done = self.encode([text]), [(0.0, [self.special["bos"]])], []
        for length in range(1, self.max_length + 1):
            log_probs, inputs = self.step(np.array([[ids[-1] for _, ids in live]]), inputs)
            totals = log_probs[0] + np.array([[total] for total, _ in live])
            best = np.argsort(-totals, axis=None, kind="stable")[: size - len(done)]  # a finished one keeps its place
            chosen = [(*np.unravel_index(i, totals.shape), totals.flat[i]) for i in best if totals.flat[i] > -np.inf]
            cut, divisor = length == self.max_length, ((5 + length) / 6) ** alpha
            ends = [cut or token == self.special["eos"] for _, token, _ in chosen]
            grown = [(total, [*live[parent][1], int(token)]) for parent, token, total in chosen]
            done += [(total / divisor, ids) for (total, ids), end in zip(grown, ends, strict=True) if end]
            live = [hypothesis for hypothesis, end in zip(grown, ends, strict=True) if not end]
            if not live:
                break
            parents = [parent for (parent, _, _), end in zip(chosen, ends, strict=True) if not end]
            for name in {one.name for one in self.decoder.get_inputs()} - {"tokens", "mask", "keys", "values", "added"}:
                inputs[name] = inputs[name][:, parents]
        return [(score, self.text(ids[1:])) for score, ids in sorted(done, key=lambda one: -one[0])]

    def text(self, ids):
        """Return the text of ids up to the end."""
        ordinary = itertools.takewhile(lambda number: number != self.special["eos"], ids)
        tokens = [self.target["symbols"][number - len(self.special)] for number in ordinary]
        text = separator(self.target["tokens"]).join(tokens)
        return unicodedata.normalize("NFC", text) if self.target["normalization"] in ("nfd", "nfkd") else text


def run(session, inputs):
    """Run a graph; return its outputs by name. It is given those of ``inputs`` that it takes."""
    outputs = session.run(None, {one.name: inputs[one.name] for one in session.get_inputs()})
    return {one.name: part for one, part in zip(session.get_outputs(), outputs, strict=True)}


def tokenize(text, side):
    """Normalise a text and split it into tokens; those of a second column start with a tab, and so on."""
    text = text.lower() if side["lower_case"] else text
    text = text if side["normalization"] == "none" else unicodedata.normalize(side["normalization"].upper(), text)
    kinds = columns_of(side)
    columns = zip(text.split("\t") if len(kinds) > 1 else [text], map(separator, kinds), strict=True)
    parts = ((column.split(mark) if mark else list(column)) for column, mark in columns)
    return ["\t" * number + token for number, tokens in enumerate(parts) for token in tokens if token]


def columns_of(side):
    """Return what the tokens of each column are."""
    return side["tokens"] if isinstance(side["tokens"], list) else [side["tokens"]]


def separator(tokens):
    """Return what stands between tokens."""
    name = tokens if isinstance(tokens, str) else tokens["name"]
    known = {"characters": "", "spaces": " ", "split": isinstance(tokens, dict) and tokens.get("separator")}
    if name not in known:
        raise SystemExit(f"error: this reader knows tokens={', '.join(known)}, and the model has {name}")
    return known[name]


if __name__ == "__main__":
    reader = Reader(sys.argv[1])
    sys.stdin.reconfigure(encoding="utf-8-sig", newline="\n")
    for line in (line.rstrip("\r\n") for line in sys.stdin):
        if not line.strip() or not tokenize(reader.split(line)[0], reader.source):
            print()
        elif sys.argv[2:]:
            print(reader.beam(line, int(sys.argv[2]))[0][1])
        else:
            print(reader.greedy([line])[0])
