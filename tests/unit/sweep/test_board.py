"""What a user sees of a sweep: its plan before it runs, and its table while it runs."""

from dcae15.artifacts import ImageSet
from dcae15.plan import plan
from dcae15.sweep.board import Board, table
from dcae15.sweep.file import Sweep
from dcae15.sweep.reading import sweep_from_yaml
from dcae15.sweep.records import write_record
from dcae15.sweep.run import dry_run
from dcae15.sweep.trials import Trial, make_trial, trial_config

RATE, DISTANCE = "diffusion.training.learning_rate", "frechet_distance.generated"
STAGE = {"uri": "/s", "fingerprint": "f", "ran": True, "seconds": 1.0}
RUNNING = Trial(
    "1",
    "mine",
    values={RATE: 0.001},
    status="running",
    seconds=90.0,
    curve=[{"images": 16000.0, DISTANCE: 12.34567}],
    stages={"cache_latents": {**STAGE, "state": "done"}, "train_diffusion": {**STAGE, "state": "runs"}},
)
TABLE = """
trial                state     stage            images  frechet_distance.generated  time
learning_rate=0.001  running   train_diffusion  16,000  12.35                       1.5 min
learning_rate=0.01   finished                           7.5                         60.0 min
learning_rate=0.1    waiting
mine: 3 trials: 1 running, 1 finished, 1 waiting
"""
GRID = """
name: mine
question: Which?
set: {arms: [], diffusion.prefix.first: '${autoencoder.prefix.first}'}
space: {autoencoder.prefix.first: [4, 8], diffusion.training.learning_rate: [1e-3, 1e-2], autoencoder.latent_channels: [8, 4]}
skip_invalid: true
"""


def test_the_table_shows_where_each_trial_is():
    finished = Trial(
        "2", "mine", values={RATE: 0.01}, status="finished", seconds=3600.0, metrics={DISTANCE: 7.5}, stages={}
    )
    records = [RUNNING, finished, Trial("3", "mine", values={RATE: 0.1})]
    assert table(Sweep("mine"), records) == TABLE.strip()


def test_the_board_prints_what_has_changed_and_nothing_twice(tmp_path, capsys):
    sweep = Sweep("mine", space={RATE: (0.001, 0.01)})
    trials = [make_trial(sweep, {RATE: rate}) for rate in (0.001, 0.01)]
    board = Board(sweep, str(tmp_path), trials)
    board.look(now=True)
    assert "mine: 2 trials: 2 waiting" in capsys.readouterr().out
    board.look(now=True)
    assert capsys.readouterr().out == ""
    write_record(str(tmp_path), Trial(trials[1].id, "mine", values={RATE: 0.01}, status="stopped", seconds=60.0))
    board.look(now=True)
    assert capsys.readouterr().out == "", "a trial that was not started is not read"
    board.start(trials[1])
    board.look()  # too soon to read again
    assert capsys.readouterr().out == ""
    board.look(now=True)
    assert "mine: 2 trials: 1 waiting, 1 stopped" in capsys.readouterr().out
    assert [r.status for r in Board(sweep, str(tmp_path), trials).records] == ["waiting", "stopped"]


def test_a_dry_run_counts_what_trials_share_and_what_is_there(tmp_path):
    sweep = sweep_from_yaml(GRID, "mine.yaml")
    words = [f"storage={tmp_path}"]
    text = dry_run(sweep, words, lambda name: sweep)
    assert text.splitlines()[:3] == [
        "mine: 6 trials, grid search, none scheduler",
        "question: Which?",
        f"storage: {tmp_path}",
    ]
    assert "  first=8, learning_rate=0.001, latent_channels=8" in text.splitlines()
    left_out = [line for line in text.splitlines() if line.startswith("  left out: ")]
    assert len(left_out) == 2 and all("more than the latent's 4 channels" in line for line in left_out)
    assert counts(text) == {
        "prepare_images": "1 for 6 trials: 0 reused, 1 to run",
        "train_autoencoder": "3 for 6 trials: 0 reused, 3 to run",
        "cache_latents": "3 for 6 trials: 0 reused, 3 to run",
        "train_diffusion": "6 for 6 trials: 0 reused, 6 to run",
        "sample": "6 for 6 trials: 0 reused, 6 to run",
        "evaluate": "6 for 6 trials: 0 reused, 6 to run",
    }
    assert list(tmp_path.iterdir()) == [], "nothing was started, nothing was written"

    values = {"autoencoder.prefix.first": 4, RATE: 0.001, "autoencoder.latent_channels": 8}
    images = plan(trial_config(sweep, make_trial(sweep, values), words)).steps[0].output
    ImageSet(images.uri, images.fingerprint, ("a",), 32, "raw", "center", {}, {}, "shapes").commit()
    assert counts(dry_run(sweep, words, lambda name: sweep))["prepare_images"] == "1 for 6 trials: 1 reused, 0 to run"


def test_a_dry_run_shows_included_sweeps_and_one_without_trials_of_its_own_is_left_out(tmp_path):
    both = sweep_from_yaml("name: both\ninclude: [mine.yaml]", "both.yaml")
    text = dry_run(both, [f"storage={tmp_path}"], lambda name: sweep_from_yaml(GRID, name))
    assert text.startswith("mine: 6 trials") and "both: " not in text


def test_a_search_is_planned_before_its_trials_are_known(tmp_path):
    text = "name: found\nsearch: tpe\ntrials: 9\nspace: {diffusion.training.learning_rate: {low: 1e-4, high: 1e-2, log: true}}"
    shown = dry_run(sweep_from_yaml(text, "found.yaml"), [f"storage={tmp_path}"], lambda name: None)
    assert shown.startswith("found: 9 trials, tpe search, none scheduler")
    assert "train_diffusion" in counts(shown)


def counts(text):
    lines = [line.split(maxsplit=1) for line in text.splitlines() if " to run" in line]
    return {name: " ".join(rest.split()) for name, rest in lines}
