"""What Ray says of a dead process, as captured from it, and the two counts that follow from it."""

from __future__ import annotations

import pytest

from fashion.engine.deaths import Deaths, machine_went

HEAD = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: ImplicitFunc\n\tactor_id: 1f\n\tpid: 71\n"
)
NODE = HEAD + "The actor died because its node has died. Node Id: 5c\n\tthe actor's node was terminated unexpectedly: "
CAPTURED = {
    "killed process": (
        "ActorDiedError",
        HEAD
        + "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "
        "Worker unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the "
        "process was killed by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the "
        "worker crashed unexpectedly due to SIGSEGV or another unexpected error.",
        False,
    ),
    "killed by the driver": ("ActorDiedError", HEAD + "The actor is dead because it was killed by `ray.kill`.", False),
    "an exception": ("RayTaskError(ValueError)", "ray::ImplicitFunc.train() ... ValueError: no", False),
    "lost node": ("ActorDiedError", NODE + "health check failed due to missing too many heartbeats", True),
    "removed node": (
        "ActorDiedError",
        HEAD + "The actor died because its node has died. Node Id: 5c\n\tthe actor's node was terminated expectedly: "
        "received SIGTERM",
        True,
    ),
    "node of a task": ("NodeDiedError", "Task failed because the node is dead or unreachable", True),
}


@pytest.mark.parametrize("name", CAPTURED)
def test_a_lost_machine_is_told_from_a_death_of_the_process(name: str) -> None:
    kind, text, expected = CAPTURED[name]
    assert machine_went(kind, text) is expected


def test_rays_own_word_for_a_preemption_counts() -> None:
    assert machine_went("ActorDiedError", CAPTURED["killed process"][1], preempted=True)


def test_machines_and_failures_have_counts_of_their_own() -> None:
    deaths = Deaths(max_failures=1, max_preemptions=2)
    for reason, machine in (("crashed", False), ("drained", True), ("cut off", True)):
        deaths.add(reason, machine)
        assert not deaths.too_many
    failed = Deaths(1, 2, [*deaths.reasons, ("crashed again", False)])
    assert failed.too_many == "its process died 2 times: crashed again"
    lost = Deaths(1, 2, [*deaths.reasons, ("cut off again", True)])
    assert lost.too_many == "its machine was lost 3 times: cut off again"


def test_the_first_death_is_the_last_where_none_is_allowed() -> None:
    deaths = Deaths(0, 0)
    before = deaths.too_many
    assert not before
    deaths.add("crashed", False)
    assert deaths.too_many == "its process died 1 times: crashed"
