"""Method × task × seed: what `honest benchmark` runs, and the one table that it writes."""
