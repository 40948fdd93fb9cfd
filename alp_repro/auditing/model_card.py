"""An audit as a model card: the YAML that model hubs read, and a section that people read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from alp_repro import files
from alp_repro.errors import InputError

if TYPE_CHECKING:
    from alp_repro.auditing.result import Audit

# Marks our cards, so that no other README is replaced by one.
MARK = "<!-- Model card written by alp_repro's audit. -->"


def to_model_card(audit: Audit) -> str:
    """Return the card as Markdown that begins with its YAML.

    The YAML is a `model-index` with one result: clean accuracy and, where it was measured, the
    robust one with its interval, attacks, ε and indicators. Shares are in [0, 1] there, in percent
    in the text.
    """
    import yaml  # takes longer than the rest of an audit's texts

    index = {"model-index": [{"name": _model(audit), "results": [_result(audit)]}]}
    head = yaml.safe_dump(index, sort_keys=False, allow_unicode=True, width=100)
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in _facts(audit).items()]
    return "\n".join(
        [
            f"---\n{head}---\n{MARK}\n",
            "## Adversarial robustness\n",
            f"{' '.join(audit.verdict.split())}\n",
            "| | |\n| --- | --- |",
            *lines,
            "",
        ]
    )


def check_replaceable(path: Path) -> None:
    """Check that a card may be written to a path: nothing is there, or a card of ours.

    Raises:
      InputError: something else lies there.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: expected the name of a file for the model card")
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        raise InputError(
            f"{path} was not written by an audit and is left as it is: name another file for the "
            "model card, and copy from it what you need"
        )


def write_model_card(path: Path, audit: Audit) -> None:
    """Write the card to a file, atomically.

    Raises:
      InputError: see `check_replaceable`; or the file cannot be written.
    """
    check_replaceable(path)
    files.write_text(path, to_model_card(audit))


def _model(audit: Audit) -> str:
    return str(audit.settings.get("model", "model"))


def _data(audit: Audit) -> str:
    """Return the name of the data; a path's last part, since a card is published."""
    return Path(str(audit.settings.get("data") or "images of one's own")).name


def _eps(audit: Audit) -> float:
    """ε on the 0-255 scale, less what float arithmetic added."""
    return round(audit.eps * 255, 6)


def _result(audit: Audit) -> dict[str, Any]:
    metrics: list[dict[str, Any]] = [
        {"type": "accuracy", "name": "Clean accuracy", "value": audit.clean_accuracy}
    ]
    worst = audit.worst_accuracy
    if worst is not None:
        states = ("raised", "clear", "not judged")
        of_state = {s: [one.key for one in audit.indicators if one.state == s] for s in states}
        arguments = {
            "norm": "Linf",
            "eps": audit.eps,
            "eps_255": _eps(audit),
            "images": len(audit.labels),
            "interval_95": list(audit.interval(worst)),
            "accuracy_under_audited_evaluation": audit.default_accuracy,
            "attacks": [str(attack.attack) for attack in audit.attacks],
            "indicators": {state.replace(" ", "_"): keys for state, keys in of_state.items()},
        }
        metrics.append(
            {
                "type": "robust_accuracy",
                "name": f"Robust accuracy, at most (L∞, ε = {_eps(audit):g}/255)",
                "value": worst,
                "args": arguments,
            }
        )
    return {
        "task": {"type": "image-classification", "name": "Adversarial robustness"},
        "dataset": {"name": _data(audit), "type": _data(audit)},
        "metrics": metrics,
    }


def _facts(audit: Audit) -> dict[str, str]:
    """Return the lines of the table, in order."""
    facts = {
        "Threat model": f"L∞, ε = {_eps(audit):g} of 255",
        "Images": f"{len(audit.labels)} of {_data(audit)}",
        "Clean accuracy": _with_interval(audit, audit.clean_accuracy),
    }
    if audit.attacks and audit.default_accuracy is not None:
        facts |= {
            "Evaluation under audit": audit.settings.get("attack", str(audit.attacks[0].attack)),
            "Accuracy under it": _with_interval(audit, audit.default_accuracy),
        }
    worst = audit.worst_accuracy
    if worst is None:
        facts["Robust accuracy"] = f"not measured: {audit.not_measured}"
    else:
        facts["Robust accuracy, at most"] = _with_interval(audit, worst)
        facts["Attacks"] = "; ".join(attack.title for attack in audit.attacks) or "none"
    unjudged = [one.title for one in audit.indicators if one.state == "not judged"]
    facts["Indicators raised"] = "; ".join(one.title for one in audit.raised) or "none"
    facts["Indicators not judged"] = "; ".join(unjudged) or "none"
    if audit.left_out:
        facts["Left out for time"] = "; ".join(audit.left_out)
    made = audit.provenance
    facts["Made"] = f"{made.get('date', '')[:10]}, {made.get('revision', '')}".strip(", ")
    return facts


def _with_interval(audit: Audit, accuracy: float) -> str:
    low, high = audit.interval(accuracy)
    return f"{accuracy:.1%} (95% interval {low:.1%} to {high:.1%})"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
