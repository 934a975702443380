"""Names are found, resolved and corrected without loading jax."""

import ast
import pathlib
import subprocess
import sys

import pytest

from crl import names
from crl.names import catalogue, full_reference, reference_of, resolve

ROOT = pathlib.Path(__file__).parent.parent


def test_catalogue_is_what_the_files_offer():
    found = {(e.kind, e.name): e.reference for e in catalogue()}
    assert found["estimators", "fastica"] == "crl.ica.fastica:fastica"
    assert found["estimators", "then"] == "crl.combinators:then"
    assert found["dgps", "s1"] == "crl.dgp.superposition:s1"
    assert found["sources", "laplace"] == "crl.dgp.sources:laplace"
    assert found["mixings", "flat_torus"] == "crl.dgp.mixings:flat_torus"
    assert found["metrics", "mcc"] == "crl.metrics.latents:mcc"
    assert found["claims", "perturbed_ica"] == "crl.theory.perturbed_ica:perturbed_ica"
    assert not any(e.reference.startswith(("crl.bench", "crl.testing")) for e in catalogue())
    assert not any(e.name.startswith("_") for e in catalogue())


@pytest.mark.parametrize("entry", catalogue(), ids=lambda entry: entry.name)
def test_what_the_catalogue_lists_is_there_and_described(entry):
    found = resolve(entry.reference)
    assert found.__name__ == entry.name
    assert entry.summary and found.__doc__.startswith(entry.summary)
    assert entry.kind != "metrics" or hasattr(found, "best")


def test_new_file_is_listed_without_any_other_edit(tmp_path, monkeypatch):
    file = tmp_path / "crl" / "effects" / "mine.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        'def mine(n: int) -> "Estimator":\n    """Learns."""\n\n'
        "def helper(n) -> int: ...\n\ndef _mine() -> Estimator: ...\n\n"
        "def world() -> core.DGP: ...\n"
    )
    monkeypatch.setattr(names, "__file__", str(tmp_path / "crl" / "names.py"))
    assert [tuple(e) for e in catalogue.__wrapped__()] == [
        ("dgps", "world", "crl.effects.mine:world", ""),
        ("estimators", "mine", "crl.effects.mine:mine", "Learns."),
    ]


def test_names_and_references_are_read_without_jax():
    code = (
        "import sys; from crl import names\n"
        "assert names.catalogue() and names.full_reference('fastica')\n"
        "assert not {'jax', 'numpy'} & set(sys.modules), 'heavy import'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_short_name_stands_for_a_reference(monkeypatch):
    assert resolve("fastica") is resolve("crl.ica.fastica:fastica")
    assert full_reference("my_lab.tcl:tcl") == "my_lab.tcl:tcl"
    plugins = {"estimators": {"theirs": "their_lab.ica:theirs", "fastica": "their_lab:f"}}
    monkeypatch.setattr(names, "plugins", lambda kind: plugins.get(kind, {}))
    assert full_reference("theirs") == "their_lab.ica:theirs"
    owners = "several owners: write crl.ica.fastica:fastica or their_lab:f"
    with pytest.raises(ValueError, match=owners):
        full_reference("fastica")


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("fastca", "a name that crl list shows, got 'fastca': did you mean 'fastica'"),
        ("crl.check", "expected 'module:name'"),
        ("crl.check:", "expected 'module:name'"),
        ("crl.check:check_dat", "unknown name 'check_dat': did you mean 'check_data'"),
        ("no_such_lab.tcl:tcl", "no module 'no_such_lab'"),
    ],
)
def test_name_that_does_not_exist_is_corrected(name, sentence):
    with pytest.raises(ValueError, match=sentence):
        resolve(name)


def test_reference_is_the_inverse_of_resolve():
    for reference in ("crl.ica.fastica:fastica", "crl.core:Estimator"):
        assert reference_of(resolve(reference)) == reference
    for found in (lambda: None, 3, ast):
        with pytest.raises(ValueError, match="define it at the top level"):
            reference_of(found)
