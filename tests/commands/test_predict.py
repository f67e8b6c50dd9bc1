"""Prediction line by line: files in and out, several lines for one, log-probabilities and attention."""

import json
import os
from threading import Thread

import pytest
from conftest import TINY

from seq2seq.api import load
from seq2seq.checkpoint import load_model
from seq2seq.commands.predict import Arriving, PredictSettings, make_predictor, predict
from seq2seq.commands.train import train
from seq2seq.errors import UserError
from seq2seq.settings import read_settings, resolve_config

LINES = ["a b c", "", "d", "é z", "   ", "c b a q r"]


@pytest.fixture(scope="module")
def predictor(tiny_checkpoint):
    return load(tiny_checkpoint)


@pytest.fixture
def predicted(compose, tiny_checkpoint, tmp_path, monkeypatch):
    """What the script writes for `LINES` with overrides, as lines."""

    def run(*overrides):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "in.txt").write_text("".join(line + "\n" for line in LINES))
        predict(
            compose(
                "predict",
                f"checkpoint={tiny_checkpoint}",
                "input=in.txt",
                "output=out.txt",
                "overwrite=true",
                *overrides,
            )
        )
        return (tmp_path / "out.txt").read_text().splitlines()

    return run


def test_n_lines_for_each_line_three_empty_ones_for_an_empty_one(predicted):
    lines = predicted("search.beam_size=5", "search.n_best=3")

    assert len(lines) == 3 * len(LINES)
    assert lines[3:6] == lines[12:15] == [""] * 3
    assert lines[::3] == predicted("search.beam_size=5")


def test_a_score_stands_behind_a_tab(predicted):
    lines = predicted("search.beam_size=5", "search.n_best=2", "scores=true")

    assert [line.count("\t") for line in lines] == [1] * 2 * len(LINES)
    scores = [float(line.split("\t")[1]) for line in lines]
    assert all(best >= second for best, second in zip(scores[::2], scores[1::2], strict=True))  # of each text
    assert all(score < 0 for score in scores[:2])
    assert lines[2] == "\t0.0000"
    assert [line.split("\t")[0] for line in lines] == predicted("search.beam_size=5", "search.n_best=2")


def test_what_is_drawn_depends_on_the_seed(predicted):
    one, again, other = (predicted("search=sample", f"search.seed={seed}", "search.n_best=4") for seed in (1, 1, 2))

    assert one == again != other
    assert len(one) == 4 * len(LINES)


def test_attention_is_written_as_json_lines(predicted, tmp_path):
    lines = predicted("attention=attention.jsonl")

    rows = [json.loads(line) for line in (tmp_path / "attention.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["source"] for row in rows] == [line.split() for line in LINES]
    for row, line in zip(rows, lines, strict=True):
        assert row["prediction"][: len(line.split())] == line.split()
        assert all(sum(weights) == pytest.approx(1, abs=1e-4) for weights in row["weights"])
        assert {len(weights) for weights in row["weights"]} <= {len(row["source"])}


def test_a_model_without_attention_has_none_to_show_and_leaves_no_folder(compose, tmp_path, monkeypatch):
    train(compose("train", *TINY, "model.attention=none"), tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("a b\n")

    with pytest.raises(
        UserError, match=r"attention=True: the checkpoint has model\.attention=none, so there are no weig"
    ):
        predict(compose("predict", "checkpoint=run/best.ckpt", "input=in.txt", "attention=true"))

    assert not (tmp_path / "attention").exists()


@pytest.mark.parametrize("temperature", [0.01, 99])
def test_any_temperature_draws(predicted, temperature):
    assert len(predicted("search=sample", f"search.temperature={temperature}")) == len(LINES)


@pytest.mark.parametrize(("given", "folder"), [("true", "attention"), ("'some folder'", "some folder")])
@pytest.mark.pictures
def test_attention_is_drawn_for_each_line_that_is_not_empty(predicted, tmp_path, given, folder):
    predicted(f"attention={given}")

    assert sorted(path.name for path in (tmp_path / folder).iterdir()) == ["1.png", "3.png", "4.png", "6.png"]


def test_a_line_that_is_too_long_for_a_heatmap_is_named(compose, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("a\n" + "a " * 81 + "\n")

    with pytest.raises(
        UserError, match=r"attention: line 2 has 81 tokens, and a heatmap holds 80; give a file that ends"
    ):
        predict(compose("predict", f"checkpoint={tiny_checkpoint}", "input=in.txt", "output=out.txt", "attention=true"))


@pytest.mark.parametrize("search", [["search.beam_size=3", "search.n_best=2"], ["search=sample", "search.seed=4"]])
def test_any_number_of_workers_predicts_the_same(compose, tiny_checkpoint, tmp_path, monkeypatch, search):
    monkeypatch.setattr("seq2seq.commands.predict.CHUNK", 10)  # several chunks, the last too short for workers
    source, written = tmp_path / "in.txt", []
    source.write_text("".join(line + "\n" for line in [*LINES, "a b", "c c c", "d e"] * 5))

    for workers in (0, 1, 2):
        target = tmp_path / f"{workers}.txt"
        given = [f"checkpoint={tiny_checkpoint}", f"input={source}", f"output={target}", "batch_size=2", "scores=true"]
        predict(compose("predict", *given, *search, f"workers={workers}"))
        written.append(target.read_text())

    assert written[0] == written[1] == written[2]


@pytest.mark.parametrize(("given", "expected"), [("in.txt", "auto"), (None, 0)])
def test_workers_are_started_for_files_only(compose, tiny_checkpoint, tmp_path, monkeypatch, given, expected):
    """Others may hold a single line, and wait for its prediction."""
    (tmp_path / "in.txt").touch()
    path = None if given is None else tmp_path / given
    values = resolve_config(compose("predict", "checkpoint=x")) | {"input": path and str(path)}
    settings = read_settings(PredictSettings, values)
    monkeypatch.setattr("seq2seq.commands.predict.Predictor", lambda *arguments: arguments[-1])

    assert make_predictor(settings, [load_model(str(tiny_checkpoint))], "cpu") == expected


@pytest.fixture
def pipe():
    """Both ends of a pipe: a function that writes text, and what reads its lines as they arrive."""
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as source, os.fdopen(write_end, "wb", buffering=0) as sink:
        yield sink, Arriving(source)


def test_what_has_arrived_is_a_chunk_of_at_most_the_given_size(pipe):
    sink, arriving = pipe
    chunks = arriving.chunks("<stdin>", 3)

    sink.write("a\n\né\nd\npart of ".encode())
    assert next(chunks) == [(1, "a"), (2, ""), (3, "é")]
    assert next(chunks) == [(4, "d")]  # and the fifth line is not waited for
    sink.write(b"a line\r\nlast, without an end")
    assert next(chunks) == [(5, "part of a line")]
    sink.close()
    assert list(chunks) == [[(6, "last, without an end")]]


def test_lines_behind_those_that_were_too_many_at_once_keep_their_order(pipe):
    sink, arriving = pipe
    lines = [f"{number:099d}" for number in range(3000)]  # more than is read at a time, or fits into a pipe
    writer = Thread(target=lambda: (sink.write("\n".join(lines).encode()), sink.close()))
    writer.start()

    chunks = list(arriving.chunks("<stdin>", 500))

    writer.join()
    assert [line for chunk in chunks for _, line in chunk] == lines
    assert max(map(len, chunks)) <= 500
    assert len(chunks) < 100


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a\nb \xff\n", "<stdin>:2: byte 3 of the line, 0xff, is not UTF-8"),
     (b"a\n" + b"b" * 1_000_100, "<stdin>:2: the line has more than 1000000 bytes")],
)  # fmt: skip
def test_a_bad_line_of_a_pipe_is_named(pipe, content, message):
    sink, arriving = pipe
    writer = Thread(target=lambda: (sink.write(content), sink.close()))
    writer.start()

    with pytest.raises(UserError, match=message):
        list(arriving.chunks("<stdin>", 500))

    writer.join(timeout=60)


def test_a_file_of_many_chunks_keeps_its_order(compose, predictor, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("seq2seq.commands.predict.CHUNK", 1)
    source, target = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("".join(line + "\n" for line in LINES * 5))
    with source.open("rb") as file:
        assert [len(chunk) for chunk in Arriving(file).chunks("in.txt", 7)] == [7, 7, 7, 7, 2]

    predict(compose("predict", f"checkpoint={tiny_checkpoint}", f"input={source}", f"output={target}", "batch_size=7"))

    assert target.read_text() == "".join(text + "\n" for text in predictor(LINES) * 5)


def test_a_file_is_complete_or_absent(compose, tiny_checkpoint, tmp_path):
    source, target = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_bytes(b"a b\nc \xff\n")
    target.write_text("older\n")

    with pytest.raises(UserError, match=f"{source}:2: byte 3 of the line, 0xff, is not UTF-8"):
        predict(
            compose("predict", f"checkpoint={tiny_checkpoint}", f"input={source}", f"output={target}", "overwrite=true")
        )

    assert target.read_text() == "older\n"
    assert {path.name for path in tmp_path.iterdir()} == {"in.txt", "out.txt"}


@pytest.mark.parametrize(("key", "name"), [("output", "out.txt"), ("attention", "weights.jsonl")])
def test_a_file_that_exists_is_replaced_only_on_request(compose, tiny_checkpoint, tmp_path, key, name):
    (tmp_path / "in.txt").write_text("a b\n")
    (tmp_path / name).write_text("older\n")
    given = [f"checkpoint={tiny_checkpoint}", f"input={tmp_path}/in.txt", f"{key}={tmp_path}/{name}"]

    with pytest.raises(UserError, match=rf"{key}={tmp_path}/{name} exists; give overwrite=true to replace it"):
        predict(compose("predict", *given))
    assert (tmp_path / name).read_text() == "older\n"

    predict(compose("predict", *given, "overwrite=true"))
    assert (tmp_path / name).read_text() != "older\n"


def test_a_checkpoint_is_never_replaced(compose, tiny_checkpoint):
    given = [f"checkpoint={tiny_checkpoint}", f"output={tiny_checkpoint}", "overwrite=true"]

    with pytest.raises(UserError, match=f"output={tiny_checkpoint} is the checkpoint, which would be lost"):
        predict(compose("predict", *given))


def test_a_link_stays_and_a_pipe_is_written_to(compose, tiny_checkpoint, tmp_path):
    (tmp_path / "in.txt").write_text("a b\n")
    (tmp_path / "real.txt").write_text("older\n")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    given = [f"checkpoint={tiny_checkpoint}", f"input={tmp_path / 'in.txt'}"]

    for name in ("link.txt", "pipe"):
        predict(compose("predict", *given, f"output={tmp_path / name}", "overwrite=true"))

    assert (tmp_path / "link.txt").is_symlink()
    assert os.read(reader, 1000).decode() == (tmp_path / "real.txt").read_text() != "older\n"
    os.close(reader)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["input=none.txt"], r"input=none\.txt cannot be read: No such file or directory"),
        (["output=none/out.txt"], r"output=none/out\.txt cannot be written: No such file or directory"),
        (["output=in.txt", "input=./in.txt"], r"output=in\.txt is the input, which would be lost; give another file"),
        (["input=2024"], r"input=2024 cannot be read: No such file or directory"),
        (["device=null"], r"device=null must be a string"),
        (["device=meta"], r"device=meta is not available here; use auto or cpu"),
        (["+foo=1"], r"foo is unknown; the keys are attention, backend, batch_size, "),
        (["device=abacus"], r"device=abacus is not available here; use auto or cpu"),
        (["batch_size=0"], r"batch_size=0 must be a whole number of at least 1"),
        (["search.max_length=0"], r"search\.max_length=0 must be a whole number of at least 1"),
        (
            ["search.max_length=100001"],
            r"search\.max_length=100001 must be a whole number of at least 1 and at most 100000",
        ),
        (["search.beam_size=0"], r"search\.beam_size=0 must be a whole number of at least 1"),
        (["search.beam_size=28"], r"search\.beam_size=28 must be a whole number of at least 1 and at most 27"),
        (["search.beam_size=2", "search.n_best=3"], r"search\.n_best=3 must be at most search\.beam_size=2"),
        (["search.normalisation=mean"], r"search\.normalisation=mean must be one of gnmt, average, none"),
        (["search.alpha=-1"], r"search\.alpha=-1 must be a number of at least 0"),
        (["search=sample", "search.temperature=0"], r"search\.temperature=0 must be a number of at least 0\.01"),
        (["search=sample", "search.top_p=0"], r"search\.top_p=0 must be a number above 0 and at most 1"),
        (["search.alpha=1000"], r"search\.alpha=1000 must be a number of at least 0 and below 10"),
        (
            ["attention=x.jsonl", "output=x.jsonl"],
            r"attention=x\.jsonl is the output, which would be lost; give another",
        ),
        (["search=sample", "search.top_p=1.5"], r"search\.top_p=1\.5 must be a number above 0 and at most 1"),
        (["search=sample", "search.top_k=-1"], r"search\.top_k=-1 must be a whole number of at least 0"),
        (["search.kind=best"], r"search\.kind=best must be one of beam, sample"),
        (["+search.top_k=3"], r"search\.top_k is unknown; the keys of search are alpha, beam_size, "),
        (["scores=1"], r"scores=1 must be true or false"),
        (["attention=."], r"attention=\. exists; give a new folder, or a file that ends in \.jsonl"),
        (["attention=in.txt/x"], r"attention=in\.txt/x cannot be created: Not a directory"),
    ],
)
def test_a_mistake_is_named(compose, tiny_checkpoint, tmp_path, monkeypatch, overrides, message):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "in.txt"
    source.write_text("a b\n")

    with pytest.raises(UserError, match=message):
        predict(compose("predict", f"checkpoint={tiny_checkpoint}", f"input={source}", *overrides))


def test_the_checkpoint_must_be_given(compose):
    with pytest.raises(UserError, match="checkpoint is missing: give checkpoint=VALUE"):
        predict(compose("predict"))
