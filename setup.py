"""Packaging of alp_repro; exact tested versions are in constraints.txt."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="alp_repro",
    version="0.1.0",
    description='Reproduces "Logit Pairing Methods Can Fool Gradient-Based Attacks" in TensorFlow',
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["alp_repro", "alp_repro.*", "experiments"]),
    package_data={
        "alp_repro": [
            "py.typed",
            "reporting/*.mplstyle",
            "reporting/reference/*.csv",
            "reporting/reference/*.txt",
            "auditing/templates/*.j2",
            "reporting/templates/*.css",
            "reporting/templates/*.j2",
        ],
    },
    install_requires=[
        "absl-py",
        "cleverhans>=4",
        "filelock",
        "h5py",
        "importlib_resources",  # tensorflow-datasets imports it and does not declare it
        "jinja2",
        "matplotlib",
        "numpy",
        "pydantic>=2.12",
        "tensorflow>=2.16",
        "tensorflow-datasets>=4.9",
        "tqdm",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]"],
        "dev": ["mypy", "pytest", "pytest-timeout", "ruff"],
        "tensorboard": ["tensorboard"],
        "benchmarks": ["adversarial-robustness-toolbox", "foolbox", "torch", "torchattacks"],
    },
    entry_points={
        "console_scripts": [
            "alp-train=experiments.train:cli",
            "alp-evaluate=experiments.evaluate:cli",
            "alp-table=experiments.table:cli",
            "alp-figures=experiments.figures:cli",
            "alp-report=experiments.report:cli",
            "alp-prepare-data=experiments.prepare_data:cli",
            "alp-import-checkpoint=experiments.import_checkpoint:cli",
        ],
    },
)
