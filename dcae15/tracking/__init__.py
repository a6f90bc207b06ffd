"""Experiment tracking with MLflow: a run for a pipeline, one below it for each stage, continued after a restart.

Above them are those of a sweep and its trials.

The driver starts runs and gets a ``TrackerSpec``; a worker makes a ``Tracker`` of it. Ids are passed explicitly: MLflow's
global state (an active run, a current experiment) is never used, because it gets lost between processes.
"""

from dcae15.tracking.runs import finish_tree, start_pipeline_run, start_run, start_stage_run
from dcae15.tracking.tracker import Status, Tracker, TrackerSpec
