"""What to do with a trained model, as commands to copy."""

import os
import shlex
import sys
from pathlib import Path

from seq2seq.runs.directory import PREDICTIONS


def next_steps(output_dir: Path, checkpoint: str) -> list[str]:
    """Return three lines: a prediction to try, the handoff to look at, and where to read on."""
    script = Path(sys.argv[0])  # scripts/train.py, or the command seq2seq-train
    python = "python" if os.environ.get("VIRTUAL_ENV") or sys.prefix == sys.base_prefix else nearby(sys.executable)

    def command(name: str) -> str:
        own = f"{python} {nearby(script.with_name(f'{name}.py'))}"
        installed = f"seq2seq-{name.replace('_', '-')}"
        return f"{own if script.suffix else installed} checkpoint={shlex.quote(nearby(checkpoint))}"

    lines = (output_dir / PREDICTIONS).read_text(encoding="utf-8").splitlines()[1:20]
    sources = [line.partition("\t")[0] for line in lines]
    source = next(filter(str.isascii, sources), sources[0])  # which any terminal can show
    reading = (
        "docs/handoff.md, why h_n is handed over as it is, and the README" if script.suffix else "seq2seq-train --help"
    )
    return [
        f"try it:       echo {shlex.quote(source)} | {command('predict')}",
        f"the handoff:  {nearby(output_dir / 'handoff.png')}, or {command('explain_handoff')}",
        f"read on:      {reading}",
    ]


def nearby(path: Path | str) -> str:
    """Return a path relative to the working directory if it is below it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
