"""Whether two commands made the same table: python -m tests.same_results FOLDER FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from alp_repro import files


def assert_same_results(found: Path, expected: Path) -> int:
    """Compares the tables, the models' weights and what each attack has found, bit for bit.

    Args:
      found, expected: folders of a scale with Table 1.

    Returns:
      The number of attacks that were compared.
    """
    tables = [(folder / "tables/table1.csv").read_text() for folder in (found, expected)]
    assert tables[0] == tables[1]
    tables = [(folder / "tables/table1.md").read_text() for folder in (found, expected)]
    # What comes first names the scale.
    assert tables[0][tables[0].index("| Model") :] == tables[1][tables[1].index("| Model") :]
    rows = [{run.name for run in (folder / "mnist").iterdir()} for folder in (found, expected)]
    assert rows[0] == rows[1]
    count = 0
    for row in rows[0]:
        one, other = (folder / "mnist" / row for folder in (found, expected))
        weights = [files.read_json(run / "recipe.json")["weights"] for run in (one, other)]
        assert weights[0] == weights[1], row
        names = [
            {path.name for path in (run / "attacks").glob("[!.]*.npz")} for run in (one, other)
        ]
        assert names[0] == names[1] and names[0]
        for name in names[0]:
            with np.load(one / "attacks" / name) as a, np.load(other / "attacks" / name) as b:
                for array in ("clean_predictions", "first_break", "next_restart"):
                    np.testing.assert_array_equal(a[array], b[array])
        count += len(names[0])
    return count


if __name__ == "__main__":
    attacks = assert_same_results(Path(sys.argv[1]), Path(sys.argv[2]))
    print(f"the same table, weights and verdicts ({attacks} attacks): {' '.join(sys.argv[1:])}")
