"""Columns of the table of trials that every study has, and what they mean."""

from __future__ import annotations

COUNTS = {
    "train_frames": "frames that it was trained on",
    "validation_frames": "frames that chose its weights",
    "test_frames": "frames that tested it",
    "test_groups": "groups of frames, such as trajectories, that tested it",
    "all_groups": "groups of frames of the data set",
    "parameters": "trainable weights of its model",
    "threads": "threads that it used",
    "pbt_generation": "generation of population-based training, from 0; tests are one more",
    "pbt_member": "member of the population, from 0",
}
"""Whole numbers that the study records of a job, as tags, and what they are."""
FACTS = COUNTS | {
    "arm": "what it is called in the report; trials of one arm differ by their seed alone",
    "kind": "trial, pretrain, or audit: a stopped trial that was finished afterwards",
    "key": "SHA-256 of all that it depends on",
    "reason": "why it did not complete",
    "pretraining": "key of the pretraining that it started from",
    "pbt_parent": "key of the job of population-based training that it goes on from;"
    " a test has the cost of its parts, which are rows of their own",
    "whole": "key of the longest pretraining that begins with this one",
    "data_hash": "SHA-256 of its data set",
    "split_hash": "SHA-256 of which frames train, validate and test",
    "test_hash": "SHA-256 of which frames test",
    "tested": "groups of frames that test",
    "code_version": "SHA-256 of the code that decides numbers",
    "number": "number of the trial in the plan",
    "run_id": "its run in MLflow",
    "status": "completed, stopped, diverged, failed, running or killed",
    "start_time": "when it began, UTC",
    "end_time": "when it ended, UTC",
    "device": "processor or GPU that it ran on",
    "exempt": "whether it is never stopped early",
    "tuning": "whether it only chose settings, and enters no comparison",
}
"""Columns that are neither settings nor results, and their meaning."""
