"""A sweep as JobSets of a Kubernetes cluster: a manifest is written, and the user applies it.

DIR/kubernetes/jobset.yaml         what is applied
DIR/kubernetes/jobset.before-N.yaml  earlier ones that differ
DIR/kubernetes/members-HASH.txt    line i: the members of the pod with JOB_COMPLETION_INDEX i, tabs between them

On one host each, all jobs are pods of one Indexed Job. On several hosts each is a JobSet of its own, as a JobSet ends
as a whole when one of its Jobs fails. JAX joins its pods: it takes <Job>-0.<JobSet's name> for the coordinator, the
Job's parallelism for the number of processes and JOB_COMPLETION_INDEX for a process's own
(jax/_src/clusters/k8s_cluster.py).
"""

from __future__ import annotations

import hashlib
import itertools
import re
import shlex
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, NamedTuple

from pydantic import Field, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from honest.config import RunConfig
from honest.config_fields import Count, Strict, Text, require
from honest.errors import UserError
from honest.jobs.local import compiled_once
from honest.jobs.pool import Job
from honest.process import STOPPED
from honest.sweep.engines.hosts import trained_on

MANIFEST = "jobset.yaml"
MISTAKE = 2  # exit code of a user's mistake
LONGEST_NAME = 38  # of 63 characters that a pod's name may have: the JobSet controller adds to it
CONTAINER, VOLUME = "member", "sweep"
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$")]


class KubernetesOptions(Strict):
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
    image: Text  # with this package installed
    service_account: Text | None  # on several hosts it has to be allowed to get and list pods and get jobs
    claim: Text  # a PersistentVolumeClaim that all pods can write to, and that holds the sweep's folder
    mount_path: Text  # where the claim is mounted, e.g. /data
    folder: Text  # the sweep's folder on the claim, relative to its root
    cpu: Quantity
    memory: Quantity
    gpu_resource: Text  # e.g. nvidia.com/gpu, google.com/tpu
    gpus: Annotated[int, Field(ge=0)]  # of a pod
    hosts: Count  # pods that train a member together
    parallelism: Count  # pods at a time; on several hosts all jobs are started, and the cluster queues them
    backoff_limit: Annotated[int, Field(ge=0)]  # of a job: failures that are tried again
    save_seconds: Count  # between being asked to stop and being killed

    @model_validator(mode="after")
    def paths(self):
        inside = PurePosixPath(self.folder)
        require(
            (self.mount_path.startswith("/"), "mount_path", "is not an absolute path"),
            (not inside.is_absolute() and ".." not in inside.parts, "folder", "is not a path below the claim's root"),
        )
        return self


class Written(NamedTuple):
    manifest: Path
    kept: Path | None  # the earlier manifest, where it differed: delete its JobSets before this one is applied
    command: str  # what applies it


def check_kubernetes(options: KubernetesOptions, name: str, configs: Mapping[str, RunConfig]) -> None:
    """UserError: the hosts of members are not those of the manifest, or `name` makes too long a name."""
    wrong = trained_on("one" if options.hosts > 1 else "detect", configs)
    if wrong and options.hosts > 1:
        raise UserError(
            f"engine.kubernetes.hosts is {options.hosts}, but {wrong[0]} has parallel.hosts: one, so each pod would "
            "train it for itself. Set parallel.hosts: detect, or hosts to 1"
        )
    if wrong:
        raise UserError(
            f"engine.kubernetes.hosts is 1, but {wrong[0]} has parallel.hosts: detect, which would take all members' "
            "pods for its hosts. Set parallel.hosts: one, or hosts to more than 1"
        )
    if len(label(name)) > LONGEST_NAME or not label(name):
        raise UserError(
            f"the sweep's name {name} makes no name of a JobSet: it needs 1 to {LONGEST_NAME} letters, digits and -"
        )


def label(name: str) -> str:
    """The name as Kubernetes allows it: small letters, digits and -, a letter first."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return plain if re.match(r"[a-z]", plain) or not plain else f"s-{plain}"


def write_jobset(folder: Path, name: str, jobs: Sequence[Job], options: KubernetesOptions) -> Written:
    """Writes the manifest that runs the jobs that are not finished. UserError: all are. See `check_kubernetes`."""
    left = {number: job for number, job in enumerate(jobs) if not job.finished()}
    if not left:
        raise UserError(f"{folder}: all members are done; no manifest was written")
    place = folder / "kubernetes"
    place.mkdir(parents=True, exist_ok=True)
    listed = "".join("\t".join(job.members) + "\n" for job in left.values())
    members = f"members-{hashlib.sha256(listed.encode()).hexdigest()[:12]}.txt"
    if options.hosts == 1:
        (place / members).write_text(listed, encoding="utf-8")
    text = manifest_text(name, left, options, members)
    path, kept = place / MANIFEST, None
    if path.exists() and path.read_text(encoding="utf-8") != text:
        kept = next(old for n in itertools.count(1) if not (old := place / f"jobset.before-{n}.yaml").exists())
        path.rename(kept)
    path.write_text(text, encoding="utf-8")
    return Written(path, kept, shlex.join(["kubectl", "apply", "--filename", str(path)]))


def manifest_text(name: str, jobs: Mapping[int, Job], options: KubernetesOptions, members: str) -> str:
    """YAML of one JobSet for all jobs, or of one each, called by the job's number, where they have several hosts.

    members: name of the file in DIR/kubernetes that lists them.
    """
    inside = PurePosixPath(options.mount_path) / options.folder
    if options.hosts == 1:
        arguments = ["-m", "honest.sweep.engines.pod", str(inside), str(inside / "kubernetes" / members)]
        return yaml_text([jobset(label(name), indexed_job(len(jobs), arguments, options), None, options)])
    documents = []
    for number, job in jobs.items():
        arguments = ["-m", "honest.sweep.run_member", str(inside), *job.members]
        rules = [{"name": "mistake", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}]
        policy = {"maxRestarts": options.backoff_limit, "rules": rules}
        documents.append(jobset(f"{label(name)}-{number}", joined_job(arguments, options), policy, options))
    return yaml_text(documents)


def yaml_text(documents: Sequence[Mapping[str, Any]]) -> str:
    """Every string is quoted: Kubernetes reads YAML 1.1, where `no` is a truth value and 1:30 a number."""
    yaml = YAML()
    yaml.width = 10**6
    text = StringIO()
    yaml.dump_all([_quoted(document) for document in documents], text)
    return text.getvalue()


def _quoted(value: Any) -> Any:
    if isinstance(value, str):
        return DoubleQuotedScalarString(value)
    if isinstance(value, Mapping):
        return {key: _quoted(each) for key, each in value.items()}
    if isinstance(value, Sequence):
        return [_quoted(each) for each in value]
    return value


def jobset(
    name: str, job: Mapping[str, Any], failure_policy: Mapping[str, Any] | None, options: KubernetesOptions
) -> dict[str, Any]:
    """A JobSet of one Job. It gives its pods a headless service of its own name."""
    spec: dict[str, Any] = {"network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True}}
    if failure_policy is not None:
        spec["failurePolicy"] = failure_policy
    spec["replicatedJobs"] = [{"name": CONTAINER, "replicas": 1, "template": {"spec": job}}]
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": name, "namespace": options.namespace, "labels": {"app.kubernetes.io/name": "honest"}},
        "spec": spec,
    }


def indexed_job(completions: int, arguments: Sequence[str], options: KubernetesOptions) -> dict[str, Any]:
    """Each index is a job of the sweep, tried again by itself: one that fails for good leaves the others running."""
    drained = {"type": "DisruptionTarget", "status": "True"}
    rules = [
        {"action": "Ignore", "onPodConditions": [drained]},
        _on_exit("Ignore", STOPPED),
        _on_exit("FailIndex", MISTAKE),
    ]
    return {
        "completionMode": "Indexed",
        "completions": completions,
        "parallelism": min(options.parallelism, completions),
        "backoffLimitPerIndex": options.backoff_limit,
        "podFailurePolicy": {"rules": rules},
        "template": pod(arguments, options),
    }


def joined_job(arguments: Sequence[str], options: KubernetesOptions) -> dict[str, Any]:
    """The pods are one program: when one fails, the JobSet starts all of them again, but after a user's mistake."""
    return {
        "completionMode": "Indexed",
        "completions": options.hosts,
        "parallelism": options.hosts,
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [_on_exit("FailJob", MISTAKE)]},
        "template": pod(arguments, options),
    }


def _on_exit(action: str, code: int) -> dict[str, Any]:
    codes = {"containerName": CONTAINER, "operator": "In", "values": [code]}
    return {"action": action, "onExitCodes": codes}


def pod(arguments: Sequence[str], options: KubernetesOptions) -> dict[str, Any]:
    """The template of a pod whose container is the program itself, so that SIGTERM reaches it."""
    amounts: dict[str, str | int] = {"cpu": options.cpu, "memory": options.memory}
    if options.gpus:
        amounts[options.gpu_resource] = options.gpus
    compiled = Path(options.mount_path, options.folder, "compiled")
    container = {
        "name": CONTAINER,
        "image": options.image,
        "command": ["python", *arguments],
        "env": [{"name": name, "value": value} for name, value in compiled_once(compiled).items()],
        "resources": {"requests": dict(amounts), "limits": dict(amounts)},
        "volumeMounts": [{"name": VOLUME, "mountPath": options.mount_path}],
    }
    account = {} if options.service_account is None else {"serviceAccountName": options.service_account}
    return {
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": options.save_seconds,
            **account,
            "containers": [container],
            "volumes": [{"name": VOLUME, "persistentVolumeClaim": {"claimName": options.claim}}],
        }
    }
