"""What the scripts answer to a mistake, before anything is loaded that takes seconds."""

import errno
import subprocess
import sys

import pytest
from conftest import ROOT

from seq2seq.errors import UserError
from seq2seq.runs.console import check_overrides, did_you_mean, one_line_errors

TRAIN = ROOT / "configs" / "train.yaml"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search=true", "search=true must name an option of the group search: beam, sample"),
        ("model=0", "model=0 must name an option of the group model: gru, lstm"),
        ("+model=0.5", r"\+model=0.5 must name an option of the group model: gru, lstm"),
        ("experiment=null", "experiment=null must name an option of the group experiment: "),
        ("search=beam,1", "search=beam,1 must name an option of the group search: beam, sample"),
        ("search=range(1,3)", r"search=range\(1,3\) must name an option of the group search: beam, sample"),
        (
            "+optimiser.lr=1e-3",
            "optimiser is unknown; the keys are callbacks, checkpoint, data, dataset, debug, experiment, ",
        ),
        ("++seeds=1,2", "seeds is unknown; the keys are .*, seed, "),
    ],
)
def test_what_hydra_answers_with_a_traceback_or_not_at_all_is_one_line(override, message):
    with pytest.raises(UserError, match=f"^{message}"):
        check_overrides(TRAIN, ["seed=2", override])


@pytest.mark.parametrize(
    "arguments",
    [
        ["model=gru,lstm", "experiment=glob(*)", "logger=[csv]", "model='gru'", "~experiment", "~debug"],
        ["+trainer.max_time=1", "+experiment=g2p", "+hydra/launcher=joblib", "+hydra.verbose=true", "++seed=3"],
        ["search={kind: beam}", "data.train=5", "-m", "--cfg", "job", "modl=2", "a b", "x=[", "=", ""],
        ["--config-dir", "mine", "+recipe=own"],
        ["hydra.searchpath=[file://mine]", "+recipe=own"],
    ],
)
def test_all_else_is_left_to_hydra(arguments):
    check_overrides(TRAIN, arguments)


def test_the_keys_of_a_command_are_those_of_the_configs_that_it_builds_on():
    check_overrides(ROOT / "configs" / "tune.yaml", ["+trainer.max_time=1", "+tune.own=1"])

    with pytest.raises(UserError, match=r"^trainer is unknown; the keys are attention, "):
        check_overrides(ROOT / "configs" / "predict.yaml", ["+trainer.max_time=1"])


@pytest.mark.parametrize(
    ("key", "chosen", "answer"),
    [
        ("lr", [], "did you mean optimizer.lr?"),
        ("hidden_size", [], "did you mean model.encoder.hidden_size or model.decoder.hidden_size?"),
        ("data.trian", ["data=tsv"], "did you mean data.train?"),  # a key of that group's option only
        ("data.sede", ["data=dates,reverse"], "did you mean data.seed?"),
        ("xyzzy", [], "--help lists all keys"),
        ("lr", ["--config-dir=mine", "/abs", "model=mine"], "--help lists all keys"),
    ],
)
def test_a_mistyped_key_is_answered_with_the_nearest(key, chosen, answer):
    assert did_you_mean(key, TRAIN, [*chosen, f"{key}=1"]) == answer


def test_a_key_of_a_group_without_an_option_is_answered_with_the_options():
    answer = did_you_mean("data.test", ROOT / "configs" / "score.yaml", ["checkpoint=x", "data.test=y.tsv"])

    assert answer == "choose an option of data first: cmudict, dates, parallel, reverse, tsv"


@pytest.mark.parametrize("arguments", [["+optimiser.lr=1"], ["-m", "+optimiser.lr=1,2"], ["search=true"]])
def test_it_is_said_before_torch_is_loaded(tmp_path, arguments):
    command = (
        "import atexit, runpy, sys; atexit.register(lambda: print(*sys.modules)); "
        f"sys.argv[1:] = {arguments}; runpy.run_path({str(ROOT / 'scripts' / 'train.py')!r}, run_name='__main__')"
    )

    done = subprocess.run([sys.executable, "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "torch" not in done.stdout.split()
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), (None, False)])
def test_hydra_full_error_shows_every_traceback(monkeypatch, capsys, value, shown):
    if value is None:
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    else:
        monkeypatch.setenv("HYDRA_FULL_ERROR", value)

    with pytest.raises(SystemExit, match="1"), one_line_errors():
        raise UserError("seed=x must be a whole number")

    stderr = capsys.readouterr().err
    assert stderr.endswith("error: seed=x must be a whole number\n")
    assert ("Traceback" in stderr) is shown


@pytest.mark.parametrize(
    ("number", "message"), [(errno.ENOSPC, "error: output cannot be written: No space\n"), (errno.EPIPE, "")]
)
def test_a_stdout_that_takes_no_more_ends_with_one_line_at_most(monkeypatch, capsys, number, message):
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # it is closed, and comes back

    with pytest.raises(SystemExit, match="1"), one_line_errors():
        raise OSError(number, "No space")

    assert capsys.readouterr().err == message


def test_another_error_of_the_system_keeps_its_traceback():
    with pytest.raises(FileNotFoundError), one_line_errors():
        open("/none")  # noqa: PTH123, SIM115
