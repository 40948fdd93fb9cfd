"""The images of the paper's three data sets: facts, sources, preparation, loading."""

from alp_repro.data.images import Images
from alp_repro.data.specs import DATASETS, DatasetSpec, dataset_spec

__all__ = ["DATASETS", "DatasetSpec", "Images", "dataset_spec"]
