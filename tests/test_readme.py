"""README says what is so: its estimator is the one that ``crl new-estimator`` writes."""

import pathlib
import re

import crl

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_example_is_what_new_estimator_writes():
    code, calls = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert code == (ROOT / "crl" / "bench" / "templates" / "my_ica.py").read_text()
    for name in re.findall(r"crl\.(\w+)\(", calls):
        assert name in crl.__all__


def test_commands_and_files_named_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
    for path in re.findall(
        r"\]\(([\w/.]+)\)|`((?:crl|benchmarks|notebooks|tests)/[\w/.]*)`", README
    ):
        name = path[0] or path[1]
        assert (ROOT / name).exists(), f"README names {name}"
