"""What `setup.cfg` cannot say: the files of `experiments/` are in the package as its folder `starters`."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["yeastexp*"]), "yeastexp.starters"],
    package_dir={"yeastexp.starters": "experiments"},
)
