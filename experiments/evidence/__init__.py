"""What stored results show: the claims' evidence, deviations from the paper, the figures."""
