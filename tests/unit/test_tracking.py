import logging
import pickle
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from dcae15.config import build, from_overrides
from dcae15.errors import ConfigError
from dcae15.tracking import (
    Tracker,
    TrackerSpec,
    database,
    finish_tree,
    start_pipeline_run,
    start_run,
    start_stage_run,
)

FINGERPRINT = "0123456789abcdef"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory):
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    database.prepare(f"sqlite:///{file}")
    return file


@pytest.fixture
def root(tmp_path, migrated, monkeypatch):
    """A storage root with a migrated database; the working directory must stay clean."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    elsewhere = tmp_path / "cwd"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    storage = tmp_path / "storage"
    storage.mkdir()
    shutil.copy(migrated, storage / "mlflow.db")
    yield storage
    assert list(elsewhere.iterdir()) == []


def configured(*overrides):
    return build([from_overrides(overrides)])[0]


def begin(root, *overrides):
    return start_pipeline_run(configured(*overrides), str(root), "demo")


def client_of(spec):
    return database.open_client(spec.uri)


def history(spec, name):
    points = client_of(spec).get_metric_history(spec.run_id, name)
    return sorted((point.step, point.value) for point in points)


def test_a_stage_run_lies_below_the_pipelines_and_travels_as_a_pickle(root):
    pipeline = begin(root, "seed=3", "tracking.experiment=mine", "storage=s3://key:secret@bucket")
    stage = start_stage_run(pipeline, "train_autoencoder", FINGERPRINT, {"training.images": 64})
    client = client_of(stage)
    tracker = Tracker(pickle.loads(pickle.dumps(stage)))  # noqa: S301 - our own bytes
    tracker.metrics({"loss": 0.5, "psnr": float("nan")}, step=64)
    tracker.picture("reconstructions/val", np.zeros((8, 6, 3), np.uint8), step=64)
    tracker.text("at s3://key:secret@bucket", "notes.txt")
    tracker.dict({"uri": ["http://me:pw@host"]}, "facts.json")
    tracker.finish("FINISHED")

    above, below = client.get_run(pipeline.run_id), client.get_run(stage.run_id)
    assert client.get_experiment(above.info.experiment_id).name == "mine"
    assert (above.data.params["seed"], above.data.params["storage"]) == ("3", "s3://***@bucket")
    assert len(above.data.params) > 100
    assert below.data.tags["mlflow.parentRunId"] == pipeline.run_id
    assert below.data.tags["dcae15.fingerprint"] == FINGERPRINT
    assert "torch" in below.data.tags["dcae15.environment"]
    assert (above.info.status, below.info.status) == ("RUNNING", "FINISHED")
    assert below.data.params == {"training.images": "64"}
    assert history(stage, "loss") == [(64, 0.5)]
    assert len(client.list_artifacts(stage.run_id, "images")) == 2  # the picture and its thumbnail
    stored = {
        file.name: file.read_text()
        for file in (root / "mlflow-artifacts").rglob("*.*")
        if file.suffix in (".txt", ".json")
    }
    assert set(stored) == {"notes.txt", "facts.json"}
    assert "secret" not in stored["notes.txt"]
    assert "pw" not in stored["facts.json"]


def test_phases_and_warnings_are_tracked(root):
    pipeline = begin(root, "autoencoder.phases=[{name: low}, {name: high, parts: [decoder_head]}]")
    params = client_of(pipeline).get_run(pipeline.run_id).data.params
    assert (params["autoencoder.phases.0.name"], params["autoencoder.phases.1.name"]) == ("low", "high")
    stage = start_stage_run(pipeline, "train_autoencoder", FINGERPRINT, {"phase 1": "low; 64 images; trains all"})
    tracker = Tracker(stage)
    tracker.tags({"warning.1": "the discriminator wins, see s3://key:secret@bucket"})
    found = client_of(stage).get_run(stage.run_id).data
    assert found.tags["warning.1"] == "the discriminator wins, see s3://***@bucket"
    assert found.params["phase 1"] == "low; 64 images; trains all"


def test_an_unfinished_run_is_continued_without_repeating_points(root):
    first = start_stage_run(begin(root), "train", FINGERPRINT, {"a": 1})
    tracker = Tracker(first)
    tracker.metrics({"loss": 1.0}, step=10)
    tracker.metrics({"loss": 0.9, "val": 5.0}, step=20)
    tracker.picture("grid", np.zeros((8, 8, 3), np.uint8), step=20)

    pipeline = begin(root)  # the same command again, after a crash
    second = start_stage_run(pipeline, "train", FINGERPRINT, {"a": 2, "b": 3})
    assert second.run_id == first.run_id
    tracker = Tracker(second)
    tracker.metrics({"loss": 0.9}, step=20)
    tracker.picture("grid", np.zeros((8, 8, 3), np.uint8), step=20)
    tracker.metrics({"loss": 0.8, "val": 4.0}, step=30)
    tracker.picture("grid", np.zeros((8, 8, 3), np.uint8), step=30)
    tracker.metrics({"loss": 0.8, "new": 1.0}, step=30)
    assert history(second, "loss") == [(10, 1.0), (20, 0.9), (30, 0.8)]
    assert history(second, "val") == [(20, 5.0), (30, 4.0)]
    assert history(second, "new") == [(30, 1.0)]
    pictures = [file.path for file in client_of(second).list_artifacts(second.run_id, "images")]
    assert sum("+step+20+" in path for path in pictures) == 2
    assert sum("+step+30+" in path for path in pictures) == 2
    assert client_of(second).get_run(second.run_id).data.params == {"a": "1", "b": "3"}


def test_finished_failed_and_other_runs(root):
    pipeline = begin(root)
    first = start_stage_run(pipeline, "train", FINGERPRINT, {})
    Tracker(first).finish("FAILED")
    again = start_stage_run(pipeline, "train", FINGERPRINT, {})
    assert again.run_id == first.run_id
    assert client_of(again).get_run(again.run_id).info.status == "RUNNING"
    Tracker(again).finish("FINISHED")
    assert start_stage_run(pipeline, "train", FINGERPRINT, {}).run_id != first.run_id
    assert start_stage_run(pipeline, "train", "f" * 16, {}).run_id != first.run_id
    assert begin(root, "seed=9").run_id != pipeline.run_id


def test_runs_of_a_killed_driver_are_marked(root):
    killed, alive = begin(root, "seed=1"), begin(root, "seed=2")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    client_of(killed).set_tag(killed.run_id, "dcae15.process", str(gone.pid))
    begin(root, "seed=3")
    statuses = [client_of(spec).get_run(spec.run_id).info.status for spec in (killed, alive)]
    assert statuses == ["KILLED", "RUNNING"]


def test_switched_off_nothing_is_written(root):
    (root / "mlflow.db").unlink()
    pipeline = begin(root, "tracking.enabled=false")
    stage = start_stage_run(pipeline, "train", FINGERPRINT, {})
    assert pipeline == stage == TrackerSpec()
    tracker = Tracker(stage)
    tracker.metrics({"loss": 1.0}, 1)
    tracker.picture("grid", np.zeros((8, 8, 3), np.uint8), 1)
    tracker.text("a", "a.txt")
    tracker.dict({}, "a.json")
    tracker.finish("FINISHED")
    assert list(root.iterdir()) == []


def test_a_failure_in_the_middle_warns_once_and_recovers(root, caplog, monkeypatch):
    stage = start_stage_run(begin(root), "train", FINGERPRINT, {})
    tracker = Tracker(stage)
    tracker.metrics({"loss": 1.0}, 1)
    now = [1000.0]
    monkeypatch.setattr("dcae15.tracking.tracker.time.monotonic", lambda: now[0])
    with caplog.at_level(logging.WARNING):
        for step in (2, 3):
            tracker.metrics({"a@b": 1.0}, step)  # a name that MLflow refuses
            now[0] += 100
    assert [record.name for record in caplog.records].count("dcae15.tracking.tracker") == 1
    tracker.metrics({"loss": 0.5}, 4)  # a minute after the last failure
    assert history(stage, "loss") == [(1, 1.0), (4, 0.5)]


def test_a_database_on_another_machine_is_not_created_anew(root, caplog):
    spec = TrackerSpec(f"sqlite:///{root}/other/mlflow.db", "1", "abc")
    Tracker(spec).metrics({"loss": 1.0}, 1)
    assert "not on this machine" in caplog.text
    assert start_stage_run(spec, "train", FINGERPRINT, {}) == TrackerSpec()
    assert not (root / "other").exists()


@pytest.mark.parametrize(
    ("uri", "part"),
    [
        ("file:///tmp/mlruns", "sqlite:////tmp/mlruns/mlflow.db"),
        ("mlruns", "a folder"),
        ("http://me:pw@127.0.0.1:9", "http://***@127.0.0.1:9"),
        ("nonsense://x", "nonsense://x"),
    ],
)
def test_a_wrong_uri_is_an_error_at_the_start(root, monkeypatch, uri, part):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ConfigError) as caught:
        begin(root, f"tracking.uri={uri}")
    assert part in str(caught.value)
    assert "tracking.uri" in str(caught.value)
    assert "pw" not in str(caught.value)


def test_a_deleted_experiment_is_an_error(root):
    pipeline = begin(root)
    client_of(pipeline).delete_experiment(pipeline.experiment_id)
    with pytest.raises(ConfigError, match=r"tracking\.experiment is 'dcae15', which was deleted"):
        begin(root)


def test_where_tracking_goes(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert database.choose_uri("", "/data/x") == "sqlite:////data/x/mlflow.db"
    assert database.choose_uri("", "s3://bucket/x") == f"sqlite:///{tmp_path}/mlflow.db"
    assert "storage is remote" in caplog.text
    assert database.choose_uri("sqlite:///mine.db", "/data") == f"sqlite:///{tmp_path}/mine.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert database.choose_uri("", "/data") == "http://server:5000"
    assert database.choose_uri("https://other", "/data") == "https://other"
    assert database.artifact_location("https://other", "/data") is None
    assert database.artifact_location("postgresql://h/db", "/data") == "/data/mlflow-artifacts"
    remote = database.artifact_location("sqlite:////x.db", "s3://bucket/x")
    assert remote == "s3://bucket/x/mlflow-artifacts"


def test_a_fresh_database_is_filled_once_though_many_come_at_once(tmp_path):
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    code = (
        f"from dcae15.tracking import database; database.prepare({uri!r}); "
        f"print(database.open_client({uri!r}).search_experiments()[0].name)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in processes] == ["Default", "Default"]
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_the_spec_does_not_show_its_uri():
    assert "pw" not in repr(TrackerSpec("http://me:pw@host", "1", "2"))


def statuses(*specs):
    return [client_of(spec).get_run(spec.run_id).info.status for spec in specs]


def sweep(root, digest="a", **params):
    return start_run(configured(), str(root), "a sweep", "sweep", digest, params)


def test_a_sweep_has_trials_and_these_have_stages_and_each_goes_on_where_it_was(root):
    above = sweep(root, metric="loss", source="s3://key:secret@bucket")
    trial = start_stage_run(above, "trial", "1", {"seed": 0}, "first=4")
    stage = start_stage_run(trial, "train", FINGERPRINT, {})
    client = client_of(above)
    found = [client.get_run(spec.run_id) for spec in (above, trial, stage)]
    assert [run.info.run_name for run in found] == ["a sweep", "first=4", "train"]
    assert [run.data.tags.get("mlflow.parentRunId") for run in found] == [None, above.run_id, trial.run_id]
    assert found[0].data.params == {"metric": "loss", "source": "s3://***@bucket"}
    assert sweep(root).run_id == above.run_id
    assert sweep(root, "b").run_id != above.run_id, "another sweep of the same name"
    other = start_stage_run(above, "trial", "2", {})
    assert start_stage_run(other, "train", FINGERPRINT, {}).run_id == stage.run_id
    assert client.get_run(stage.run_id).data.tags["mlflow.parentRunId"] == other.run_id, (
        "of the trial that goes on with it"
    )


def test_the_end_of_a_run_ends_what_is_left_running_below_it(root):
    above = sweep(root)
    stopped, going = (start_stage_run(above, "trial", name, {}) for name in "12")
    done, left = (start_stage_run(stopped, name, FINGERPRINT, {}) for name in ("cache", "train"))
    Tracker(done).finish("FINISHED")
    finish_tree(stopped, "FINISHED")
    assert statuses(done, left, stopped, going, above) == ["FINISHED", "KILLED", "FINISHED", "RUNNING", "RUNNING"]
    below = start_stage_run(going, "sample", FINGERPRINT, {})
    finish_tree(above, "KILLED")
    assert statuses(below, going, above, done, stopped) == ["KILLED", "KILLED", "KILLED", "FINISHED", "FINISHED"]


def test_ending_runs_never_stops_the_work(root, caplog):
    finish_tree(TrackerSpec(), "FINISHED")
    assert not caplog.records
    finish_tree(TrackerSpec(f"sqlite:///{root}/mlflow.db", "1", "no such run"), "FINISHED")
    assert "a run is left as running" in caplog.text


@pytest.mark.parametrize(
    "name",
    ["100% real?#1 x", "a%20b", "50%25", "x?y=1", "plus+&=", "quo'te\"", "co:lon@at", "schön-猫", "semi;x[1]*{b}"],
)
def test_a_storage_with_any_name_is_tracked_into_that_folder_at_once(tmp_path, migrated, name, caplog, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where links lie
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 1)
    root = tmp_path / "all" / name
    root.mkdir(parents=True)
    shutil.copy(migrated, root / "mlflow.db")
    spec = start_stage_run(begin(root), "train", FINGERPRINT, {})
    tracker = Tracker(spec)
    tracker.metrics({"loss": 1.0}, 1)
    tracker.text("what was said", "notes.txt")
    assert history(spec, "loss") == [(1, 1.0)]
    assert next(root.rglob("notes.txt")).read_text() == "what was said"
    assert [path.name for path in (tmp_path / "all").iterdir()] == [name], "nothing lies beside it"
    assert not caplog.records


def test_a_new_database_in_such_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    uri = database.choose_uri("", str(tmp_path / "all" / "100% real?#1 x"))
    database.prepare(uri)
    assert database.open_client(uri).search_experiments()[0].name == "Default"
    found = sorted(str(path.relative_to(tmp_path / "all")) for path in (tmp_path / "all").rglob("*"))
    assert found == ["100% real?#1 x", "100% real?#1 x/mlflow.db", "100% real?#1 x/mlflow.db.lock"]


def test_what_mlflow_cannot_track_to_is_refused(root, monkeypatch):
    monkeypatch.setenv("WHERE", str(root))
    assert database.choose_uri("sqlite:///$WHERE/a.db?timeout=5", "/x") == f"sqlite:///{root}/a.db?timeout=5"
    assert database.sqlite_path(f"sqlite:///{root}/a.db?timeout=5") == root / "a.db"
    with pytest.raises(ConfigError, match=r"tracking\.uri .*in the name of a database"):
        database.choose_uri("sqlite:////tmp/my%20own.db", "/x")
    for name in ("what?", "x#1"):
        with pytest.raises(ConfigError, match=r"storage is s3://bucket/.*tracking\.enabled=false"):
            start_pipeline_run(configured(), f"s3://bucket/{name}", "demo")
    spec = configured("tracking.enabled=false")
    assert start_pipeline_run(spec, "s3://bucket/x#1", "demo") == TrackerSpec()


def test_a_link_that_leads_elsewhere_is_not_followed(tmp_path, migrated, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    root = tmp_path / "50%"
    root.mkdir()
    shutil.copy(migrated, root / "mlflow.db")
    begin(root)
    (link,) = tmp_path.glob("dcae15-tracking-*")
    link.unlink()
    link.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="should be a link to"):
        begin(root)
