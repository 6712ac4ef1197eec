"""TensorBoard's own plugins read what is written of a sweep."""

import hashlib
import json

import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin
from tensorboard.plugins.hparams import api_pb2, list_session_groups, metadata
from tensorboard.plugins.hparams.backend_context import Context

from honest.report.tensorboard import write_hparams
from honest.train.events import LAYOUT, EventLog, read_events, write_once
from tests.report.made_up_sweep import KIND, SEED, WIDTH, Result, finish, log_events, start, write_list

MEMBERS = [{KIND: "points", WIDTH: "0.5 θ.trunk", SEED: seed} for seed in (0, 1)]
MEMBERS += [{KIND: "chains", WIDTH: "2 θ.trunk", SEED: 0}]


@pytest.fixture
def sweep(tmp_path):
    """Two members done, with events; one started."""
    folder = write_list(tmp_path, MEMBERS)
    for one, last in zip(MEMBERS[:2], (0.25, 0.5), strict=True):
        run = finish(folder, one, Result(0.5, 0.1, 0.002), ("intended", "instrumental"))
        log_events(run, (0.0, last))
    log_events(start(folder, MEMBERS[2]), (0.0,))
    return folder


def board(folder):
    """What TensorBoard's plugins are given with --logdir FOLDER/runs."""
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder / "runs"))
    multiplexer.Reload()
    return TBContext(
        logdir=str(folder), data_provider=MultiplexerDataProvider(multiplexer, ""), plugin_name_to_instance={}
    )


def sessions(context):
    request = api_pb2.ListSessionGroupsRequest(
        allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_RUNNING, api_pb2.STATUS_UNKNOWN], slice_size=100
    )
    return list_session_groups.Handler(RequestContext(), Context(context), "", request).run().session_groups


def fingerprints(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_session_for_each_finished_member(sweep):
    write_hparams(sweep)
    groups = {group.name: group for group in sessions(board(sweep))}
    assert set(groups) == {"kind=points,stddev=0.5,seed=0", "kind=points,stddev=0.5,seed=1"}
    second = groups["kind=points,stddev=0.5,seed=1"]
    assert len(second.sessions) == 1 and second.sessions[0].status == api_pb2.STATUS_SUCCESS
    assert second.hparams[KIND].string_value == "points"
    assert second.hparams[f"{WIDTH} (θ.trunk)"].number_value == 0.5
    assert second.hparams[SEED].number_value == 1
    values = {value.name.tag: value.value for value in second.metric_values}
    assert values["divergence/jensen_shannon_fooled"] == 0.5


def test_no_experiment_record(sweep):
    write_hparams(sweep)
    found = Context(board(sweep)).hparams_metadata(RequestContext(), "")
    assert all(set(tags) == {metadata.SESSION_START_INFO_TAG, metadata.SESSION_END_INFO_TAG} for tags in found.values())


def test_written_once_and_nothing_else_is_touched(sweep):
    before = fingerprints(sweep)
    write_hparams(sweep)
    after = fingerprints(sweep)
    assert after.items() >= before.items() and len(after) == len(before) + 3  # two sessions and a layout
    write_hparams(sweep)
    assert fingerprints(sweep) == after
    finish_third(sweep)
    write_hparams(sweep)
    assert len(sessions(board(sweep))) == 3
    tags = [
        value.tag
        for event in read_events(sweep / "runs" / "kind=points,stddev=0.5,seed=0")
        for value in event.summary.value
    ]
    assert tags.count(metadata.SESSION_START_INFO_TAG) == 1


def finish_third(sweep):
    summary = (sweep / "runs" / "kind=points,stddev=0.5,seed=0" / "summary.json").read_text(encoding="utf-8")
    (sweep / "runs" / "kind=chains,stddev=2,seed=0" / "summary.json").write_text(summary, encoding="utf-8")


def test_layouts_merge_and_all_members_come_first(sweep):
    write_hparams(sweep)
    layout = CustomScalarsPlugin(board(sweep)).layout_impl(RequestContext(), "")
    titles = [category["title"] for category in json.loads(layout)["category"]]
    assert titles == ["all members", *LAYOUT]


def test_a_run_that_goes_on_writes_after_its_session(tmp_path):
    log_events(tmp_path, (0.0,))
    write_once(tmp_path, "hparams", [])
    resumed = EventLog(tmp_path)
    resumed.scalar("divergence/jensen_shannon_fooled", 1.0, 2)
    resumed.pending()
    resumed.commit(2)
    resumed.close()
    assert [path.name.rpartition(".")[2] for path in sorted(tmp_path.iterdir())] == ["honest", "hparams", "honest"]
