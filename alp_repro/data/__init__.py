"""The images of the paper's three data sets: properties, sources, preparation, loading.

    from alp_repro.data import load_evaluation_set

    data = load_evaluation_set("mnist", num_images=200)
    data.unit_scale, data.labels

TensorFlow Datasets is imported only when the first data set is read.
"""

from alp_repro.data.images import Images, unit_scale
from alp_repro.data.load import (
    load_class_names,
    load_evaluation_set,
    load_split,
    split_sizes,
    unverified_source,
)
from alp_repro.data.specs import DATASETS, DatasetSpec, dataset_spec

__all__ = [
    "DATASETS",
    "DatasetSpec",
    "Images",
    "dataset_spec",
    "load_class_names",
    "load_evaluation_set",
    "load_split",
    "split_sizes",
    "unit_scale",
    "unverified_source",
]
