"""The README's promises that a machine can check."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


@pytest.mark.slow
def test_the_ten_lines_run(capsys):
    example = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    assert len([line for line in example.splitlines() if line]) == 10
    exec(compile(example, "README.md", "exec"), {})
    assert "head/kernel" in capsys.readouterr().out


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_every_file_that_it_names_is_there(link):
    assert (Path(__file__).resolve().parents[1] / link).exists()
