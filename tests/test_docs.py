"""The pages in ``docs/`` are true: every key is explained, links lead somewhere, and every recipe runs."""

import re

import pytest
from conftest import ROOT
from omegaconf import OmegaConf

DOCS = sorted((ROOT / "docs").glob("*.md"))
CONFIGS = ROOT / "configs"
GROUPS = ("data", "model", "optimizer", "scheduler", "search", "metrics", "callbacks", "trainer", "logger")
WHOLE = ("metrics", "callbacks", "logger")  # an entry by name, whose arguments are those of its class


def keys_of(group):
    """The dotted keys of all files of a group."""
    found = set()
    for path in (CONFIGS / group).glob("*.yaml"):
        content = OmegaConf.to_container(OmegaConf.load(path)) or {}
        for key, value in content.items():
            if key in ("defaults", "_partial_"):
                continue
            nested = isinstance(value, dict) and group not in WHOLE
            found |= {f"{group}.{key}.{inner}" for inner in value} if nested else {f"{group}.{key}"}
    return found


def documented(section):
    page = (ROOT / "docs" / "configuration.md").read_text()
    text = page.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `([\w.]+)` \|", text, flags=re.MULTILINE))


@pytest.mark.parametrize("group", GROUPS)
def test_every_key_of_a_group_is_documented_and_nothing_else(group):
    assert documented(group) == keys_of(group)


def test_every_key_of_the_training_config_is_documented():
    content = OmegaConf.to_container(OmegaConf.load(CONFIGS / "train.yaml"))
    checkpoint = {f"checkpoint.{key}" for key in content.pop("checkpoint")}

    assert documented("train.yaml") == checkpoint | set(content) - {"defaults", "hydra"}


def test_every_group_and_every_option_is_named():
    page = (ROOT / "docs" / "configuration.md").read_text()

    for group in GROUPS:
        assert f"## {group}\n" in page
        for path in (CONFIGS / group).glob("*.yaml"):
            assert f"`{path.stem}`" in page


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert link.startswith("https://") or (page.parent / link).exists(), link


def test_every_module_of_a_package_with_a_page_is_on_one():
    package, pages = ROOT / "src" / "seq2seq", ("nn", "data", "decoding", "metrics", "training", "handoff", "export")
    modules = [path.relative_to(package).with_suffix("") for name in pages for path in (package / name).rglob("*.py")]
    expected = {".".join(one.parts) for one in modules if one.name != "__init__" and "fast" not in one.parts}

    shown = [
        name
        for page in (ROOT / "docs" / "api").glob("*.md")
        for name in re.findall("^::: seq2seq.(.+)$", page.read_text(), flags=re.MULTILINE)
    ]

    assert len(shown) == len(set(shown))
    assert expected <= set(shown)


def python_blocks(page):
    text = (ROOT / "docs" / page).read_text()
    return dict(re.findall(r"^```python (\w+)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE))


RECIPES = python_blocks("extending.md")


@pytest.fixture
def recipe(monkeypatch):
    """Runs a recipe of ``docs/extending.md``; what it registers is forgotten after the test."""
    from seq2seq.data.sources import SOURCES
    from seq2seq.data.tokenizer import TOKENIZERS
    from seq2seq.nn.attention import ATTENTIONS
    from seq2seq.nn.bridge import BRIDGES
    from seq2seq.nn.decoders import DECODERS

    for registry in (SOURCES, TOKENIZERS, ATTENTIONS, BRIDGES, DECODERS):
        for name in list(registry):
            monkeypatch.setitem(registry, name, registry[name])
    added = [(registry, set(registry)) for registry in (SOURCES, TOKENIZERS, ATTENTIONS, BRIDGES, DECODERS)]

    def run(name):
        scope = {}
        exec(RECIPES[name], scope)
        return scope

    yield run
    for registry, names in added:
        for name in set(registry) - names:
            del registry[name]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("attention", {"attention": {"name": "scaled", "temperature": 2.0}}),
        ("bridge", {"bridge": "backward", "decoder": {"hidden_size": 7}}),
        ("decoder", {"decoder": {"kind": "mean"}}),
    ],
)
def test_a_part_of_the_network_takes_a_class_and_a_line(recipe, name, changes):
    import torch
    from conftest import make_model

    from seq2seq.decoding import Beam, Ensemble

    recipe(name)
    model = make_model(**changes)
    source, lengths, targets = torch.randint(4, 10, (4, 5)), torch.tensor([3, 5, 1, 4]), torch.randint(4, 9, (4, 6))

    logits = model(source, lengths, targets).logits
    encoded = model.encode(source, lengths)
    for step in range(targets.size(1)):  # the contract of decoders: one token after another gives the same
        one, encoded = model.step(targets[:, step], encoded)
        torch.testing.assert_close(one, logits[:, step])
    ensemble = Ensemble([model])
    assert Beam(4, 3)(ensemble, ensemble.encode(source, lengths)).tokens.size(0) == 4


def test_a_tokenizer_and_a_source_take_a_class_and_a_line(recipe):
    from seq2seq.data import build_source, prepare
    from seq2seq.training.datamodule import PairsDataModule

    recipe("tokenizer")
    recipe("source")
    tokens = {"source_tokens": "bigrams", "target_tokens": "characters", "min_count": 1}
    settings = {"task": "doubles", "size": 20, "batch_size": 8, "max_epochs": 1, "num_workers": 0} | tokens
    data = prepare(build_source(settings), ["train", "val"])

    assert [pair.target for pair in data.pairs["val"]][:3] == ["2", "8", "14"]
    assert data.tokenizers.source.tokenize("17x") == ["17", "x"]
    assert sum(len(batch.indices) for batch in PairsDataModule(data).train_dataloader()) == 20


def test_a_metric_is_a_class(recipe):
    metric = recipe("metric")["LengthRatio"]()

    metric.update([[1, 2], [3]], [[[1]], [[2, 3]]])

    assert metric.compute() == (2 + 0.5) / 2


def test_a_scheduler_is_a_function(recipe):
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = recipe("scheduler")["inverse_square_root"](optimizer, total_steps=2000)

    rates = [schedule.lr_lambdas[0](step) for step in (0, 199, 399, 1599)]

    assert rates == [1 / 400, 0.5, 1, 0.5]


def test_a_search_is_a_callable(recipe):
    import torch
    from conftest import make_model

    from seq2seq.decoding import Ensemble

    search, ensemble = recipe("search")["SecondBest"](max_length=5), Ensemble([make_model()])

    found = search(ensemble, ensemble.encode(torch.randint(4, 10, (2, 3)), torch.tensor([3, 2])))

    assert found.tokens.shape[:2] == (2, 1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec.* is deprecated", "ignore:.*GPU")
@pytest.mark.parametrize("name", python_blocks("python.md"))
def test_every_example_runs(name, tiny_run, tmp_path, monkeypatch):
    import shutil

    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_run, tmp_path / "outputs" / "first")
    (tmp_path / "configs").symlink_to(CONFIGS)
    sizes = '"data.train_size=40", "data.val_size=6", "data.test_size=6", "data.max_letters=4", "data=reverse"'

    exec(python_blocks("python.md")[name].replace('"data=reverse"', sizes), {})
