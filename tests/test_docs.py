"""The pages in ``docs/`` are true: every key is explained, links lead somewhere, and every recipe runs."""

import os
import re
import subprocess
import sys

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


PARTS = ("attention", "bridge", "decoder", "tokenizer", "source", "search")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with the parts of ``docs/extending.md`` in ``my_parts.py``, and their YAML files in ``my_configs``."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_parts.py").write_text("\n\n".join(RECIPES[name] for name in PARTS))
    page = (ROOT / "docs" / "extending.md").read_text()
    for name, content in re.findall(r"^```yaml (\S+)\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE):
        path = folder / "my_configs" / name
        path.parent.mkdir(parents=True)
        path.write_text(content)
    return folder


def run(folder, *command):
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)}, input="1 2 3\n",
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.docs
def test_the_tests_of_the_contracts_run_on_parts_of_ones_own(own):
    tests = [str(ROOT / "tests" / part) for part in ("nn", "decoding")]
    found = run(own, "-m", "pytest", "-p", "my_parts", "-c", str(ROOT / "pyproject.toml"), *tests, "-k",
                "mean or scaled or backward", "-p", "no:cacheprovider")  # fmt: skip

    assert int(re.search(r"(\d+) passed", found)[1]) > 100


@pytest.mark.docs
def test_commands_train_predict_and_export_with_parts_of_ones_own(own):
    def script(name, *overrides):
        return run(
            own, str(ROOT / "scripts" / f"{name}.py"), "--config-dir=my_configs", "parts=my_parts.py", *overrides
        )

    parts = ["model.attention={name: scaled, temperature: 2.0}", "model.bridge=backward", "model.decoder.kind=mean"]
    small = ["data=doubles", "data.source_tokens=bigrams", "data.size=60", "model.decoder.hidden_size=128"]
    script("train", *parts, *small, "search=second_best", "trainer.max_epochs=1", "hydra.run.dir=run")
    script("export", "checkpoint=run/best.ckpt", "output=exported")
    greedy = script("predict", "checkpoint=run/best.ckpt", "search.beam_size=1")

    assert script("predict", "checkpoint=exported", "backend=onnx", "search.beam_size=1") == greedy
    assert script("predict", "checkpoint=run/best.ckpt", "search=second_best") != greedy
    assert "exact_match" in script("evaluate", "checkpoint=run/best.ckpt", "search.beam_size=3", "hydra.run.dir=done")


def recipe(name):
    scope = {}
    exec(RECIPES[name], scope)
    return scope


def test_a_metric_is_a_class():
    metric = recipe("metric")["LengthRatio"]()

    metric.update([[1, 2], [3]], [[[1]], [[2, 3]]])

    assert metric.compute() == (2 + 0.5) / 2


def test_a_scheduler_is_a_function():
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = recipe("scheduler")["inverse_square_root"](optimizer, total_steps=2000)

    rates = [schedule.lr_lambdas[0](step) for step in (0, 199, 399, 1599)]

    assert rates == [1 / 400, 0.5, 1, 0.5]


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec.* is deprecated", "ignore:.*GPU")
@pytest.mark.parametrize("name", python_blocks("python.md"))
def test_every_example_runs(name, tiny_run, tmp_path, monkeypatch):
    import shutil

    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_run, tmp_path / "outputs" / "first")
    (tmp_path / "configs").symlink_to(CONFIGS)
    sizes = '"data.train_size=40", "data.val_size=6", "data.test_size=6", "data.max_letters=4", "data=reverse"'

    exec(python_blocks("python.md")[name].replace('"data=reverse"', sizes), {})
