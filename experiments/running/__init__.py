"""Trainings, evaluations, table rows and figures as tasks: here, in processes, or on a cluster."""
