"""Which packages are in a wheel; the rest of the metadata is in pyproject.toml."""

from setuptools import find_packages, setup

# The binaries are `experiments` in a checkout; an installed package must not take so common a name.
# The flagfiles and MNIST travel inside the library, where `alp_repro.shipped` finds them.
MOVED = {
    "alp_repro_cli": "experiments",
    "alp_repro.packaged.flags": "flags",
    "alp_repro.packaged.mnist": "data/mnist",
}

setup(
    packages=[
        *find_packages(include=["alp_repro", "alp_repro.*"]),
        *(f"alp_repro_cli.{name}" for name in find_packages("experiments")),
        *MOVED,
    ],
    package_dir=MOVED,
)
