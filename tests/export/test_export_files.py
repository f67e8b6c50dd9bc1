"""The export command, the files it leaves, and who reads them: the reader in ``examples`` and ``backend=onnx``."""

import json
import os
import pickle
import runpy
import subprocess
import sys

import onnx
import pytest
import torch
from conftest import ROOT, TINY
from spoiled import spoiled

from seq2seq.api import load, load_model
from seq2seq.commands.export import export
from seq2seq.commands.predict import predict
from seq2seq.commands.train import train
from seq2seq.decoding import Beam, Ensemble, to_lists
from seq2seq.errors import UserError
from seq2seq.export import files
from seq2seq.export.backend import Graph, load_exports

TEXTS = ["a b c", "d", "z é", "c b a q r"]


@pytest.fixture(scope="module")
def folder(compose, tiny_checkpoint, tmp_path_factory):
    """The export of ``tiny_checkpoint``."""
    folder = tmp_path_factory.mktemp("export") / "new" / "folder"
    export(compose("export", f"checkpoint={tiny_checkpoint}", f"output={folder}"))
    return folder


@pytest.fixture
def copy(folder, tmp_path):
    """A copy of the export, to be damaged."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def read_without_torch(folder, texts, *arguments):
    """What the reader of ``examples`` prints, in a process that cannot import PyTorch."""
    code = "import runpy, sys; sys.modules['torch'] = None; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    command = [sys.executable, "-c", code, str(ROOT / "examples" / "onnx_reader.py"), str(folder), *arguments]
    return subprocess.run(
        command, input="".join(text + "\n" for text in texts), capture_output=True, text=True, check=False, timeout=60
    )


def predicted(compose, tmp_path, texts, *overrides):
    (tmp_path / "in.txt").write_text("".join(text + "\n" for text in texts))
    files = [f"input={tmp_path}/in.txt", f"output={tmp_path}/out.txt", "overwrite=true"]
    predict(compose("predict", *files, *overrides))
    return (tmp_path / "out.txt").read_text().splitlines()


@pytest.mark.parametrize("arguments", [[], ["4"]])
def test_the_reader_predicts_the_same_without_pytorch(compose, folder, tiny_checkpoint, tmp_path, arguments):
    texts = ["\ufeffa b c", *TEXTS, "", "  ", "a\x0bb c\u2028d", "a\r"]

    result = read_without_torch(folder, texts, *arguments)

    assert result.stderr == ""
    beam = [f"search.beam_size={size}" for size in arguments]
    assert result.stdout.splitlines() == predicted(compose, tmp_path, texts, f"checkpoint={tiny_checkpoint}", *beam)


def test_the_beam_of_the_reader_is_that_of_the_project(folder, tiny_checkpoint):
    reader = runpy.run_path(str(ROOT / "examples" / "onnx_reader.py"))["Reader"](folder)
    beam = Beam(reader.max_length, beam_size=5, n_best=5, normalisation="gnmt", alpha=0.6)
    module = load_model(str(tiny_checkpoint))
    (encoded,) = (Ensemble([module.model]).encode(torch.tensor([[4, 6, 9]]), torch.tensor([3])),)

    expected = beam(Ensemble([module.model]), encoded)
    found = reader.beam(module.tokenizers.source.decode([4, 6, 9]), size=5)

    assert [text for _, text in found] == [module.tokenizers.target.decode(ids) for ids in to_lists(expected.tokens[0])]
    torch.testing.assert_close(
        torch.tensor([score for score, _ in found]), expected.scores[0], rtol=0, atol=1e-5, check_dtype=False
    )


def test_the_reader_splits_columns_and_knows_the_other_tokens(compose, tmp_path):
    # Targets are not composed; a source has two columns, and one of features, which may be empty.
    forms = [f"{a}{b}\t{b}\u0301-{a}\tN;{b}\t{'PL ' * (a == 'Y')}{a}" for a in "XYÉ" for b in "aei"]
    (tmp_path / "forms.tsv").write_text("\n".join(forms) + "\n")
    columns = [f"data.{name}={tmp_path}/forms.tsv" for name in ("train", "val", "test")]
    tokens = "data.source_tokens=[characters,{name:split,separator:';'}]"
    own = ["data=tsv", *columns, "data.source_column=[1,3]", "data.target_column=2", tokens, "data.lower_case=true"]
    own += ["data.normalization={source: nfd, target: none}", "data.features_column=4", "data.features_tokens=spaces"]
    train(compose("train", *[o for o in TINY if not o.startswith("data")], *own, "trainer.max_epochs=3"), tmp_path)
    export(compose("export", f"checkpoint={tmp_path}/best.ckpt", f"output={tmp_path}/export"))

    texts = ["Xa\tN;a\tX", "ye\tN;E\tY PL", "Éi\tN;i\t", "Xa\tN;a\tPL DU", "\t;\tPL"]
    result = read_without_torch(tmp_path / "export", texts)

    expected = load(tmp_path / "best.ckpt")(texts)
    assert result.stderr == ""
    assert result.stdout.splitlines() == expected
    assert expected[4] == ""
    assert any("\u0301" in text for text in expected)


def test_a_reader_refuses_what_does_not_belong_together(copy):
    (copy / "encoder.onnx").write_bytes((copy / "decoder_step.onnx").read_bytes())

    result = read_without_torch(copy, ["a"])

    assert result.returncode == 1
    assert result.stderr == f"error: the files in {copy} do not belong together, or are damaged\n"


@pytest.mark.parametrize("beam_size", [1, 4])
def test_backend_onnx_predicts_the_same_from_a_checkpoint_a_folder_and_both(
    compose, folder, tiny_checkpoint, tmp_path, beam_size
):
    search = [f"search.beam_size={beam_size}", "scores=true", "batch_size=2"]
    expected = predicted(compose, tmp_path, TEXTS, f"checkpoint={tiny_checkpoint}", *search)

    for checkpoint in (folder, *([tiny_checkpoint, f"[{folder},{folder}]"] if beam_size == 1 else [])):
        found = predicted(compose, tmp_path, TEXTS, f"checkpoint={checkpoint}", "backend=onnx", *search)
        assert [line.split("\t")[0] for line in found] == [line.split("\t")[0] for line in expected]
        for one, other in zip(found, expected, strict=True):
            assert float(one.split("\t")[1]) == pytest.approx(float(other.split("\t")[1]), abs=2e-4)


def test_workers_open_sessions_of_their_own(compose, folder, tmp_path):
    settings = [f"checkpoint={folder}", "backend=onnx", "batch_size=1", "scores=true"]

    assert predicted(compose, tmp_path, TEXTS * 3, *settings, "workers=2") == predicted(
        compose, tmp_path, TEXTS * 3, *settings, "workers=0"
    )


def test_a_graph_can_be_sent_to_a_process_that_is_not_forked(folder):
    graph = Graph((folder / "encoder.onnx").read_bytes())

    assert pickle.loads(pickle.dumps(graph)).outputs == graph.outputs


def test_backend_onnx_writes_the_same_attention(compose, folder, tiny_checkpoint, tmp_path):
    def weights(*overrides):
        predicted(compose, tmp_path, TEXTS, f"attention={tmp_path}/attention.jsonl", *overrides)
        lines = (tmp_path / "attention.jsonl").read_text().splitlines()
        return [torch.tensor(json.loads(line)["weights"]) for line in lines]

    for ours, theirs in zip(weights(f"checkpoint={tiny_checkpoint}"), weights(f"checkpoint={folder}", "backend=onnx"),
                            strict=True):  # fmt: skip
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_backend_onnx_computes_on_the_cpu(compose, folder, tmp_path):
    with pytest.raises(UserError, match="device=cuda does not fit backend=onnx, which computes on the CPU"):
        predicted(compose, tmp_path, TEXTS, f"checkpoint={folder}", "backend=onnx", "device=cuda")


def test_an_export_says_which_handoff_its_model_was_trained_with(compose, tmp_path, capsys):
    train(compose("train", *TINY, "handoff=wrong_first_rows"), tmp_path)
    capsys.readouterr()

    export(compose("export", f"checkpoint={tmp_path}/best.ckpt", f"output={tmp_path}/export"))

    assert "trained with the mistake handoff=wrong_first_rows" in capsys.readouterr().out
    assert json.loads((tmp_path / "export" / "tokenizers.json").read_text())["handoff"] == "wrong_first_rows"
    for name in ("encoder.onnx", "decoder_step.onnx"):
        metadata = {one.key: one.value for one in onnx.load(tmp_path / "export" / name).metadata_props}
        assert metadata["handoff"] == "wrong_first_rows"


def test_an_export_is_not_replaced_unasked(compose, folder, tiny_checkpoint):
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}

    with pytest.raises(UserError, match=r"output=\S+encoder.onnx exists; give overwrite=true"):
        export(compose("export", f"checkpoint={tiny_checkpoint}", f"output={folder}"))

    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_an_export_that_differs_is_not_written(compose, folder, tiny_checkpoint, tmp_path, monkeypatch):
    right = files.read_export(folder)
    wrong = right._replace(encoder=spoiled(right.encoder))
    monkeypatch.setattr("seq2seq.commands.export.export_module", lambda _: wrong)

    with pytest.raises(UserError, match=r"the export differs from the checkpoint, and was not written: .*h_n"):
        export(compose("export", f"checkpoint={tiny_checkpoint}", f"output={tmp_path}/export"))

    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize("name", ["encoder.onnx", "decoder_step.onnx", "tokenizers.json"])
def test_a_part_that_is_missing_damaged_or_of_another_export_is_named(copy, name):
    whole = (copy / name).read_bytes()

    (copy / name).write_bytes(whole[:-200])
    with pytest.raises(UserError, match=f"checkpoint={copy}: {name} is damaged"):
        files.read_export(copy)
    if name == "tokenizers.json":
        (copy / name).write_bytes(whole.replace(b'"seq2seq_export": 1', b'"seq2seq_export": 9'))
        with pytest.raises(UserError, match="has format 9, and this version reads format 1 only"):
            files.read_export(copy)
    (copy / name).unlink()
    with pytest.raises(UserError, match=f"checkpoint={copy} lacks {name}: No such file"):
        files.read_export(copy)


def rewrite(folder, description):
    """Write a description, and checksums that fit it and the graphs."""
    encoder, step = ((folder / name).read_bytes() for name in files.FILES[:2])
    description["sha256"] = files.checksums(encoder, step, description)
    (folder / "tokenizers.json").write_text(json.dumps(description))


@pytest.mark.parametrize("reads", ["the project", "the reader of examples"])
@pytest.mark.parametrize(
    ("old", "new"), [('"c"', '"Q"'), ('"spaces"', '"characters"'), ('"max_length": ', '"max_length": 1'), ("{", "[")]
)
def test_a_description_that_was_changed_is_refused(copy, old, new, reads):
    path = copy / "tokenizers.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))

    if reads == "the project":
        with pytest.raises(UserError, match=rf"checkpoint={copy}: tokenizers\.json is damaged"):
            load_exports(copy)
    else:
        assert read_without_torch(copy, ["a"]).returncode == 1


@pytest.mark.parametrize("sums", [["a"], {}, None])
def test_checksums_that_are_none_are_refused(copy, sums):
    description = json.loads((copy / "tokenizers.json").read_text())
    (copy / "tokenizers.json").write_text(json.dumps(description | {"sha256": sums}))

    with pytest.raises(UserError, match=rf"checkpoint={copy}: tokenizers\.json is damaged"):
        load_exports(copy)


@pytest.mark.parametrize("name", files.FILES)
def test_a_pipe_among_the_files_is_refused_before_anything_waits_for_it(copy, name):
    (copy / name).unlink()
    os.mkfifo(copy / name)

    with pytest.raises(UserError, match=f"checkpoint={copy}/{name} must be a file, and not a pipe or a device"):
        load_exports(copy)


@pytest.mark.parametrize(
    "change",
    [
        {"source": None}, {"target": {}}, {"max_length": "long"}, {"max_length": 10**12}, {"max_length": True},
        {"target": {"tokens": "characters", "symbols": ["a"]}}, {"source": {"tokens": "subwords", "symbols": 5}},
    ],
)  # fmt: skip
def test_a_description_of_other_content_is_refused_even_if_its_checksum_fits(copy, change):
    rewrite(copy, json.loads((copy / "tokenizers.json").read_text()) | change)

    with pytest.raises(UserError, match=f"checkpoint={copy}:? .*damaged"):
        load_exports(copy)


@pytest.mark.parametrize("name", ["encoder.onnx", "decoder_step.onnx"])
@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_graph_that_is_none_is_refused_even_if_its_checksum_fits(copy, name, content):
    other = {"encoder.onnx": "decoder_step.onnx", "decoder_step.onnx": "encoder.onnx"}[name]
    (copy / name).write_bytes((copy / other).read_bytes() if content is None else content)
    rewrite(copy, json.loads((copy / "tokenizers.json").read_text()))

    with pytest.raises(UserError, match=f"checkpoint={copy} is damaged: "):
        load_exports(copy)


def test_all_files_of_an_export_are_replaced_or_none(folder, copy):
    export = files.read_export(folder)
    (copy / "tokenizers.json").unlink()
    (copy / "tokenizers.json").mkdir()
    before = (copy / "encoder.onnx").stat().st_mtime_ns

    with pytest.raises(UserError, match=f"output={copy}/tokenizers.json cannot be written: Is a directory"):
        files.write_export(export, copy)

    assert (copy / "encoder.onnx").stat().st_mtime_ns == before
    assert len([*copy.iterdir()]) == 3


@pytest.mark.parametrize("output", ["", "~nobody-of-this-name/x", "x" * 300])
def test_an_output_that_is_no_path_is_refused(compose, tiny_checkpoint, output):
    with pytest.raises(UserError, match="output="):
        export(compose("export", f"checkpoint={tiny_checkpoint}", f"output='{output}'"))


def test_predictions_do_not_replace_the_model(compose, copy):
    with pytest.raises(UserError, match=f"output={copy}/encoder.onnx is the checkpoint, which would be lost"):
        predict(
            compose("predict", f"checkpoint={copy}", "backend=onnx", f"output={copy}/encoder.onnx", "overwrite=true")
        )


def test_no_checkpoint_is_refused(compose):
    with pytest.raises(UserError, match=r"checkpoint=\[\] must name at least one file"):
        predict(compose("predict", "checkpoint=[]", "backend=onnx"))


@pytest.mark.parametrize("package", ["onnxscript", "onnxruntime"])
def test_what_an_export_needs_is_named_if_it_is_not_installed(compose, tiny_checkpoint, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(UserError, match=rf"the package {package} is not installed: pip install -e '.\[export\]'"):
        export(compose("export", f"checkpoint={tiny_checkpoint}", f"output={tmp_path}/export"))


def test_the_folder_of_an_export_is_no_checkpoint(compose, folder, tmp_path):
    with pytest.raises(UserError, match=f"checkpoint={folder} "):
        predicted(compose, tmp_path, TEXTS, f"checkpoint={folder}")
