"""The manifest that the engine kubernetes writes, against the fields of the API (tests/sweep/jobset_fields.py)."""

import copy
import runpy
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from jax._src.clusters.k8s_cluster import K8sCluster
from pydantic import ValidationError
from ruamel.yaml import YAML

from honest.config_io import load_config
from honest.errors import UserError
from honest.jobs.pool import Job
from honest.sweep.engines.kubernetes import (
    LONGEST_NAME,
    KubernetesOptions,
    check_kubernetes,
    label,
    write_jobset,
    yaml_text,
)
from honest.sweep.engines.pod import names_of
from tests.conftest import write_tiny
from tests.sweep.jobset_fields import JOBSET, broken_rules, wrong
from tests.sweep.stub import run_members

OPTIONS = {
    "namespace": "research",
    "image": "registry.example/honest:1",
    "service_account": None,
    "claim": "results",
    "mount_path": "/data",
    "folder": "sweeps/sigma",
    "cpu": "4",
    "memory": "16Gi",
    "gpu_resource": "nvidia.com/gpu",
    "gpus": 1,
    "hosts": 1,
    "parallelism": 2,
    "backoff_limit": 3,
    "save_seconds": 300,
}


@pytest.fixture
def jobs(tmp_path):
    """Jobs of one, one and two members, the first of which is done."""
    (tmp_path / "a.done").touch()

    def job(*members):
        done = [tmp_path / f"{member}.done" for member in members]
        return Job(members[0], members, tmp_path, tmp_path / "log.txt", None, partial(all_exist, done))

    return [job("a"), job("seed=1,no"), job("b", "c"), job("d")]


def all_exist(paths):
    return all(path.exists() for path in paths)


def written(folder, jobs, name="Sigma sweep", **changed):
    result = write_jobset(folder, name, jobs, KubernetesOptions(**{**OPTIONS, **changed}))
    text = result.manifest.read_text()
    return result, text, [plain(each) for each in YAML(typ="safe", pure=True).load_all(text)]


def plain(value):
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


def problems(document):
    """Rules are about fields that are there and of the right type."""
    return list(wrong(document, JOBSET, "jobset")) or list(broken_rules(document))


def test_one_indexed_job_for_all_that_is_left(tmp_path, jobs):
    result, text, (document,) = written(tmp_path, jobs)
    assert problems(document) == []
    assert document["metadata"] == {
        "name": "sigma-sweep",
        "namespace": "research",
        "labels": {"app.kubernetes.io/name": "honest"},
    }
    (replicated,) = document["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert (replicated["replicas"], job["completions"], job["parallelism"], job["backoffLimitPerIndex"]) == (1, 3, 2, 3)
    actions = [(rule["action"], rule.get("onExitCodes", {}).get("values")) for rule in job["podFailurePolicy"]["rules"]]
    assert actions == [("Ignore", None), ("Ignore", [130]), ("FailIndex", [2])]
    pod = job["template"]["spec"]
    assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"]) == ("Never", 300)
    assert "serviceAccountName" not in pod
    assert pod["volumes"] == [{"name": "sweep", "persistentVolumeClaim": {"claimName": "results"}}]
    (container,) = pod["containers"]
    assert container["volumeMounts"] == [{"name": "sweep", "mountPath": "/data"}]
    amounts = {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": 1}
    assert container["resources"] == {"requests": amounts, "limits": amounts}
    listed = tmp_path / "kubernetes" / Path(container["command"][-1]).name
    assert container["command"] == [
        *("python", "-m", "honest.sweep.engines.pod", "/data/sweeps/sigma"),
        f"/data/sweeps/sigma/kubernetes/{listed.name}",
    ]
    assert [names_of(listed, index) for index in range(3)] == [("seed=1,no",), ("b", "c"), ("d",)]
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert environment["JAX_COMPILATION_CACHE_DIR"] == "/data/sweeps/sigma/compiled"
    assert result.command.split() == ["kubectl", "apply", "--filename", str(result.manifest)]
    assert yaml_text([document]) == text


def test_a_job_set_a_member_on_several_hosts(tmp_path, jobs):
    _, text, documents = written(tmp_path, jobs, hosts=4, service_account="trainer", gpus=0)
    assert [problems(document) for document in documents] == [[], [], []]
    assert [document["metadata"]["name"] for document in documents] == [f"sigma-sweep-{n}" for n in (1, 2, 3)]
    for document, members in zip(documents, (["seed=1,no"], ["b", "c"], ["d"])):
        job = document["spec"]["replicatedJobs"][0]["template"]["spec"]
        assert (job["completions"], job["parallelism"], job["backoffLimit"]) == (4, 4, 0)
        assert document["spec"]["failurePolicy"] == {
            "maxRestarts": 3,
            "rules": [{"name": "mistake", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
        }
        pod = job["template"]["spec"]
        assert pod["serviceAccountName"] == "trainer"
        assert pod["containers"][0]["command"] == [
            *("python", "-m", "honest.sweep.run_member", "/data/sweeps/sigma"),
            *members,
        ]
        assert "nvidia.com/gpu" not in pod["containers"][0]["resources"]["limits"]
    assert yaml_text(documents) == text
    assert list((tmp_path / "kubernetes").iterdir()) == [tmp_path / "kubernetes" / "jobset.yaml"]


def test_jax_finds_the_pods_of_a_member(tmp_path, jobs, monkeypatch):
    """JobSet names pods <JobSet>-<replicated job>-<job index>-<pod index> and the subdomain by the JobSet."""
    _, _, documents = written(tmp_path, jobs, hosts=4)
    (replicated,) = documents[0]["spec"]["replicatedJobs"]
    labels = {"jobset.sigs.k8s.io/jobset-name": "sigma-sweep-1"}
    job = SimpleNamespace(
        metadata=SimpleNamespace(name=f"sigma-sweep-1-{replicated['name']}-0", labels=labels),
        spec=SimpleNamespace(**replicated["template"]["spec"]),
    )
    monkeypatch.setattr(K8sCluster, "_controller", lambda: SimpleNamespace(kind="Job"))
    monkeypatch.setattr(K8sCluster, "_job", lambda: job)
    monkeypatch.setattr(K8sCluster, "_pod", lambda: SimpleNamespace())
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    address = K8sCluster.get_coordinator_address(None, "1234")
    assert address == "sigma-sweep-1-member-0-0.sigma-sweep-1:1234"
    assert (K8sCluster.get_process_count(), K8sCluster.get_process_id()) == (4, 3)
    network = documents[0]["spec"]["network"]
    assert network["enableDNSHostnames"] and "subdomain" not in network


def test_the_same_sweep_gives_the_same_manifest_and_another_one_is_kept(tmp_path, jobs):
    first, text, _ = written(tmp_path, jobs)
    again, same, _ = written(tmp_path, jobs)
    assert (first.kept, again.kept, same) == (None, None, text)
    lists = list((tmp_path / "kubernetes").glob("members-*.txt"))
    (tmp_path / "d.done").touch()
    third, other, _ = written(tmp_path, jobs)
    assert other != text
    assert third.kept is not None and third.kept.read_text() == text
    fourth, _, _ = written(tmp_path, jobs, cpu="8")
    assert (third.kept.name, fourth.kept.name) == ("jobset.before-1.yaml", "jobset.before-2.yaml")
    assert lists[0].read_text() == "seed=1,no\nb\tc\nd\n"  # that pods of the first one still read


def test_nothing_is_left(tmp_path, jobs):
    with pytest.raises(UserError, match="all members are done"):
        written(tmp_path, jobs[:1])
    assert not (tmp_path / "kubernetes").exists()


def test_hosts_have_to_agree_with_the_members(tmp_path):
    one = load_config(write_tiny(tmp_path / "tiny.yaml")).config
    detect = one.model_copy(update={"parallel": one.parallel.model_copy(update={"hosts": "detect"})})
    alone, joined = (KubernetesOptions(**{**OPTIONS, "hosts": hosts}) for hosts in (1, 2))
    check_kubernetes(alone, "sigma", {"a": one})
    check_kubernetes(joined, "sigma", {"a": detect})
    with pytest.raises(UserError, match=r"hosts is 2, but b has parallel\.hosts: one"):
        check_kubernetes(joined, "sigma", {"a": detect, "b": one})
    with pytest.raises(UserError, match=r"hosts is 1, but a has parallel\.hosts: detect"):
        check_kubernetes(alone, "sigma", {"a": detect, "b": one})
    with pytest.raises(UserError, match="makes no name of a JobSet"):
        check_kubernetes(alone, "x" * (LONGEST_NAME + 1), {})
    with pytest.raises(UserError, match="makes no name of a JobSet"):
        check_kubernetes(alone, "…", {})


def test_the_longest_name_fits(tmp_path, jobs):
    many = [Job(f"m{n}", (f"m{n}",), tmp_path, tmp_path / "log", None, lambda: False) for n in range(1000)]
    _, _, (document,) = written(tmp_path, many, name="x" * LONGEST_NAME)
    assert problems(document) == []
    _, _, (document,) = written(tmp_path, many[:1], name="x" * LONGEST_NAME, hosts=100)
    document["metadata"]["name"] = f"{'x' * LONGEST_NAME}-999"  # the thousandth of them
    assert problems(document) == []


@pytest.mark.parametrize(
    ("name", "expected"), [("sigma", "sigma"), ("B1_lr.2", "b1-lr-2"), ("2nd", "s-2nd"), ("--", "")]
)
def test_names(name, expected):
    assert label(name) == expected


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("mount_path", "data", "is not an absolute path"),
        ("folder", "/sweeps", "is not a path below the claim's root"),
        ("folder", "../sweeps", "is not a path below the claim's root"),
        ("memory", "16 GB", "string_pattern_mismatch"),
        ("namespace", "My_space", "string_pattern_mismatch"),
    ],
)
def test_options_are_checked(key, value, message):
    with pytest.raises(ValidationError) as caught:
        KubernetesOptions(**{**OPTIONS, key: value})
    assert message in str(caught.value)


def test_a_pod_trains_its_members(tmp_path, monkeypatch):
    listed = tmp_path / "members.txt"
    listed.write_text("a\nb\tc\n")
    module = ModuleType("honest.sweep.run_member")
    module.run_members = run_members
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(sys, "argv", ["pod", str(tmp_path), str(listed)])
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    monkeypatch.delitem(sys.modules, "honest.sweep.engines.pod")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("honest.sweep.engines.pod", run_name="__main__")
    assert ended.value.code == 0
    assert sorted(path.name for path in tmp_path.glob("*.done")) == ["b.done", "c.done"]


def test_the_check_itself(tmp_path, jobs):
    """Mistakes that are planted in a right manifest are found."""
    _, _, (document,) = written(tmp_path, jobs)

    def found(change):
        planted = copy.deepcopy(document)
        change(planted, planted["spec"]["replicatedJobs"][0]["template"]["spec"])
        return problems(planted)

    assert found(lambda _, job: job.update(backoffLimits=1)) == [
        "jobset.spec.replicatedJobs[0].template.spec.backoffLimits: unknown field"
    ]
    assert found(lambda _, job: job.update(completions="3")) == [
        "jobset.spec.replicatedJobs[0].template.spec.completions: '3' is of another type"
    ]
    assert found(lambda planted, _: planted.update(kind="Job")) == ["jobset.kind: 'Job' is none of JobSet"]
    assert found(lambda _, job: job.pop("backoffLimitPerIndex")) == ["FailIndex needs backoffLimitPerIndex"]
    assert len(found(lambda _, job: job["template"]["spec"].update(restartPolicy="OnFailure"))) == 1
    assert found(lambda _, job: job["template"]["spec"].update(volumes=[])) == ["sweep is no volume"]
    conditions = found(lambda _, job: job["podFailurePolicy"]["rules"][0]["onPodConditions"][0].pop("status"))
    assert len(conditions) == 1 and conditions[0].endswith("status: missing")
