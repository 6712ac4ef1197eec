"""The fields of a JobSet (jobset.x-k8s.io/v1alpha2) and of the parts of a Job (batch/v1) and a Pod that may be in one,
with their types, and the rules that the API servers check beyond types.

Written down from the field tables of the public API references of JobSet and Kubernetes 1.31. An object has no other
fields than those listed: an unknown one is refused by `kubectl apply` with strict validation.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple


class Object(NamedTuple):
    required: tuple[str, ...]
    fields: dict[str, Any]


class Map(NamedTuple):
    """Any keys, values of one kind."""

    value: Any


class OneOf(NamedTuple):
    words: tuple[str, ...]


QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
QUANTITIES = Map((str, int))
METADATA = Object((), {"name": str, "namespace": str, "labels": Map(str), "annotations": Map(str)})
ENV = Object(("name",), {"name": str, "value": str})
MOUNT = Object(("name", "mountPath"), {"name": str, "mountPath": str, "subPath": str, "readOnly": bool})
CONTAINER = Object(
    ("name",),
    {
        "name": str,
        "image": str,
        "imagePullPolicy": OneOf(("Always", "IfNotPresent", "Never")),
        "command": [str],
        "args": [str],
        "workingDir": str,
        "env": [ENV],
        "resources": Object((), {"limits": QUANTITIES, "requests": QUANTITIES}),
        "volumeMounts": [MOUNT],
    },
)
CLAIM = Object(("claimName",), {"claimName": str, "readOnly": bool})
VOLUME = Object(("name",), {"name": str, "persistentVolumeClaim": CLAIM})
POD = Object(
    ("containers",),
    {
        "restartPolicy": OneOf(("Always", "OnFailure", "Never")),
        "terminationGracePeriodSeconds": int,
        "serviceAccountName": str,
        "nodeSelector": Map(str),
        "subdomain": str,
        "containers": [CONTAINER],
        "volumes": [VOLUME],
    },
)
ON_EXIT = Object(("operator", "values"), {"containerName": str, "operator": OneOf(("In", "NotIn")), "values": [int]})
ON_CONDITION = Object(("type", "status"), {"type": str, "status": OneOf(("True", "False", "Unknown"))})
POD_FAILURE_RULE = Object(
    ("action",),
    {
        "action": OneOf(("FailJob", "FailIndex", "Ignore", "Count")),
        "onExitCodes": ON_EXIT,
        "onPodConditions": [ON_CONDITION],
    },
)
JOB = Object(
    ("template",),
    {
        "activeDeadlineSeconds": int,
        "backoffLimit": int,
        "backoffLimitPerIndex": int,
        "completionMode": OneOf(("Indexed", "NonIndexed")),
        "completions": int,
        "maxFailedIndexes": int,
        "parallelism": int,
        "podFailurePolicy": Object(("rules",), {"rules": [POD_FAILURE_RULE]}),
        "podReplacementPolicy": OneOf(("TerminatingOrFailed", "Failed")),
        "suspend": bool,
        "template": Object((), {"metadata": METADATA, "spec": POD}),
        "ttlSecondsAfterFinished": int,
    },
)
REASONS = ("BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "MaxFailedIndexesExceeded", "PodFailurePolicy")
FAILURE_RULE = Object(
    ("name", "action"),
    {
        "name": str,
        "action": OneOf(("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts")),
        "onJobFailureReasons": [OneOf(REASONS)],
        "targetReplicatedJobs": [str],
    },
)
REPLICATED_JOB = Object(
    ("name", "template"),
    {
        "name": str,
        "groupName": str,
        "replicas": int,
        "template": Object((), {"metadata": METADATA, "spec": JOB}),
    },
)
JOBSET = Object(
    ("apiVersion", "kind", "metadata", "spec"),
    {
        "apiVersion": OneOf(("jobset.x-k8s.io/v1alpha2",)),
        "kind": OneOf(("JobSet",)),
        "metadata": METADATA,
        "spec": Object(
            (),
            {
                "network": Object((), {"enableDNSHostnames": bool, "publishNotReadyAddresses": bool, "subdomain": str}),
                "failurePolicy": Object(
                    (),
                    {
                        "maxRestarts": int,
                        "restartStrategy": OneOf(("Recreate", "BlockingRecreate")),
                        "rules": [FAILURE_RULE],
                    },
                ),
                "successPolicy": Object(
                    ("operator",), {"operator": OneOf(("All", "Any")), "targetReplicatedJobs": [str]}
                ),
                "replicatedJobs": [REPLICATED_JOB],
                "suspend": bool,
                "ttlSecondsAfterFinished": int,
            },
        ),
    },
)


def wrong(value: Any, kind: Any, at: str) -> Iterator[str]:
    """A line for each field that is unknown, missing or of another type."""
    if isinstance(kind, Object):
        if not isinstance(value, dict):
            yield f"{at}: not an object"
            return
        yield from (f"{at}.{name}: unknown field" for name in value if name not in kind.fields)
        yield from (f"{at}.{name}: missing" for name in kind.required if name not in value)
        for name in value.keys() & kind.fields.keys():
            yield from wrong(value[name], kind.fields[name], f"{at}.{name}")
    elif isinstance(kind, Map):
        for name, each in value.items():
            yield from wrong(each, kind.value, f"{at}.{name}")
    elif isinstance(kind, list):
        if not isinstance(value, list):
            yield f"{at}: not a list"
            return
        for number, each in enumerate(value):
            yield from wrong(each, kind[0], f"{at}[{number}]")
    elif isinstance(kind, OneOf):
        if value not in kind.words:
            yield f"{at}: {value!r} is none of {', '.join(kind.words)}"
    elif not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        yield f"{at}: {value!r} is of another type"


def broken_rules(jobset: dict[str, Any]) -> Iterator[str]:
    """What types do not say: of names' lengths, of a Job's failure policy, and of what refers to what."""
    name = jobset["metadata"]["name"]
    for replicated in jobset["spec"]["replicatedJobs"]:
        job = replicated["template"]["spec"]
        pod = job["template"]["spec"]
        longest = f"{name}-{replicated['name']}-{replicated['replicas'] - 1}-{job['completions'] - 1}-abcde"
        if len(longest) > 63 or not LABEL.fullmatch(name) or not LABEL.fullmatch(replicated["name"]):
            yield f"{longest} is no name of a pod"
        if job["completionMode"] != "Indexed":
            yield "only an Indexed Job sets JOB_COMPLETION_INDEX"
        needs_never = {"podFailurePolicy", "backoffLimitPerIndex"} & job.keys()
        if needs_never and pod["restartPolicy"] != "Never":
            yield f"{', '.join(sorted(needs_never))}: restartPolicy has to be Never"
        if pod["restartPolicy"] == "Always":
            yield "a Job's restartPolicy is Never or OnFailure"
        yield from _failure_rules(job, [container["name"] for container in pod["containers"]])
        volumes = [volume["name"] for volume in pod["volumes"]]
        for container in pod["containers"]:
            mounts = container["volumeMounts"]
            yield from (f"{mount['name']} is no volume" for mount in mounts if mount["name"] not in volumes)
            yield from (f"{mount['mountPath']} is not absolute" for mount in mounts if mount["mountPath"][0] != "/")
            limits, requests = container["resources"]["limits"], container["resources"]["requests"]
            for resource, amount in {**limits, **requests}.items():
                if not QUANTITY.fullmatch(str(amount)):
                    yield f"{resource}: {amount} is no quantity"
                if "/" in resource and limits[resource] != requests[resource]:
                    yield f"{resource}: an extended resource's request is its limit"


def _failure_rules(job: dict[str, Any], containers: list[str]) -> Iterator[str]:
    for rule in job["podFailurePolicy"]["rules"]:
        if ("onExitCodes" in rule) == ("onPodConditions" in rule):
            yield f"{rule}: exactly one of onExitCodes and onPodConditions"
        if rule["action"] == "FailIndex" and "backoffLimitPerIndex" not in job:
            yield "FailIndex needs backoffLimitPerIndex"
        if "onExitCodes" in rule:
            codes = rule["onExitCodes"]
            if codes["containerName"] not in containers:
                yield f"{codes['containerName']} is no container"
            if codes["values"] != sorted(set(codes["values"])) or (codes["operator"] == "In" and 0 in codes["values"]):
                yield f"{codes['values']}: ascending, each once, and no 0 where the operator is In"
