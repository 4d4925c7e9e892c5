"""The guides to a metric and a method of one's own are run as they are written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDES = Path(__file__).parents[2] / "docs" / "how-to"


@pytest.mark.parametrize("guide", ["your-metric.md", "your-method.md"])
def test_the_guide_runs_and_prints_what_it_says(guide):
    text = (GUIDES / guide).read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    printed = re.search(r"It prints\n\n```\n(.*?)\n```", text, re.DOTALL).group(1)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == printed
