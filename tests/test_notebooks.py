"""Every notebook runs as a script at its small size, and its assertions hold."""

import pathlib
import runpy

import pytest

NOTEBOOKS = pathlib.Path(__file__).parent.parent / "notebooks"
NAMES = sorted(p.stem for p in NOTEBOOKS.glob("*.py") if p.stem != "run")
SLOW = ["standardising"]  # their methods take half a minute to compile


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("FAST", "1")
    namespace = runpy.run_path(str(NOTEBOOKS / "run.py"))
    monkeypatch.setitem(namespace["main"].__globals__, "FIGURES", tmp_path)
    return namespace["main"]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in NAMES]
)
def test_notebook_runs_and_holds(name, run, tmp_path):
    assert run([name]) == 0
    assert [p.name for p in tmp_path.iterdir()] == [f"{name}_1.png"]


def test_failed_assertion_is_counted(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(run.__globals__, "HERE", tmp_path)
    (tmp_path / "false.py").write_text("assert 1 == 2")
    (tmp_path / "true.py").write_text("assert 1 == 1")
    assert run([]) == 1
    assert "failed: false" in capsys.readouterr().out
