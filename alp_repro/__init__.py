"""Logit pairing and what strong attacks leave of it: training, attacks with restarts, evaluation.

import alp_repro
record = alp_repro.evaluate(model, images, labels, attack=alp_repro.paper_attack("mnist"))
print(record.accuracy_at(1), record.accuracy_at(100))
"""
