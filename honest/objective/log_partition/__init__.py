"""The log-partition integral Z(θ1) = E_{θ2 ~ N(c, Σ2)}[exp(−λ N_c C̄(θ2))]: moves, Gauss–Newton volume, AIS bounds."""
