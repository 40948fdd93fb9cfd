"""Packaging of alp_repro; exact tested versions are in constraints.txt."""

from pathlib import Path

from setuptools import find_packages, setup

# The binaries are `experiments` in a checkout; an installed package must not take so common a name.
# The flagfiles and MNIST travel inside the library, where `alp_repro.shipped` finds them.
MOVED = {
    "alp_repro_cli": "experiments",
    "alp_repro.packaged.flags": "flags",
    "alp_repro.packaged.mnist": "data/mnist",
}
BINARIES = [
    "train",
    "evaluate",
    "audit",
    "table",
    "figures",
    "report",
    "claims",
    "prepare_data",
    "import_checkpoint",
]

setup(
    name="alp_repro",
    version="0.2.0",
    description='Reproduces "Logit Pairing Methods Can Fool Gradient-Based Attacks" in TensorFlow',
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    classifiers=[
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    packages=[*find_packages(include=["alp_repro", "alp_repro.*"]), *MOVED],
    package_dir=MOVED,
    package_data={
        "alp_repro": [
            "py.typed",
            "reporting/*.mplstyle",
            "reporting/reference/*.csv",
            "reporting/reference/*.json",
            "reporting/reference/*.txt",
            "auditing/templates/*.j2",
            "reporting/templates/*.css",
            "reporting/templates/*.j2",
        ],
        "alp_repro.packaged.flags": ["**/*.cfg"],
        "alp_repro.packaged.mnist": ["*.gz", "ORIGIN.md"],
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
        "scipy",
        "tensorflow>=2.16",
        "tensorflow-datasets>=4.9",
        "tqdm",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]"],
        "cluster": ["ray>=2.60"],
        "dev": ["mypy", "pytest", "pytest-timeout", "pytest-xdist", "ruff"],
        "notebook": ["pandas"],
        "tensorboard": ["tensorboard"],
        "benchmarks": ["adversarial-robustness-toolbox", "foolbox", "torch", "torchattacks"],
    },
    entry_points={
        "console_scripts": [
            *(f"alp-{name.replace('_', '-')}=alp_repro_cli.{name}:cli" for name in BINARIES),
            # What a leaderboard asks for has the short name; the other is `make verify`.
            "alp-verify=alp_repro_cli.verify_adversarial:cli",
            "alp-verify-published=alp_repro_cli.verify:cli",
        ],
    },
)
