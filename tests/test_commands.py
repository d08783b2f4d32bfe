"""The commands of an installed package."""

import importlib
import pathlib
import sys
import tomllib

import pytest

from vqm_jax import commands

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']


def test_commands_exist_and_start_programs():
  for name, target in PROJECT['scripts'].items():
    module, function = target.split(':')
    assert module == 'vqm_jax.commands' and name.startswith('vqm-') and callable(getattr(commands, function))
  for name in commands.REPORTS:
    assert importlib.util.find_spec(f'vqm_jax.report.{name}')


@pytest.mark.parametrize(
  ('argv', 'code', 'said'),
  [
    ([], 2, 'no command; choose one of tables, figures'),
    (['table'], 2, "unknown command 'table'; choose one of tables"),
    (['--help'], 0, 'submission'),
  ],
)
def test_report_lists_its_commands(monkeypatch, capsys, argv, code, said):
  monkeypatch.setattr(sys, 'argv', ['vqm-report', *argv])
  with pytest.raises(SystemExit) as ended:
    commands.report()
  out, err = capsys.readouterr()
  assert ended.value.code == code and said in (err if code else out) and not (out if code else err)
