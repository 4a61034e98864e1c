"""Packages of the wheel: the folders at the repository's root are the sub-packages of `weftwork`."""

from setuptools import find_namespace_packages, setup

ROOTS = ("attention_processors", "datasets", "evaluation", "pipelines", "pretrained", "scripts", "training")
LEFT_OUT = ("pretrained.*", "scripts.demo.assets", "training.recipes*", "scripts.maintenance*", "*.__pycache__")
"""Models and scripts of pages, which are data, and what is for maintainers."""

found = find_namespace_packages(include=[*ROOTS, *(f"{root}.*" for root in ROOTS)], exclude=LEFT_OUT)
setup(
    packages=[f"weftwork.{folder}" for folder in found],
    package_dir={f"weftwork.{root}": root for root in ROOTS},
)
