import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0])
def test_the_python_of_the_readme_runs(block):
    names = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["judgement"].loss.shape == (4,)
    assert names["scorer"].weight.grad.to_dense().abs().sum() > 0
