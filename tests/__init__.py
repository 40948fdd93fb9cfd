"""The tests: they mirror alp_repro/ and experiments/."""
