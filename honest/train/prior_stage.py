"""The stage of the full objective: its numbers out of their units, its populations, and the phases' starts."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax

from honest.config import RunConfig
from honest.data.batch import Pairs, Task
from honest.data.loader import to_device
from honest.objective.log_partition.volume import choose_volume_rows
from honest.objective.predictions import Counts, RowSets, size
from honest.params import Params, batched, whiten
from honest.train import families, phases
from honest.train import multiplier as multipliers
from honest.train.predictor import TokenPredictor
from honest.train.sharding import replicate
from honest.train.spec import Numbers, PhaseSettings, PriorSpec, StageSpec
from honest.train.stage import PRIOR, Run, Stage, assemble, fresh_state, labelled_rows, stage_optimizer
from honest.train.state import Held, PriorState, TrainState, VolumeState
from honest.units import disagreement, example, nat, parse_quantity

MODE_B2 = 0.95


def prior_spec(config: RunConfig) -> PriorSpec:
    """The objective's numbers, out of their units: ε in disagreement/example, λ in nat/disagreement."""
    objective, settings, rule = config.objective, config.objective.phases, config.objective.multiplier

    def exchange(text: str) -> float:
        return float(parse_quantity(text).to(nat / disagreement))

    return PriorSpec(
        staging=objective.staging,
        log_partition=objective.log_partition == "included",
        divergence=objective.consistency.divergence,
        multiplier=multipliers.MultiplierRule(
            update=rule.update,
            tolerance=float(parse_quantity(rule.tolerance).to(disagreement / example)),
            initial=exchange(rule.initial),
            minimum=exchange(rule.minimum),
            maximum=exchange(rule.maximum),
            rate=rule.rate,
            proportional_rate=rule.proportional_rate,
            ema=multipliers.decay(rule.ema),
            warmup_steps=rule.warmup_steps,
        ),
        phases=PhaseSettings(
            kind=settings.kind,
            learning_rate=settings.learning_rate,
            volume_every=settings.volume_every,
            chains=settings.chains,
            leapfrog_steps=settings.leapfrog_steps,
            step_size=settings.step_size,
            target_accept=settings.target_accept,
            adjusted=settings.adjusted,
            chunk_rows=settings.chunk_rows,
            control_variate=settings.control_variate,
            cg_steps=settings.cg_steps,
            move_every=settings.move_every,
            asked_chains=settings.asked,
        ),
        batch_particles=batched(),
    )


def prior_sets(config: RunConfig, task: Task) -> RowSets:
    """The declared populations of the full objective, on the device."""
    splits = task.splits
    population = config.objective.consistency.population
    agreement = jax.tree.map(lambda leaf: leaf[:population], splits.trusted)
    answered = splits.untrusted if config.objective.supervision.instrumental == "untrusted" else None
    return RowSets(
        trusted=to_device(splits.trusted),
        untrusted=None if answered is None else to_device(answered),
        world=to_device(splits.world),
        consistency=to_device(agreement),
        compared=None if splits.comparisons is None else Pairs(*map(to_device, splits.comparisons)),
    )


def prior_counts(sets: RowSets) -> Counts:
    assert sets.world is not None and sets.consistency is not None
    return Counts(
        trusted=labelled_rows(sets.trusted),
        untrusted=labelled_rows(sets.untrusted),
        world_tokens=int(np.sum(np.asarray(sets.world.world_targets_BxLxT) >= 0)),
        consistency=sets.consistency.label_B.shape[0],
        compared=0 if sets.compared is None else size(sets.compared),
    )


def prior_stage(run: Run, trained_trunk: Params) -> Stage:
    config = run.config
    prior, sets = prior_spec(config), prior_sets(config, run.task)
    counts = prior_counts(sets)
    spec = StageSpec(
        name=PRIOR,
        predictor=TokenPredictor(run.model),
        trained=prior.trained,
        counts=counts,
        examples=counts.labels,
        optimizer=stage_optimizer(config.stages.prior),
        prior=prior,
        penalty=None,
    )
    mode_optimizer = modes(prior)
    laplace = prior.phases.kind == "laplace"

    def held() -> Held:
        fresh = run.anchor()
        start = {**fresh, "trunk": trained_trunk}
        anchor = start if config.objective.anchor == "trained" else fresh
        fisher = families.Fisher(spec.predictor, sets)
        made = families.make(config.objective, prior.trained, prior.resampled, anchor, fisher)
        return Held(anchor, start, made)

    def starts() -> Params:
        """Whitened starts, leading axis 2: the priors' centre, and the trained trunk."""
        at = held()
        params = {group: at.anchor[group] for group in prior.trained}
        c = phases.centre(prior, params, at)
        trained = whiten({**at.anchor, "trunk": trained_trunk}, c, phases.metric(at), prior.resampled)
        return jax.tree.map(lambda leaf: jnp.stack([jnp.zeros_like(leaf), leaf]), trained)

    def init() -> TrainState:
        at = held()
        params = {group: at.anchor[group] for group in prior.trained}
        chosen = jax.tree.map(lambda leaf: leaf[_particles(prior)], starts())
        phase = phases.init_phase(chosen, prior, mode_optimizer)
        zero = jnp.zeros((), run.dtype)
        volume = VolumeState(jax.tree.map(jnp.zeros_like, params), zero, zero) if laplace else None
        multiplier = multipliers.init(prior.multiplier, run.dtype)
        return fresh_state(run, spec, params, at, PriorState(phase, jax.tree.map(jnp.copy, phase), multiplier, volume))

    rows = config.objective.phases.volume_rows
    chosen = choose_volume_rows(sets, rows, config.seed) if laplace else None
    return assemble(
        run,
        spec,
        sets,
        init,
        volume=None if chosen is None else replicate(chosen, run.mesh),
        modes=modes,
        starts=starts,
    )


def modes(prior: PriorSpec) -> optax.GradientTransformation:
    """No weight decay: the second prior is the only pull towards the centre. A short memory of squared gradients
    (optax's default remembers 1,000 steps): when λ falls, a mode must be free to fall back to the centre at once."""
    return optax.adam(prior.phases.learning_rate, b2=MODE_B2)


def _particles(prior: PriorSpec) -> np.ndarray:
    """Which start each particle takes before burn-in: one mode, or the chains in turn."""
    return np.arange(prior.phases.chains) % 2 if prior.phases.kind == "chains" else np.zeros(1, int)


def settling(stage: Stage) -> Stage:
    """The stage with stage one and λ frozen, for the phases' burn-in: by the same train step."""

    def rebuild(numbers: Numbers) -> tuple[StageSpec, optax.GradientTransformation]:
        spec, mode_optimizer = stage.rebuild(numbers)
        return frozen(spec), mode_optimizer

    return replace(stage, spec=frozen(stage.spec), volume=None, rebuild=rebuild)


def frozen(spec: StageSpec) -> StageSpec:
    assert spec.prior is not None
    rule = replace(spec.prior.multiplier, warmup_steps=np.iinfo(np.int32).max)
    settings = spec.prior.phases
    settings = settings if settings.kind == "chains" else replace(settings, kind="points")
    settings = replace(settings, control_variate="none", move_every=1)  # nothing takes stage one's gradient
    return replace(spec, prior=replace(spec.prior, multiplier=rule, phases=settings), optimizer=optax.set_to_zero())


def with_particles(state: TrainState, whitened: Params, stage: Stage) -> TrainState:
    """Both phases at these particles (leading axis C), with fresh optimisers."""
    assert stage.spec.prior is not None and state.prior is not None
    phase = phases.init_phase(whitened, stage.spec.prior, stage.mode_optimizer)
    return state._replace(prior=state.prior._replace(positive=phase, negative=jax.tree.map(jnp.copy, phase)))
