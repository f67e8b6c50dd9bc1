"""Kill runs at random moments and feed in damaged files, for as long as it takes: ``make torture``.

It prints its seed. ``ARGS="--seed 7 --kills 100 --inputs 10000 --settings 1000"`` repeats or changes it.
The exit code is 1 if a run that was killed ends differently from one that was not, or if an input ends in anything but
success or a `UserError`.
"""

import argparse
import gzip
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from conftest import ROOT, TINY
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf

from seq2seq.api import load
from seq2seq.commands.train import train
from seq2seq.data import build_source, prepare
from seq2seq.errors import UserError

SIZES = [override for override in TINY if override.startswith("data")]
OTHERS = [override for override in TINY if override not in SIZES]

RUN = [
    *TINY, "data.train_size=400", "data.batch_size=8", "trainer.max_epochs=4", "model.dropout=0.3", "resume=auto",
    "hydra.run.dir=run",
]  # fmt: skip

GROUPS = ("data", "model", "optimizer", "scheduler", "search", "metrics", "callbacks", "trainer", "logger")
"""Groups of configs whose keys get odd values."""

VARIANTS = {
    "GRU": ["checkpoint.every_n_steps=7"],
    "LSTM": ["model=lstm", "checkpoint.every_n_steps=3"],
    "workers": ["data.num_workers=2", "checkpoint.every_n_steps=5"],
    "averaged weights": ["weight_averaging=0.9", "checkpoint.every_n_steps=1"],
    "two processes": ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "checkpoint.every_n_steps=4"],
    "validation in mid-epoch": ["trainer.val_check_interval=20", "checkpoint.every_n_steps=9"],
}


def start(folder: Path, overrides: list[str]) -> subprocess.Popen[bytes]:
    """Start a run in a process group of its own."""
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *RUN, *overrides]
    output = (folder / "output.txt").open("ab")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, env=environment, start_new_session=True)


def ending(folder: Path) -> dict[str, Any]:
    """Return what a run leaves that no clock has touched."""
    run = folder / "run"
    found: dict[str, Any] = {name: (run / name).read_text() for name in ("metrics.csv", "predictions.tsv")}
    for name in ("best", "last"):
        content = torch.load(run / f"{name}.ckpt", weights_only=True)
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "loops", "epoch", "global_step"):
            found[f"{name} {part}"] = str(plain(content[part]))
    metrics = (run / "metrics.json").read_text().splitlines()
    return found | {
        "metrics.json": [line for line in metrics if "seconds" not in line and "best_checkpoint" not in line]
    }


def plain(tree: Any) -> Any:
    """Return nested values with tensors as lists, so that all of their digits are compared."""
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [plain(value) for value in tree]
    return tree.tolist() if isinstance(tree, torch.Tensor) else tree


def kill_runs(kills: int, generator: random.Random) -> Iterator[str]:
    """Kill runs at random moments and start them again; yield what differs in the end."""
    done = 0
    while done < kills:
        name = generator.choice(list(VARIANTS))
        with tempfile.TemporaryDirectory() as scratch:
            whole, parts = Path(scratch) / "whole", Path(scratch) / "parts"
            whole.mkdir()
            parts.mkdir()
            begin = time.monotonic()
            start(whole, VARIANTS[name]).wait()
            seconds = time.monotonic() - begin
            moments = []
            for _ in range(min(generator.randint(2, 6), kills - done)):
                process = start(parts, VARIANTS[name])
                moments.append(generator.uniform(0, seconds))
                time.sleep(moments[-1])
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                done += 1
            code = start(parts, VARIANTS[name]).wait()
            at = f"{name}, killed after {', '.join(f'{moment:.2f}' for moment in moments)} of {seconds:.2f} s"
            if code != 0:
                yield f"{at}: exit code {code}: {(parts / 'output.txt').read_text()[-500:]}"
                continue
            one, other = ending(whole), ending(parts)
            differing = [key for key in one if one[key] != other[key]]
            print(f"{done:4} kills: {at}: {'differs' if differing else 'the same'}", flush=True)
            if differing:
                yield f"{at}: {', '.join(differing)}"


def damaged(content: bytes, generator: random.Random) -> bytes:
    """Return bytes with a few of them changed, or cut off, or with others in between."""
    changed = bytearray(content)
    for _ in range(generator.randint(1, 4)):
        place = generator.randrange(len(changed) + 1)
        match generator.randrange(4):
            case 0 if place < len(changed):
                changed[place] ^= 1 << generator.randrange(8)
            case 1:
                changed[place:place] = generator.randbytes(generator.randint(1, 20))
            case 2:
                del changed[place : place + generator.randint(1, 20)]
            case _:
                del changed[place + generator.randint(0, 200) :]
    return bytes(changed)


def try_inputs(count: int, generator: random.Random) -> Iterator[str]:
    """Read damaged files; yield what ends neither in success nor in one line."""
    with tempfile.TemporaryDirectory() as scratch, initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        folder = Path(scratch)
        train(compose("train", TINY), folder / "run")
        pairs = "".join(f"{chr(97 + n % 26)} é\tx{n}\n" for n in range(40)).encode()
        checkpoint = (folder / "run" / "best.ckpt").read_bytes()
        kinds: dict[str, Callable[[], object]] = {
            "TSV": lambda: read_pairs(folder / "a.tsv", damaged(pairs, generator)),
            "gzip": lambda: read_pairs(folder / "a.tsv.gz", damaged(gzip.compress(pairs), generator)),
            "checkpoint": lambda: predict(folder / "x.ckpt", damaged(checkpoint, generator)),
        }
        results: Counter[str] = Counter()
        for number in range(count):
            kind = list(kinds)[number % len(kinds)]
            try:
                kinds[kind]()
                results[f"{kind}: accepted"] += 1
            except (UserError, HydraException) as error:
                results[f"{kind}: refused"] += 1
                if isinstance(error, UserError) and "\n" in str(error):
                    yield f"{kind}, input {number}: several lines: {error}"
            except Exception as error:
                yield f"{kind}, input {number}: {type(error).__name__}: {error}"
        print(dict(sorted(results.items())))


def try_settings(count: int, generator: random.Random) -> Iterator[str]:
    """Train with odd settings; yield what ends neither in success nor in one line that names the key."""
    values = ["-1", "nan", "foo", "1e10", "null", "[]", "{}", "''", "true", "0", "1.5", "${seed}", "{a: 1}"]
    groups = [folder for folder in (ROOT / "configs").iterdir() if folder.name in GROUPS]
    results: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch, initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cases = []
        small = small_data(Path(scratch))
        for group in groups:
            for choice in sorted(group.glob("*.yaml")):
                if group.name == "logger" and choice.stem != "csv" and not find_spec(choice.stem):
                    continue  # the extra is not installed
                data = small[choice.stem if group.name == "data" else "reverse"]
                base = [*OTHERS, *data, f"{group.name}={choice.stem}"]
                keys = keys_of(OmegaConf.to_container(compose("train", base)))  # pyright: ignore[reportArgumentType]
                cases += [(base, key, value) for key in keys if key.startswith(group.name) for value in values]
        for number, (base, key, value) in enumerate(generator.sample(cases, min(count, len(cases)))):
            output_dir = Path(scratch) / str(number)
            try:
                with redirect_stdout(io.StringIO()):
                    train(compose("train", [*base, f"{key}={value}"]), output_dir)
                results["accepted"] += 1
            except HydraException:
                results["refused by Hydra"] += 1
            except UserError as error:
                results["refused"] += 1
                if key not in str(error) or "\n" in str(error):
                    yield f"{key}={value}: {error}"
                if output_dir.exists():
                    yield f"{key}={value} leaves {output_dir}"
            except Exception as error:
                yield f"{key}={value}: {type(error).__name__}: {error}"
    print(f"{len(cases)} settings of {len(groups)} groups: {dict(sorted(results.items()))}")


def small_data(folder: Path) -> dict[str, list[str]]:
    """Return, for each source of data, what makes it small; the files are written to a folder."""
    pairs = [(f"{one}{two}", f"{two} {one}") for one in "abcdef" for two in "ghi"]
    contents = {
        "a.tsv": ["\t".join(pair) for pair in pairs], "a.dict": ["  ".join(pair) for pair in pairs],
        "a.source": [source for source, _ in pairs], "a.target": [target for _, target in pairs],
    }  # fmt: skip
    for name, lines in contents.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    splits = ("train", "val", "test")
    return {
        "reverse": SIZES, "dates": ["data=dates", *(f"data.{split}_size=20" for split in splits)],
        "tsv": ["data=tsv", *(f"data.{split}={folder}/a.tsv" for split in splits)],
        "parallel": ["data=parallel", *(f"data.{split}=[{folder}/a.source,{folder}/a.target]" for split in splits)],
        "cmudict": ["data=cmudict", f"data.file={folder}/a.dict", "data.val_share=0.2", "data.test_share=0.2"],
    }  # fmt: skip


def keys_of(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of nested mappings that hold a value."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from keys_of(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def read_pairs(path: Path, content: bytes) -> None:
    """Encode the pairs of a file."""
    path.write_bytes(content)
    settings = {
        "task": "tsv", "train": str(path), "val": str(path), "test": None, "source_column": 1, "target_column": 2,
        "min_count": 1, "max_length": 50, "batch_size": 4, "max_epochs": 1, "num_workers": 0,
        "source_tokens": "characters", "target_tokens": "characters",
    }  # fmt: skip
    prepare(build_source(settings), ["train", "val"])


def predict(path: Path, content: bytes) -> None:
    """Predict with a checkpoint."""
    path.write_bytes(content)
    load(path)(["a b"])


def main() -> int:
    """Torture, and return the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--settings", type=int, default=10_000)
    given = parser.parse_args()
    print(f"seed {given.seed}")
    torch.set_num_threads(1)
    generator = random.Random(given.seed)
    failures = [
        *kill_runs(given.kills, generator),
        *try_inputs(given.inputs, generator),
        *try_settings(given.settings, generator),  # at last: a process group is left behind
    ]
    print(*failures, f"{len(failures)} failures", sep="\n")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
