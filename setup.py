"""What the package vqm_jax holds; its metadata, requirements and commands are in pyproject.toml."""

import pathlib

import setuptools

ROOT = pathlib.Path(__file__).parent
DATASETS = sorted(path.parent.name for path in (ROOT / 'datasets').glob('*/*_dataset_builder.py'))

setuptools.setup(
  # experiments/ and datasets/ are installed inside of the package: on top, they would shadow other projects' packages.
  packages=[
    *setuptools.find_packages(include=['vqm_jax', 'vqm_jax.*']),
    'vqm_jax.experiments',
    *(f'vqm_jax.builders.{name}' for name in DATASETS),
  ],
  package_dir={'vqm_jax.experiments': 'experiments', 'vqm_jax.builders': 'datasets'},
  package_data={
    'vqm_jax': ['py.typed', 'weights/index.json', 'weights/*.safetensors'],
    'vqm_jax.report.page': ['assets/*'],  # HTML, CSS and JavaScript
    'vqm_jax.report.study': ['assets/*'],
    # What TFDS reads beside a builder.
    **{f'vqm_jax.builders.{name}': ['README.md', 'TAGS.txt', 'CITATIONS.bib', 'checksums.tsv'] for name in DATASETS},
  },
)
