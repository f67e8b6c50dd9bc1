"""What to do with a trained model, as commands to copy."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path


def next_steps(output_dir: Path, checkpoint: str, texts: Sequence[str], parts: str | list[str] | None) -> list[str]:
    """Return three lines: a prediction to try, the handoff to look at, and where to read on.

    Args:
        output_dir: Of the run.
        checkpoint: Its best one.
        texts: Some sources; tabs separate their columns.
        parts: What the key ``parts`` holds.
    """
    script = Path(sys.argv[0])  # scripts/train.py, or the command seq2seq-train
    python = "python" if os.environ.get("VIRTUAL_ENV") or sys.prefix == sys.base_prefix else nearby(sys.executable)
    given = f"parts=[{','.join(parts)}]" if isinstance(parts, list) else f"parts={parts}"
    arguments = [f"checkpoint={nearby(checkpoint)}", *([given] if parts else [])]

    def command(name: str) -> str:
        own = f"{python} {nearby(script.with_name(f'{name}.py'))}"
        installed = f"seq2seq-{name.replace('_', '-')}"
        return " ".join([own if script.suffix else installed, *map(shlex.quote, arguments)])

    text = next(filter(str.isascii, texts), texts[0])  # which any terminal can show
    text = text.replace("\\", r"\\").replace("%", "%%").replace("\t", r"\t") + r"\n"  # as printf reads it
    reading = "docs/handoff.md, why h_n is handed over as it is" if script.suffix else "seq2seq-train --help"
    return [
        f"try it:       printf {shlex.quote(text)} | {command('predict')}",
        f"the handoff:  {nearby(output_dir / 'handoff.png')}, or {command('explain_handoff')}",
        f"read on:      {reading}",
    ]


def nearby(path: Path | str) -> str:
    """Return a path relative to the working directory if it is below it."""
    absolute, here = Path(path).absolute(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(path)
