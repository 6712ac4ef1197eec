"""Mistakes that people make when they write the objective by hand, one a row, each with the message that they get.

The units in a message were worked out on paper: λ in nat/disagreement, C̄ in disagreement/example, a precision or a
curvature in nat/θ², a gradient or a momentum in nat/θ, a step of gradient descent in θ²/nat, one of Adam in θ.
"""

import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from honest.units import (
    Quantity,
    Unit,
    UnitError,
    assert_log_density,
    assert_unit,
    bit,
    density,
    disagreement,
    displacement,
    example,
    exp,
    log,
    logsumexp,
    mean,
    nat,
    one,
    parse_quantity,
    parse_unit,
    strip_grad,
    term,
    token,
    total,
    value_and_grad,
)

TRUNK, HEAD = displacement("trunk"), displacement("head")
HALF = Fraction(1, 2)
one_nat = Quantity(1.0, nat)

# The parts that an objective is made of, each in its right unit.
label_nll_B: Any = Quantity(jnp.array([0.5, 1.5]), nat)  # Any: jnp.sum of it would not pass the type checker
label_rate = mean(label_nll_B, per=example)
labels = Quantity(200.0, example)
mask_BxL = jnp.array([[True, True, False], [True, False, False]])
world_nll_BxL: Any = Quantity(jnp.ones((2, 3)), nat)
world_rate = mean(world_nll_BxL, per=token, where=mask_BxL)
world_tokens = Quantity(1600.0, token)
data = label_rate * labels

shift_D, head_shift_D = Quantity(jnp.array([3.0, 4.0]), TRUNK), Quantity(jnp.array([1.0]), HEAD)
length, head_length = Quantity(5.0, TRUNK), Quantity(1.0, HEAD)
squared, head_squared = total(shift_D**2), total(head_shift_D**2)
sigma, head_sigma = parse_quantity("0.5 θ.trunk"), parse_quantity("2.0 θ.head")
precision = one_nat / sigma**2
prior = -0.5 * precision * squared
first_prior, second_prior = density(prior, "θ1.trunk"), density(prior, "θ2.trunk")

multiplier = parse_quantity("10 nat/disagreement")
population = Quantity(64.0, example)
disagreements_B = Quantity(jnp.array([0.25, 0.75]), disagreement)
violation = mean(disagreements_B, per=example)
tolerance = parse_quantity("0.001 disagreement/example")
divergence_rate = Quantity(0.5, nat / example)

gradient_D = Quantity(jnp.array([0.1, 0.2]), nat / TRUNK)
head_gradient_D = Quantity(jnp.array([0.3]), nat / HEAD)
row_gradient_BxD = Quantity(jnp.ones((4, 2)), nat / TRUNK)
descent_rate, adam_rate = Quantity(0.01, TRUNK**2 / nat), Quantity(0.001, TRUNK)
curvature_D = Quantity(jnp.array([4.0, 8.0]), nat / TRUNK**2)  # eigenvalues of a Hessian
momentum_D = Quantity(jnp.array([0.5, 1.0]), nat / TRUNK)
normal_D = jnp.array([1.0, -1.0])
code_length = Quantity(3.0, bit)
accuracy = jnp.float32(0.75)


def energy(shift_D: Quantity) -> Quantity:
    return -0.5 * precision * total(shift_D**2)


def stripped_gradient(f: Callable[[jax.Array], Quantity], group: str, kind: Unit) -> dict[str, Any]:
    _, gradients = value_and_grad(lambda params: f(params[group]), {group: kind})({group: jnp.ones(2)})
    return strip_grad(gradients, {group: kind})


class Mistake(NamedTuple):
    what: str
    term: str
    expression: Callable[[], Any]
    message: str  # without the term, and in MISMATCHED without the advice that ends it


MISMATCHED = [
    # --- data: means, sums and counts
    Mistake(
        "the mean over tokens added to a prior of the whole set",
        "data.trunk",
        lambda: world_rate + prior,
        "the left operand of + has unit nat/token, expected nat; missing factor: token",
    ),
    Mistake(
        "the mean over examples added to a prior of the whole set",
        "data.intended_head",
        lambda: label_rate + prior,
        "the left operand of + has unit nat/example, expected nat; missing factor: example",
    ),
    Mistake(
        "the prior divided by the number of tokens, the loss per example",
        "first_prior.trunk",
        lambda: label_rate - prior / world_tokens,
        "the right operand of - has unit nat/token, expected nat/example; missing factor: token/example",
    ),
    Mistake(
        "the prior divided by the number of examples, the loss summed",
        "second_prior.trunk",
        lambda: total(label_nll_B) - prior / labels,
        "the right operand of - has unit nat/example, expected nat; missing factor: example",
    ),
    Mistake(
        "a mean over examples added to a mean over tokens",
        "data.trunk",
        lambda: label_rate + world_rate,
        "the right operand of + has unit nat/token, expected nat/example; missing factor: token/example",
    ),
    Mistake(
        "a sum over examples multiplied by their number once more",
        "data.intended_head",
        lambda: total(label_nll_B) * labels + prior,
        "the left operand of + has unit nat·example, expected nat; missing factor: 1/example",
    ),
    Mistake(
        "a mean divided, not multiplied, by the number of examples",
        "data.intended_head",
        lambda: label_rate / labels + prior,
        "the left operand of + has unit nat/example², expected nat; missing factor: example²",
    ),
    Mistake(
        "a mean over tokens multiplied by the number of examples",
        "data.trunk",
        lambda: world_rate * labels + prior,
        "the left operand of + has unit nat·example/token, expected nat; missing factor: token/example",
    ),
    Mistake(
        "a mean over examples multiplied by the number of tokens",
        "data.instrumental_head",
        lambda: label_rate * world_tokens + prior,
        "the left operand of + has unit nat·token/example, expected nat; missing factor: example/token",
    ),
    Mistake(
        "the total of masked means over tokens added to a whole-set sum",
        "data.trunk",
        lambda: data + total(mean(world_nll_BxL, per=token, where=mask_BxL, axis=1)),
        "the right operand of + has unit nat/token, expected nat; missing factor: token",
    ),
    Mistake(
        "a mean per example declared to be the whole log posterior",
        "log_posterior",
        lambda: assert_log_density(-label_rate),
        "log density has unit nat/example, expected nat; missing factor: example",
    ),
    Mistake(
        "a divergence per token compared with one per example",
        "evaluation",
        lambda: mean(world_nll_BxL, per=token) < divergence_rate,
        "the right operand of < has unit nat/example, expected nat/token; missing factor: example/token",
    ),
    Mistake(
        "an accuracy added to nats",
        "evaluation",
        lambda: data + accuracy,
        "the right operand of + (a bare number) has unit 1, expected nat; missing factor: nat",
    ),
    Mistake(
        "bits compared with a bare number",
        "ledger",
        lambda: code_length < 100.0,
        "the right operand of < (a bare number) has unit 1, expected bit; missing factor: bit",
    ),
    Mistake(
        "a description length in bits subtracted as a bare number",
        "first_prior.intended_head",
        lambda: prior - code_length.to(bit),
        "the right operand of - (a bare number) has unit 1, expected nat; missing factor: nat",
    ),
    Mistake(
        "the log of a mixing weight of so many bits as a bare number",
        "second_prior.intended_head",
        lambda: logsumexp([prior + math.log(2.0**-3), prior + math.log(1 - 2.0**-3)]),
        "the right operand of + (a bare number) has unit 1, expected nat; missing factor: nat",
    ),
    Mistake(
        "a mixture whose second component is a bare log density",
        "second_prior.trunk",
        lambda: logsumexp([prior, -3 * math.log(2.0)]),
        "a term of logsumexp has unit 1, expected nat; missing factor: nat",
    ),
    Mistake(
        "an energy divided by a temperature in nats, then added to nats",
        "log_partition",
        lambda: prior / Quantity(2.0, nat) + data,
        "the left operand of + has unit 1, expected nat; missing factor: nat",
    ),
    Mistake(
        "an acceptance probability at a temperature in nats",
        "log_partition",
        lambda: exp((prior - data) / Quantity(2.0, nat)),
        "the argument of exp has unit 1, expected nat; missing factor: nat",
    ),
    # --- consistency: λ, N_c, C̄ and ε
    Mistake(
        "λ multiplying the data in place of the disagreement",
        "data.intended_head",
        lambda: multiplier * data - prior,
        "the left operand of - has unit nat²/disagreement, expected nat; missing factor: disagreement/nat",
    ),
    Mistake(
        "λ dividing",
        "consistency",
        lambda: prior - population * violation / multiplier,
        "the right operand of - has unit disagreement²/nat, expected nat; missing factor: nat²/disagreement²",
    ),
    Mistake(
        "λ missing",
        "consistency",
        lambda: prior - population * violation,
        "the right operand of - has unit disagreement, expected nat; missing factor: nat/disagreement",
    ),
    Mistake(
        "λ on the count alone, the disagreement left out",
        "consistency",
        lambda: prior - multiplier * population,
        "the right operand of - has unit nat·example/disagreement, expected nat; missing factor: disagreement/example",
    ),
    Mistake(
        "λ given per example in place of per disagreement",
        "consistency",
        lambda: prior - parse_quantity("10 nat/example") * population * violation,
        "the right operand of - has unit nat·disagreement/example, expected nat; missing factor: example/disagreement",
    ),
    Mistake(
        "λ applied twice",
        "consistency",
        lambda: prior - multiplier * (multiplier * population * violation),
        "the right operand of - has unit nat²/disagreement, expected nat; missing factor: disagreement/nat",
    ),
    Mistake(
        "λ a bare one half",
        "consistency",
        lambda: assert_unit(0.5 * population * violation, nat, "λ·N_c·C̄"),
        "λ·N_c·C̄ has unit disagreement, expected nat; missing factor: nat/disagreement",
    ),
    Mistake(
        "λ applied to a divergence that is already in nats",
        "consistency",
        lambda: assert_unit(multiplier * population * divergence_rate, nat, "λ·N_c·C̄"),
        "λ·N_c·C̄ has unit nat²/disagreement, expected nat; missing factor: disagreement/nat",
    ),
    Mistake(
        "the unit of λ upside down in the config",
        "consistency",
        lambda: assert_unit(parse_quantity("10 disagreement/nat") * population * violation, nat, "λ·N_c·C̄"),
        "λ·N_c·C̄ has unit disagreement²/nat, expected nat; missing factor: nat²/disagreement²",
    ),
    Mistake(
        "λ a bare number inside Z",
        "log_partition",
        lambda: exp(-10.0 * population * violation),
        "the argument of exp has unit disagreement, expected nat; missing factor: nat/disagreement",
    ),
    Mistake(
        "N_c missing inside Z",
        "log_partition",
        lambda: exp(-multiplier * violation),
        "the argument of exp has unit nat/example, expected nat; missing factor: example",
    ),
    Mistake(
        "N_c missing",
        "consistency",
        lambda: prior - multiplier * violation,
        "the right operand of - has unit nat/example, expected nat; missing factor: example",
    ),
    Mistake(
        "N_c twice",
        "consistency",
        lambda: prior - multiplier * population * (population * violation),
        "the right operand of - has unit nat·example, expected nat; missing factor: 1/example",
    ),
    Mistake(
        "N_c a number of tokens",
        "consistency",
        lambda: prior - multiplier * world_tokens * violation,
        "the right operand of - has unit nat·token/example, expected nat; missing factor: example/token",
    ),
    Mistake(
        "C̄ compared with an ε in disagreement",
        "multiplier",
        lambda: violation > parse_quantity("0.02 disagreement"),
        "the right operand of > has unit disagreement, expected disagreement/example; missing factor: 1/example",
    ),
    Mistake(
        "a sum of disagreements compared with an ε per example",
        "multiplier",
        lambda: total(disagreements_B) <= tolerance,
        "the right operand of <= has unit disagreement/example, expected disagreement; missing factor: example",
    ),
    Mistake(
        "λ(C̄ − ε) added to the loss without N_c",
        "multiplier",
        lambda: data + multiplier * (violation - tolerance),
        "the right operand of + has unit nat/example, expected nat; missing factor: example",
    ),
    Mistake(
        "λ stepped by a bare rate times C̄ − ε",
        "multiplier",
        lambda: multiplier + 0.02 * (violation - tolerance),
        "the right operand of + has unit disagreement/example, expected nat/disagreement; "
        "missing factor: nat·example/disagreement²",
    ),
    Mistake(
        "λ scaled by the exponential of C̄ − ε, not of its ratio to ε",
        "multiplier",
        lambda: multiplier * exp(0.02 * (violation - tolerance)),
        "the argument of exp has unit disagreement/example, expected nat; missing factor: nat·example/disagreement",
    ),
    Mistake(
        "λ compared with a bare maximum",
        "multiplier",
        lambda: multiplier > 100.0,
        "the right operand of > (a bare number) has unit 1, expected nat/disagreement; "
        "missing factor: nat/disagreement",
    ),
    # --- priors: distances, σ and precisions
    Mistake(
        "σ of the head for a distance of the trunk",
        "first_prior.trunk",
        lambda: assert_unit(one_nat / head_sigma**2 * squared, nat, "precision·d²"),
        "precision·d² has unit nat·θ.trunk²/θ.head², expected nat; missing factor: θ.head²/θ.trunk²",
    ),
    Mistake(
        "a misspelt group in the config's σ",
        "first_prior.trunk",
        lambda: assert_unit(one_nat / parse_quantity("0.5 θ.trnk") ** 2 * squared, nat, "precision·d²"),
        "precision·d² has unit nat·θ.trunk²/θ.trnk², expected nat; missing factor: θ.trnk²/θ.trunk²",
    ),
    Mistake(
        "a distance of the trunk added to one of the head",
        "second_prior.trunk",
        lambda: length + head_length,
        "the right operand of + has unit θ.head, expected θ.trunk; missing factor: θ.trunk/θ.head",
    ),
    Mistake(
        "one squared distance over trunk and head",
        "second_prior.trunk",
        lambda: squared + head_squared,
        "the right operand of + has unit θ.head², expected θ.trunk²; missing factor: θ.trunk²/θ.head²",
    ),
    Mistake(
        "a distance, not squared, times the precision",
        "second_prior.trunk",
        lambda: assert_unit(precision * length, nat, "precision·d²"),
        "precision·d² has unit nat/θ.trunk, expected nat; missing factor: θ.trunk",
    ),
    Mistake(
        "a squared distance with σ for σ²",
        "second_prior.trunk",
        lambda: assert_unit(one_nat / sigma * squared, nat, "precision·d²"),
        "precision·d² has unit nat·θ.trunk, expected nat; missing factor: 1/θ.trunk",
    ),
    Mistake(
        "a squared distance with the variance squared",
        "second_prior.trunk",
        lambda: assert_unit(one_nat / sigma**4 * squared, nat, "precision·d²"),
        "precision·d² has unit nat/θ.trunk², expected nat; missing factor: θ.trunk²",
    ),
    Mistake(
        "a squared distance times the variance",
        "first_prior.trunk",
        lambda: assert_unit(one_nat * sigma**2 * squared, nat, "precision·d²"),
        "precision·d² has unit nat·θ.trunk⁴, expected nat; missing factor: 1/θ.trunk⁴",
    ),
    Mistake(
        "a squared distance added to nats",
        "first_prior.trunk",
        lambda: data + squared,
        "the right operand of + has unit θ.trunk², expected nat; missing factor: nat/θ.trunk²",
    ),
    Mistake(
        "d²/σ² added to nats without its nat",
        "first_prior.trunk",
        lambda: data + 0.5 * squared / sigma**2,
        "the right operand of + has unit 1, expected nat; missing factor: nat",
    ),
    Mistake(
        "a prior for the head around a bare anchor",
        "first_prior.intended_head",
        lambda: head_shift_D - jnp.zeros(1),
        "the right operand of - (a bare number) has unit 1, expected θ.head; missing factor: θ.head",
    ),
    Mistake(
        "a squared distance tagged as a log density",
        "second_prior.instrumental_head",
        lambda: density(-head_squared, "θ2.instrumental_head"),
        "log density has unit θ.head², expected nat; missing factor: nat/θ.head²",
    ),
    # --- logarithms: determinants, constants and reference measures
    Mistake(
        "the log of the determinant of a curvature",
        "log_partition",
        lambda: log(curvature_D[0] * curvature_D[1]),
        "the argument of log (without ref=) has unit nat²/θ.trunk⁴, expected 1; missing factor: θ.trunk⁴/nat²",
    ),
    Mistake(
        "the logs of the eigenvalues of a curvature",
        "log_partition",
        lambda: total(log(curvature_D)),
        "the argument of log (without ref=) has unit nat/θ.trunk², expected 1; missing factor: θ.trunk²/nat",
    ),
    Mistake(
        "the log of a curvature times σ² of the other group",
        "log_partition",
        lambda: total(log(curvature_D * head_sigma**2 / one_nat)),
        "the argument of log (without ref=) has unit θ.head²/θ.trunk², expected 1; missing factor: θ.trunk²/θ.head²",
    ),
    Mistake(
        "the log of a curvature times σ for σ²",
        "log_partition",
        lambda: total(log(curvature_D * sigma / one_nat)),
        "the argument of log (without ref=) has unit 1/θ.trunk, expected 1; missing factor: θ.trunk",
    ),
    Mistake(
        "the log of a curvature times σ², not divided by its nat",
        "log_partition",
        lambda: total(log(curvature_D * sigma**2)),
        "the argument of log (without ref=) has unit nat, expected 1; missing factor: 1/nat",
    ),
    Mistake(
        "the log of 1 + curvature · σ², not divided by its nat",
        "log_partition",
        lambda: total(log(1.0 + curvature_D * sigma**2)),
        "the left operand of + (a bare number) has unit 1, expected nat; missing factor: nat",
    ),
    Mistake(
        "the curvature of a mean per example added to a precision",
        "log_partition",
        lambda: curvature_D / labels + precision,
        "the right operand of + has unit nat/θ.trunk², expected nat/example/θ.trunk²; missing factor: 1/example",
    ),
    Mistake(
        "squared gradients added to a precision as they are",
        "log_partition",
        lambda: precision + gradient_D**2,
        "the right operand of + has unit nat²/θ.trunk², expected nat/θ.trunk²; missing factor: 1/nat",
    ),
    Mistake(
        "a Fisher information per example without the number of examples",
        "log_partition",
        lambda: precision + mean(row_gradient_BxD**2 / one_nat, per=example, axis=0),
        "the right operand of + has unit nat/example/θ.trunk², expected nat/θ.trunk²; missing factor: example",
    ),
    Mistake(
        "the log of σ without a reference",
        "constants.trunk",
        lambda: log(sigma),
        "the argument of log (without ref=) has unit θ.trunk, expected 1; missing factor: 1/θ.trunk",
    ),
    Mistake(
        "(D/2) log 2πσ² without a reference",
        "constants.trunk",
        lambda: -0.5 * 2 * log(2 * math.pi * sigma**2),
        "the argument of log (without ref=) has unit θ.trunk², expected 1; missing factor: 1/θ.trunk²",
    ),
    Mistake(
        "(D/2) log 2πσ² with u for u² as its reference",
        "constants.trunk",
        lambda: -0.5 * 2 * log(2 * math.pi * sigma**2, ref=TRUNK),
        "q/ref in log has unit θ.trunk, expected 1; missing factor: 1/θ.trunk",
    ),
    Mistake(
        "the log of σ of the head with the trunk's reference",
        "constants.intended_head",
        lambda: log(head_sigma, ref=TRUNK),
        "q/ref in log has unit θ.head/θ.trunk, expected 1; missing factor: θ.trunk/θ.head",
    ),
    Mistake(
        "the constant of a Gaussian as a bare number",
        "constants.trunk",
        lambda: prior - math.log(2 * math.pi * 0.5**2),
        "the right operand of - (a bare number) has unit 1, expected nat; missing factor: nat",
    ),
    Mistake(
        "the log of a density per θ",
        "second_prior.trunk",
        lambda: log(exp(-0.5 * precision * length**2) / ((2 * math.pi) ** 0.5 * sigma)),
        "the argument of log (without ref=) has unit 1/θ.trunk, expected 1; missing factor: θ.trunk",
    ),
    Mistake(
        "the log of an integral over θ without a reference measure",
        "constants.trunk",
        lambda: log(total(exp(-0.5 * precision * shift_D**2)) * Quantity(0.1, TRUNK) ** 3),
        "the argument of log (without ref=) has unit θ.trunk³, expected 1; missing factor: 1/θ.trunk³",
    ),
    # --- exponentials
    Mistake(
        "the exponential of a displacement",
        "second_prior.trunk",
        lambda: exp(-length),
        "the argument of exp has unit θ.trunk, expected nat; missing factor: nat/θ.trunk",
    ),
    Mistake(
        "the exponential of a squared distance",
        "second_prior.trunk",
        lambda: exp(-0.5 * squared),
        "the argument of exp has unit θ.trunk², expected nat; missing factor: nat/θ.trunk²",
    ),
    Mistake(
        "a likelihood from the mean per example",
        "data.intended_head",
        lambda: exp(-label_rate),
        "the argument of exp has unit nat/example, expected nat; missing factor: example",
    ),
    Mistake(
        "a soft minimum of distances",
        "first_prior.trunk",
        lambda: -logsumexp(-shift_D),
        "a term of logsumexp has unit θ.trunk, expected nat; missing factor: nat/θ.trunk",
    ),
    Mistake(
        "a mixture of means per example",
        "data.instrumental_head",
        lambda: logsumexp([-label_rate, -divergence_rate]),
        "a term of logsumexp has unit nat/example, expected nat; missing factor: example",
    ),
    # --- gradients and optimizers
    Mistake(
        "gradient descent at a rate of Adam's",
        "optimizer",
        lambda: assert_unit(adam_rate * gradient_D, TRUNK, "the step of gradient descent"),
        "the step of gradient descent has unit nat, expected θ.trunk; missing factor: θ.trunk/nat",
    ),
    Mistake(
        "Adam at a rate of gradient descent's",
        "optimizer",
        lambda: assert_unit(descent_rate * gradient_D / (gradient_D**2) ** HALF, TRUNK, "Adam's step"),
        "Adam's step has unit θ.trunk²/nat, expected θ.trunk; missing factor: nat/θ.trunk",
    ),
    Mistake(
        "Adam dividing by the square of the gradient without its root",
        "optimizer",
        lambda: shift_D - adam_rate * gradient_D / gradient_D**2,
        "the right operand of - has unit θ.trunk²/nat, expected θ.trunk; missing factor: nat/θ.trunk",
    ),
    Mistake(
        "Adam's ε as a bare number",
        "optimizer",
        lambda: gradient_D / ((gradient_D**2) ** HALF + 1e-8),
        "the right operand of + (a bare number) has unit 1, expected nat/θ.trunk; missing factor: nat/θ.trunk",
    ),
    Mistake(
        "a gradient per example with a rate for the whole set",
        "optimizer",
        lambda: shift_D - descent_rate * mean(row_gradient_BxD, per=example, axis=0),
        "the right operand of - has unit θ.trunk/example, expected θ.trunk; missing factor: example",
    ),
    Mistake(
        "weight decay of bare weights added to the loss",
        "optimizer",
        lambda: data + 0.01 * jnp.sum(normal_D**2),
        "the right operand of + (a bare number) has unit 1, expected nat; missing factor: nat",
    ),
    Mistake(
        "weight decay of labelled weights with a bare coefficient",
        "optimizer",
        lambda: gradient_D + 0.01 * shift_D,
        "the right operand of + has unit θ.trunk, expected nat/θ.trunk; missing factor: nat/θ.trunk²",
    ),
    Mistake(
        "a gradient clipped at a length",
        "optimizer",
        lambda: total(gradient_D**2) ** HALF > length,
        "the right operand of > has unit θ.trunk, expected nat/θ.trunk; missing factor: nat/θ.trunk²",
    ),
    Mistake(
        "a gradient clipped at a bare number",
        "optimizer",
        lambda: total(gradient_D**2) ** HALF > 1.0,
        "the right operand of > (a bare number) has unit 1, expected nat/θ.trunk; missing factor: nat/θ.trunk",
    ),
    Mistake(
        "one gradient norm over trunk and head",
        "optimizer",
        lambda: total(gradient_D**2) + total(head_gradient_D**2),
        "the right operand of + has unit nat²/θ.head², expected nat²/θ.trunk²; missing factor: θ.head²/θ.trunk²",
    ),
    Mistake(
        "the gradient of a mean per example passed to the optimizer",
        "optimizer",
        lambda: stripped_gradient(lambda x_D: energy(Quantity(x_D, TRUNK)) / labels, "trunk", TRUNK),
        "gradient of trunk has unit nat/example/θ.trunk, expected nat/θ.trunk; missing factor: example",
    ),
    Mistake(
        "the gradient of the disagreement passed to the optimizer without λ",
        "optimizer",
        lambda: stripped_gradient(lambda x_D: total(Quantity(x_D**2, disagreement)), "head", HEAD),
        "gradient of head has unit disagreement/θ.head, expected nat/θ.head; missing factor: nat/disagreement",
    ),
    Mistake(
        "the gradient of the head labelled as the trunk's",
        "optimizer",
        lambda: strip_grad({"trunk": head_gradient_D}, {"trunk": TRUNK}),
        "gradient of trunk has unit nat/θ.head, expected nat/θ.trunk; missing factor: θ.head/θ.trunk",
    ),
    Mistake(
        "jax.grad of a bare loss with respect to a Quantity",
        "optimizer",
        lambda: strip_grad({"trunk": jax.grad(lambda x: energy(x).to(nat))(shift_D)}, {"trunk": TRUNK}),
        "gradient of trunk has unit θ.trunk, expected nat/θ.trunk; missing factor: nat/θ.trunk²",
    ),
    # --- samplers
    Mistake(
        "Langevin noise of the root of the step, without the root of a nat",
        "log_partition",
        lambda: shift_D + descent_rate * gradient_D + (2 * descent_rate) ** HALF * normal_D,
        "the right operand of + has unit θ.trunk/nat^(1/2), expected θ.trunk; missing factor: nat^(1/2)",
    ),
    Mistake(
        "Langevin noise of the step, not of its root",
        "log_partition",
        lambda: shift_D + descent_rate * gradient_D + 2 * descent_rate * normal_D,
        "the right operand of + has unit θ.trunk²/nat, expected θ.trunk; missing factor: nat/θ.trunk",
    ),
    Mistake(
        "Langevin noise as bare numbers",
        "log_partition",
        lambda: shift_D + descent_rate * gradient_D + 0.1 * normal_D,
        "the right operand of + (a bare number) has unit 1, expected θ.trunk; missing factor: θ.trunk",
    ),
    Mistake(
        "a kinetic energy without a mass",
        "log_partition",
        lambda: 0.5 * total(momentum_D**2) - prior,
        "the left operand of - has unit nat²/θ.trunk², expected nat; missing factor: θ.trunk²/nat",
    ),
    Mistake(
        "a leapfrog step of the position without a mass",
        "log_partition",
        lambda: shift_D + 0.1 * momentum_D,
        "the right operand of + has unit nat/θ.trunk, expected θ.trunk; missing factor: θ.trunk²/nat",
    ),
    Mistake(
        "a leapfrog step of the momentum by the position, not by the gradient",
        "log_partition",
        lambda: momentum_D - 0.1 * shift_D,
        "the right operand of - has unit θ.trunk, expected nat/θ.trunk; missing factor: nat/θ.trunk²",
    ),
]

BARE = (
    "a Quantity is not a bare array or number; leave by .to(unit), compute by the functions of honest.units, "
    "and differentiate by honest.units.value_and_grad"
)
MEASURE = (
    "depends on its reference measure; subtract a density of the same variables (a log ratio), or leave by .to(nat)"
)
MEASURES = "depends on their reference measures; use densities of the same variables"
READABLE = (
    "expected products and quotients of nat, bit, disagreement, token, example, θ.<kind> or 1, such as 'nat/θ.trunk²'"
)
A_NUMBER_AND_A_UNIT = "expected a number and a unit, such as '0.02 θ.trunk' or '0.5 1'"

OTHERS = [
    # --- log densities
    Mistake(
        "the same prior added twice",
        "log_posterior",
        lambda: first_prior + second_prior + first_prior,
        "a sum of log densities has {θ1.trunk} twice; add each once, or subtract for a log ratio",
    ),
    Mistake(
        "a prior tagged with a variable that it has",
        "first_prior.trunk",
        lambda: density(first_prior, "θ1.trunk"),
        "a sum of log densities has {θ1.trunk} twice; add each once, or subtract for a log ratio",
    ),
    Mistake(
        "a prior tagged with one variable for both heads",
        "first_prior.intended_head",
        lambda: density(prior, "θ1.head", "θ1.head"),
        "a density needs variables, each named once, not ('θ1.head', 'θ1.head')",
    ),
    Mistake(
        "a prior left out of the posterior",
        "log_posterior",
        lambda: assert_log_density(first_prior - data, {"θ1.trunk", "θ2.trunk"}),
        "log density is over {θ1.trunk}, expected {θ1.trunk, θ2.trunk}; tag terms by density",
    ),
    Mistake(
        "a prior added without its tag",
        "log_posterior",
        lambda: assert_log_density(prior - data, {"θ2.trunk"}),
        "log density is over {}, expected {θ2.trunk}; tag terms by density",
    ),
    Mistake(
        "a posterior whose rows were not summed",
        "log_posterior",
        lambda: assert_log_density(-label_nll_B),
        "log density has shape (2,), expected a scalar; sum it by honest.units.total",
    ),
    Mistake(
        "densities of different variables compared",
        "log_partition",
        lambda: first_prior < second_prior,
        "a comparison of log densities over {θ1.trunk} and {θ2.trunk} " + MEASURES,
    ),
    Mistake(
        "a density compared with a number of nats",
        "log_partition",
        lambda: first_prior > Quantity(-100.0, nat),
        "a comparison of log densities over {θ1.trunk} and {} " + MEASURES,
    ),
    Mistake(
        "a log ratio of densities of different variables",
        "log_partition",
        lambda: first_prior - second_prior,
        "a difference of log densities over {θ1.trunk} and {θ2.trunk} " + MEASURES,
    ),
    Mistake(
        "a mixture of densities of different variables",
        "second_prior.trunk",
        lambda: logsumexp([first_prior, second_prior]),
        "a logsumexp of log densities over {θ1.trunk} and {θ2.trunk} " + MEASURES,
    ),
    Mistake(
        "a mixture of a density and a likelihood",
        "second_prior.trunk",
        lambda: logsumexp([second_prior, -data]),
        "a logsumexp of log densities over {θ2.trunk} and {} " + MEASURES,
    ),
    Mistake(
        "a log density exponentiated",
        "log_partition",
        lambda: exp(first_prior + second_prior),
        "the exponential of a log density over {θ1.trunk, θ2.trunk} " + MEASURE,
    ),
    Mistake(
        "a log density divided by a log density",
        "log_partition",
        lambda: first_prior / first_prior,
        "a product with or quotient by a log density over {θ1.trunk} " + MEASURE,
    ),
    Mistake(
        "log densities multiplied, as densities are",
        "log_posterior",
        lambda: first_prior * second_prior,
        "a product with or quotient by a log density over {θ2.trunk} " + MEASURE,
    ),
    Mistake(
        "the log of what is a log already",
        "log_posterior",
        lambda: log(first_prior / one_nat),
        "the logarithm of a log density over {θ1.trunk} " + MEASURE,
    ),
    Mistake(
        "a log density squared",
        "first_prior.trunk",
        lambda: first_prior**2,
        "a power of a log density over {θ1.trunk} " + MEASURE,
    ),
    # --- bare arrays, and functions that are not of honest.units
    Mistake(
        "jax.grad of a Quantity",
        "optimizer",
        lambda: jax.grad(lambda x_D: energy(Quantity(x_D, TRUNK)))(jnp.ones(2)),
        BARE,
    ),
    Mistake("jnp.exp of nats", "log_partition", lambda: jnp.exp(-data), BARE),
    Mistake("jnp.sum of nats", "data.intended_head", lambda: jnp.sum(label_nll_B), BARE),
    Mistake("jnp.linalg.slogdet of a curvature", "laplace", lambda: jnp.linalg.slogdet(curvature_D * jnp.eye(2)), BARE),
    Mistake("jnp.where between nats", "data.trunk", lambda: jnp.where(mask_BxL, world_nll_BxL, 0.0), BARE),
    Mistake("a hinge by jnp.maximum", "consistency", lambda: jnp.maximum(violation - tolerance, 0.0), BARE),
    Mistake("two to the power of bits", "second_prior.trunk", lambda: 2.0**-code_length, BARE),
    Mistake("float of a loss", "ledger", lambda: float(data), BARE),
    Mistake("numpy.asarray of a loss", "evaluation", lambda: np.asarray(data), BARE),
    Mistake(
        "a bare log Z",
        "log_posterior",
        lambda: assert_unit(-12.5, nat, "log Z"),
        "log Z is a bare float, expected nat; wrap it in Quantity(array, unit)",
    ),
    Mistake(
        "a bare posterior",
        "log_posterior",
        lambda: assert_log_density((first_prior - data).to(nat).item()),
        "log density is a bare float, expected nat; wrap it in Quantity(array, unit)",
    ),
    Mistake(
        "bare gradients passed to the optimizer",
        "optimizer",
        lambda: strip_grad({"trunk": 0.5}, {"trunk": TRUNK}),
        "gradient of trunk is a bare float, expected nat/θ.trunk; wrap it in Quantity(array, unit)",
    ),
    Mistake(
        "the gradient of a group forgotten",
        "optimizer",
        lambda: strip_grad({"trunk": gradient_D}, {"trunk": TRUNK, "head": HEAD}),
        "got groups {trunk}, but units for {head, trunk}; give each group its unit",
    ),
    Mistake(
        "parameters that are Quantities",
        "optimizer",
        lambda: value_and_grad(lambda params: energy(params["trunk"]), {"trunk": TRUNK})({"trunk": shift_D}),
        "params of value_and_grad hold a Quantity; pass bare arrays and give group_units",
    ),
    Mistake(
        "a mean relabelled in place of multiplied by its count",
        "data.intended_head",
        lambda: Quantity(label_rate, nat),
        "a Quantity holds one bare array or number, not a Quantity",
    ),
    Mistake(
        "d²/σ² multiplied by the unit, not by one of it",
        "first_prior.trunk",
        lambda: squared / sigma**2 * nat,
        "nat is a unit, not a value; write Quantity(1.0, unit) for one of it",
    ),
    Mistake(
        "the root of a variance by a float",
        "second_prior.trunk",
        lambda: (sigma**2) ** 0.5,  # type: ignore[operator]
        "0.5 is no power of a unit (θ.trunk²); use an int or a Fraction, not a float",
    ),
    # --- config strings
    Mistake(
        "nats for nat in the config's λ",
        "consistency",
        lambda: parse_quantity("10 nats/disagreement"),
        "cannot read 'nats/disagreement' in the unit 'nats/disagreement'; " + READABLE,
    ),
    Mistake(
        "examples for example in the config's ε",
        "multiplier",
        lambda: parse_quantity("0.001 disagreement/examples"),
        "cannot read 'examples' in the unit 'disagreement/examples'; " + READABLE,
    ),
    Mistake(
        "the group without its θ in the config's σ",
        "first_prior.trunk",
        lambda: parse_quantity("0.5 trunk"),
        "cannot read 'trunk' in the unit 'trunk'; " + READABLE,
    ),
    Mistake(
        "a bare number for the config's ε",
        "multiplier",
        lambda: parse_quantity("0.001"),
        "cannot read '0.001'; " + A_NUMBER_AND_A_UNIT,
    ),
    Mistake(
        "a decimal comma in the config's σ",
        "second_prior.trunk",
        lambda: parse_quantity("0,02 θ.trunk"),
        "cannot read '0,02 θ.trunk'; " + A_NUMBER_AND_A_UNIT,
    ),
]


def refusal(mistake: Mistake) -> str:
    with pytest.raises(UnitError) as error, term(mistake.term):
        mistake.expression()
    return str(error.value)


@pytest.mark.parametrize("mistake", MISMATCHED, ids=lambda mistake: mistake.what)
def test_a_mistake_is_refused_with_term_units_missing_factor_and_advice(mistake):
    missing = mistake.message.rpartition("missing factor: ")[2]
    advice = "; multiply by a quantity in that unit"
    if re.fullmatch(r"θ\.\w+[⁰-⁹²³¹]*/θ\.\w+[⁰-⁹²³¹]*", missing):
        advice = "; lengths of different groups do not convert: use a scale of the same group"
    assert refusal(mistake) == f"in term '{mistake.term}': {mistake.message}{advice}"


@pytest.mark.parametrize("mistake", MISMATCHED, ids=lambda mistake: mistake.what)
def test_the_missing_factor_in_the_table_makes_up_the_difference(mistake):
    found = re.search(r" has unit (\S+), expected (\S+); missing factor: (\S+)$", mistake.message)
    assert found is not None
    has, expected, missing = map(parse_unit, found.groups())
    assert (missing * has).dimension == expected.dimension
    assert missing != one


@pytest.mark.parametrize("mistake", OTHERS, ids=lambda mistake: mistake.what)
def test_a_mistake_that_no_factor_mends_is_refused_with_term_and_advice(mistake):
    assert refusal(mistake) == f"in term '{mistake.term}': {mistake.message}"


def test_there_are_many_mistakes_and_no_two_are_the_same():
    assert len(MISMATCHED) >= 45
    every: list[Any] = [*MISMATCHED, *OTHERS]
    assert len({mistake.what for mistake in every}) == len(every)
    codes = [mistake.expression.__code__ for mistake in every]
    assert len({(code.co_code, code.co_consts, code.co_names) for code in codes}) == len(every)
    assert len({(mistake.term, mistake.message) for mistake in MISMATCHED}) == len(MISMATCHED)


RIGHT = [
    ("whole-set nats from a mean per example", lambda: label_rate * labels + prior, nat, 200 - 50),
    ("whole-set nats from a mean per token", lambda: world_rate * world_tokens + prior, nat, 1600 - 50),
    ("loss and prior both per example", lambda: label_rate - prior / labels, nat / example, 1 + 50 / 200),
    ("λ N_c C̄", lambda: prior - multiplier * population * violation, nat, -50 - 10 * 64 * 0.5),
    ("λ N_c (C̄ − ε)", lambda: data + multiplier * population * (violation - tolerance), nat, 200 + 640 * 0.499),
    ("d² over σ² times a nat", lambda: data + 0.5 * precision * squared, nat, 200 + 50),
    (
        "the trunk's and the head's squared distances, each over its variance",
        lambda: squared / sigma**2 + head_squared / head_sigma**2,
        one,
        100 + 0.25,
    ),
    ("log det (H σ²)/(1 nat)", lambda: total(log(curvature_D * sigma**2 / one_nat)), nat, math.log(1 * 2)),
    ("log det (1 + (H σ²)/(1 nat))", lambda: total(log(1.0 + curvature_D * sigma**2 / one_nat)), nat, math.log(2 * 3)),
    ("log σ relative to u", lambda: log(sigma, ref=TRUNK), nat, math.log(0.5)),
    ("(D/2) log 2πσ²/u²", lambda: -log(2 * math.pi * sigma**2, ref=TRUNK**2), nat, -math.log(math.pi / 2)),
    ("a mixing weight of 3 bits", lambda: prior - code_length, nat, -50 - 3 * math.log(2)),
    ("the probability of a code of 3 bits", lambda: exp(-code_length), one, 0.125),
    ("a perplexity", lambda: exp(world_rate * Quantity(1.0, token)), one, math.e),
    ("gradient descent", lambda: (shift_D - descent_rate * gradient_D)[0], TRUNK, 3 - 0.001),
    ("Adam", lambda: (shift_D - adam_rate * gradient_D / (gradient_D**2) ** HALF)[0], TRUNK, 3 - 0.001),
    (
        "Langevin noise of the root of step and nat",
        lambda: (shift_D + (2 * descent_rate * one_nat) ** HALF * normal_D)[0],
        TRUNK,
        3 + 0.02**0.5,
    ),
    ("a kinetic energy with a mass", lambda: 0.5 * total(momentum_D**2 / precision) - prior, nat, 0.5 * 1.25 / 4 + 50),
    ("a leapfrog step of the position", lambda: (shift_D + 0.1 * momentum_D / precision)[0], TRUNK, 3 + 0.05 / 4),
    ("squared gradients over a nat", lambda: (precision + gradient_D**2 / one_nat)[0], nat / TRUNK**2, 4.01),
    (
        "the Fisher information of all examples",
        lambda: (precision + labels * mean(row_gradient_BxD**2 / one_nat, per=example, axis=0))[0],
        nat / TRUNK**2,
        4 + 200,
    ),
    ("a log ratio", lambda: exp(first_prior - density(prior - code_length, "θ1.trunk")), one, 8.0),
    (
        "the whole posterior",
        lambda: assert_log_density(first_prior + second_prior - data, {"θ1.trunk", "θ2.trunk"}),
        nat,
        -50 - 50 - 200,
    ),
]


@pytest.mark.parametrize(("expression", "unit", "value"), [row[1:] for row in RIGHT], ids=[row[0] for row in RIGHT])
def test_what_the_mistakes_were_meant_to_be_is_accepted(expression, unit, value):
    result = expression()
    assert result.unit == unit
    assert float(result.to(unit)) == pytest.approx(value, rel=1e-5)
