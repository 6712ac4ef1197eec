"""Worlds with exact answers, and ways to spend bits on them.

world.py         the finite world of a YAML file: slots (the trunk), readers (the heads), labels
factors.py       the factors of its joint, in bits
enumeration.py   the posterior over pairs of readers, exactly; what every solver returns
rejection.py, tempered.py, metropolis.py, integer_program.py    the same by sampling, and by the most probable state
solvers.py       these by name
"""
