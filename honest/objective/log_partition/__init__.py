"""The log-partition integral Z(θ1) = E_{θ2 ~ N(c, Σ2)}[exp(−λ N_c C̄(θ2))]: how it is estimated, bounded and followed.

ladder.py         `estimate`: a method by name, or the ladder that chooses
result.py         `LogPartition`: value, bounds, and what was tried
problem.py        the integral over a flat whitened vector
gaussian.py       exact_quadratic, gram, laplace          importance.py     draws from the prior
bidirectional.py  ais, from both ends (a run's report)   persistent.py     its annealing passes
smc.py            tempered islands                        thermodynamic.py  integration over β
bounds.py         Markov bounds, Bennett's ratio          mode.py           L-BFGS
moves.py, volume.py                 what training's phases use
"""

from honest.objective.log_partition.ladder import METHODS, estimate
from honest.objective.log_partition.result import RELIABLE_GAP_NATS, LogPartition, Rung

__all__ = ["METHODS", "RELIABLE_GAP_NATS", "LogPartition", "Rung", "estimate"]
