"""Draw the rule graph into the README: `make dag`."""

import re
import subprocess
import sys
from pathlib import Path

from nemoflow.files import write_whole

TARGET = "results/super3/report.html"
BLOCK = re.compile(r"(?<=<!-- rule graph: make dag -->\n).*?(?=<!-- end of rule graph -->)", re.S)


def graph() -> str:
    """The rules behind the whole super3 recipe as a Mermaid block, in the README's own colours."""
    command = [sys.executable, "-m", "snakemake", "--profile", "profiles/b200"]
    command += ["--rulegraph", "mermaid-js", "--", TARGET]
    drawn = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line for line in drawn.splitlines() if "\t" in line and "\tstyle" not in line]
    return "\n".join(["```mermaid", "flowchart BT", *sorted(lines, key=order), "```", ""])


def order(line: str) -> tuple[bool, list[int]]:
    """Rules first, then arrows, each by number."""
    return "-->" in line, [int(number) for number in re.findall(r"id(\d+)", line)]


if __name__ == "__main__":
    readme = Path("README.md")
    write_whole(readme, BLOCK.sub(lambda _: graph(), readme.read_text()))
