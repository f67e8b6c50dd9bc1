"""Large training sets: encoded once, on the disk."""

import multiprocessing
import shutil
from pathlib import Path

import pytest
import torch

from seq2seq.data import build_source, preparation, prepare
from seq2seq.data.cache import build_once, cache_folder
from seq2seq.data.dataset import CHUNK
from seq2seq.errors import UserError
from seq2seq.training.datamodule import PairsDataModule

SETTINGS = {
    "task": "tsv", "val": None, "test": None, "source_column": 1, "target_column": 2, "min_count": 2,
    "max_length": 9, "batch_size": 2, "max_epochs": 1, "num_workers": 0,
    "source_tokens": "characters", "target_tokens": "characters",
}  # fmt: skip
LINES = "abc\tx\nabd\ty\nca\tx\nbb\tyx\n"


@pytest.fixture
def data(tmp_path, monkeypatch):
    def make(limit=0, **changes):
        monkeypatch.setattr(preparation, "LARGE", limit)
        return PairsDataModule(
            prepare(build_source(SETTINGS | {"train": str(tmp_path / "pairs.tsv")} | changes), ["train"])
        )

    (tmp_path / "pairs.tsv").write_text(LINES)
    return make


def forbid_reading(monkeypatch):
    monkeypatch.setattr("seq2seq.data.sources.TSV.pairs", lambda _, split: pytest.fail(f"{split} was read"))


def batches(data):
    return [[tensor.tolist() for tensor in batch[:5]] for batch in data.train_dataloader()]


@pytest.mark.parametrize("chunk", [3, CHUNK])
def test_a_cache_gives_the_same_batches_and_vocabularies_as_memory(data, tmp_path, monkeypatch, chunk):
    monkeypatch.setattr("seq2seq.data.dataset.CHUNK", chunk)
    in_memory = data(limit=10**9)
    assert batches(in_memory)
    assert not (tmp_path / ".cache").exists()  # small files use none

    cold_batches = batches(data())
    forbid_reading(monkeypatch)
    warm = data()

    assert batches(warm) == cold_batches == batches(in_memory)
    assert warm.prepared.tokenizers.source.to_dict() == in_memory.prepared.tokenizers.source.to_dict()


def test_another_content_or_setting_makes_another_cache(data, tmp_path):
    def folders():
        return {path for path in (tmp_path / ".cache").iterdir() if path.is_dir()}

    data()
    first = folders()
    data(batch_size=3, num_workers=1)
    assert folders() == first
    data(min_count=1)
    second = folders()
    (tmp_path / "pairs.tsv").write_text(LINES.replace("abd", "add"))
    data()

    assert len(first) == 1
    assert len(second) == 2
    assert len(folders()) == 3


def test_a_cache_may_be_elsewhere(data, tmp_path):
    data(cache_dir=str(tmp_path / "elsewhere"))

    assert (tmp_path / "elsewhere").is_dir()
    assert not (tmp_path / ".cache").exists()


def test_beside_a_folder_that_cannot_be_written_the_users_cache_is_used(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("os.access", lambda *_: False)

    assert cache_folder(None, [str(tmp_path / "a")], {}).parent == tmp_path / "home" / "seq2seq"


def test_a_cache_that_was_being_built_when_the_process_died_is_built_again(data, tmp_path):
    first = data()
    expected = batches(first)
    (folder,) = (path for path in (tmp_path / ".cache").iterdir() if path.is_dir())
    half = folder.with_name(f"{folder.name}.partial")
    shutil.move(folder, half)
    (half / "source.ids").write_bytes(b"")

    assert batches(data()) == expected
    assert not half.exists()


def test_a_mistake_in_the_file_leaves_no_cache(data, tmp_path):
    (tmp_path / "pairs.tsv").write_text("abc\tx\nabd\ty\nca\n")

    with pytest.raises(UserError, match=r"pairs\.tsv:3: "):
        data()

    assert not [path for path in (tmp_path / ".cache").iterdir() if path.is_dir()]


def test_a_missing_file_among_large_ones_is_named(data, tmp_path):
    with pytest.raises(UserError, match=r"data\.train=.*missing\.tsv cannot be read: No such file"):
        data(train=[str(tmp_path / "pairs.tsv"), str(tmp_path / "missing.tsv")])


def count_build(folder, start):
    start.wait()
    build_once(
        lambda: Path(folder),
        [],
        lambda partial: (partial / f"{multiprocessing.current_process().pid}").touch(),
        lambda _: None,
    )


def test_of_two_processes_one_builds(tmp_path):
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)
    processes = [context.Process(target=count_build, args=(str(tmp_path / "c"), start)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list((tmp_path / "c").iterdir())) == 1


def test_workers_share_the_mapped_files(data):
    alone = batches(data())

    assert batches(data(num_workers=2)) == alone


def test_a_batch_has_at_most_so_many_tokens_of_a_side_and_an_epoch_as_many_batches(data, tmp_path):
    lines = "".join(f"{'a' * (1 + number % 8)}\t{'b' * (1 + number % 5)}\n" for number in range(60))
    (tmp_path / "pairs.tsv").write_text(lines)
    counts = set()
    for epoch in range(3):
        loader = data(limit=10**9, batch_size=20, batch_tokens=24).train_dataloader()
        loader.sampler.set_epoch(epoch)
        found = list(loader)
        for batch in found:
            longest = max(int(batch.source_lengths.max()), int(batch.target_lengths.max()) - 1)
            assert longest * len(batch.indices) <= 24
        assert sorted(torch.cat([batch.indices for batch in found]).tolist()) == list(range(60))
        assert len(found) == len(loader)
        counts.add(len(found))

    assert len(counts) == 1
