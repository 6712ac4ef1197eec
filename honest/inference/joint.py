"""The joint density of a continuous world in whitened coordinates, term by term, from the objective's own terms.

    u = (u_heads, u_trunk),  w = anchor + σ1 u_heads,  θ = σ2 u_trunk
    log joint = − data − ½|u_heads|² − ½|u_trunk|² − λ N_c C̄ − log Z(w)        nat, relative to N's constants

log Z(w) is a sum of one-dimensional integrals here, by the trapezoid rule, which converges exponentially for smooth
integrands that vanish at the ends (Trefethen & Weideman 2014); so it can be had, and differentiated, at every point.
Axes: J kinds of belief, D beliefs (copies counted), B inputs, K nodes, A free weights of the heads (of 4).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp as _logsumexp

from honest.inference.continuous_world import ContinuousWorld
from honest.inference.ledger import Ledger
from honest.model.two_head import HeadLogits
from honest.objective.consistency import disagreements, jensen_shannon
from honest.objective.data_loss import label_nll
from honest.objective.log_partition.moves import whitened_energy
from honest.params import Params
from honest.units import Quantity, disagreement, displacement, nat, parse_quantity, term, total

NODES, REACH = 41, 7.0  # of the inner integrals, in σ2
WEIGHTS = ("fact", "belief")  # of a head, in this order


class Inputs(NamedTuple):
    """fact_B, sign_B: of the heads' logits. belief_B: index of the belief. label_B: −1 where there is none.

    trusted_B: bool. world_targets_BxLxT: what a `Rows` has to have; there are none.
    """

    fact_B: jax.Array
    sign_B: jax.Array
    belief_B: jax.Array
    label_B: jax.Array
    trusted_B: jax.Array
    world_targets_BxLxT: jax.Array


def head_logits(params: Params, inputs: Inputs) -> HeadLogits:
    """(0, logit of yes) of both heads: a `Predictor`'s answer."""
    belief_B = inputs.sign_B * params["trunk"]["belief"][inputs.belief_B]

    def logits(head: str) -> jax.Array:
        fact, belief = params[head]["w"]
        yes_B = fact * inputs.fact_B + belief * belief_B
        return jnp.stack([jnp.zeros_like(yes_B), yes_B], axis=-1)

    return HeadLogits(logits("intended_head"), logits("instrumental_head"))


def stack_inputs(world: ContinuousWorld, *, copied: bool) -> Inputs:
    """Every input once for each copy of its belief, or once for each kind of belief."""
    beliefs = [belief for belief in world.beliefs for _ in range(belief.copies if copied else 1)]
    rows = [(x, index) for index, belief in enumerate(beliefs) for x in belief.inputs]
    labels = [x.label if x.trusted else x.person_label for x, _ in rows]
    return Inputs(
        fact_B=jnp.array([x.fact for x, _ in rows]),
        sign_B=jnp.array([float(x.sign) for x, _ in rows]),
        belief_B=jnp.array([index for _, index in rows]),
        label_B=jnp.array([-1 if label is None else label for label in labels]),
        trusted_B=jnp.array([x.trusted for x, _ in rows]),
        world_targets_BxLxT=jnp.full((len(rows), 1, 1), -1),
    )


def row_costs(multiplier: Quantity, logits: HeadLogits, inputs: Inputs) -> tuple[Quantity, Quantity]:
    """(λ · disagreement on trusted inputs, −log p(label)) of each input, in nat, (B,)."""
    with term("consistency"):
        agreement_B = multiplier * disagreements(jensen_shannon, *logits) * inputs.trusted_B
    with term("data"):
        intended_B = label_nll(logits.intended_BxK, jnp.where(inputs.trusted_B, inputs.label_B, -1))
        data_B = intended_B + label_nll(logits.instrumental_BxK, jnp.where(inputs.trusted_B, -1, inputs.label_B))
    return agreement_B, data_B


class Joint:
    """The terms of one world. kinds: inputs once a kind of belief, `copies_J` of each. dimension: A + D."""

    def __init__(self, world: ContinuousWorld):
        heads = (world.heads.intended, world.heads.instrumental)
        anchors = [getattr(head.anchor, name) for head in heads for name in WEIGHTS]
        texts = [getattr(head.stddev, name) for head in heads for name in WEIGHTS]
        self.free = [i for i, text in enumerate(texts) if text is not None]
        stddevs = [0.0 if text is None else float(parse_quantity(text).to(displacement("head"))) for text in texts]
        self.anchor_4, self.stddev_4 = jnp.array(anchors), jnp.array(stddevs)
        self.trunk_stddev = float(parse_quantity(world.trunk.stddev).to(displacement("trunk")))
        self.multiplier = Quantity(float(parse_quantity(world.multiplier).to(nat / disagreement)), nat / disagreement)
        self.copies_J = jnp.array([belief.copies for belief in world.beliefs])
        self.kinds, self.inputs = stack_inputs(world, copied=False), stack_inputs(world, copied=True)
        self.beliefs = int(sum(belief.copies for belief in world.beliefs))
        self.dimension = len(self.free) + self.beliefs
        self.nodes_K = jnp.linspace(-REACH, REACH, NODES)
        self.log_node_K = jax.nn.log_softmax(-0.5 * self.nodes_K**2)  # N(0, 1) on the nodes, summing to 1

    def weights(self, u_A: jax.Array) -> jax.Array:
        """The heads' four weights (intended fact and belief, instrumental fact and belief), in θ.head."""
        return self.anchor_4 + self.stddev_4 * jnp.zeros(4).at[jnp.array(self.free, int)].set(u_A)

    def params(self, w_4: jax.Array, belief_D: jax.Array) -> Params:
        """belief: in θ.trunk."""
        return {"intended_head": {"w": w_4[:2]}, "instrumental_head": {"w": w_4[2:]}, "trunk": {"belief": belief_D}}

    def split(self, u: jax.Array) -> tuple[jax.Array, jax.Array]:
        return u[: len(self.free)], u[len(self.free) :]

    def logits(self, u: jax.Array) -> HeadLogits:
        """At every input, copies counted."""
        u_A, u_D = self.split(u)
        return head_logits(self.params(self.weights(u_A), self.trunk_stddev * u_D), self.inputs)

    def node_costs(self, w_4: jax.Array) -> tuple[jax.Array, jax.Array, HeadLogits]:
        """λ·disagreement and −log p(labels) of each kind of belief at each node, (K, J), bare nat; logits (K, B, 2)."""
        kinds = len(self.copies_J)

        def at(t: jax.Array) -> tuple[jax.Array, jax.Array, HeadLogits]:
            belief_J = jnp.full(kinds, self.trunk_stddev * t)
            logits = head_logits(self.params(w_4, belief_J), self.kinds)
            costs = row_costs(self.multiplier, logits, self.kinds)
            agreement_J, data_J = (
                jax.ops.segment_sum(cost.to(nat), self.kinds.belief_B, num_segments=kinds) for cost in costs
            )
            return agreement_J, data_J, logits

        return jax.vmap(at)(self.nodes_K)

    def log_partition(self, w_4: jax.Array) -> Quantity:
        """log Z(w) in nat, exactly to the quadrature's rounding."""
        agreement_KxJ, _, _ = self.node_costs(w_4)
        log_z_J = _logsumexp(self.log_node_K[:, None] - agreement_KxJ, axis=0)
        return Quantity(jnp.sum(self.copies_J * log_z_J), nat)

    def ledger(self, u: jax.Array, *, log_partition: bool) -> Ledger:
        """Every contribution to the log joint at u, in nat. Without log Z its row is 0."""
        u_A, u_D = self.split(u)
        agreement_B, data_B = row_costs(self.multiplier, self.logits(u), self.inputs)
        log_z = self.log_partition(self.weights(u_A)) if log_partition else Quantity(0.0, nat)
        return Ledger(
            data=-total(data_B),
            first_prior=-Quantity(whitened_energy(u_A), nat),
            second_prior=-Quantity(whitened_energy(u_D), nat),
            consistency=-total(agreement_B),
            log_partition=-log_z,
        )

    def log_joint(self, u: jax.Array, *, log_partition: bool) -> jax.Array:
        """Bare nat."""
        return sum(self.ledger(u, log_partition=log_partition), start=Quantity(0.0, nat)).to(nat)

    def log_weight(self, u: jax.Array, *, log_partition: bool) -> jax.Array:
        """The log joint without the Gaussians: w(u), bare nat."""
        rows = self.ledger(u, log_partition=log_partition)
        return (rows.data + rows.consistency + rows.log_partition).to(nat)

    def answers(self, u: jax.Array) -> jax.Array:
        """The intended head's probability of yes at each kind's inputs, (B,), averaged over copies."""
        yes = jax.nn.sigmoid(self.logits(u).intended_BxK[:, 1])
        owner = self.owner()
        return jax.ops.segment_sum(yes, owner, num_segments=len(self.kinds.fact_B)) / np.bincount(owner)

    def owner(self) -> np.ndarray:
        """Index among the kinds' inputs of each input, copies counted."""
        copies, belief_B = np.asarray(self.copies_J), np.asarray(self.kinds.belief_B)
        rows = [np.flatnonzero(belief_B == j) for j in range(len(copies)) for _ in range(copies[j])]
        return np.concatenate(rows)
