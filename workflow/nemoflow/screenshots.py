"""Take the pictures of a report that the README shows: `python -m nemoflow.screenshots`."""

from argparse import ArgumentParser
from pathlib import Path

from nemoflow.chromium import browser
from nemoflow.errors import UserError, report
from nemoflow.files import write_whole

# Name, width in CSS pixels, height, and whether it is dark: the first screen of a phone, of a
# desktop, and of a desktop in the dark.
PICTURES = (
    ("phone", 390, 1150, False),
    ("desktop", 1280, 1640, False),
    ("dark", 1280, 1640, True),
)


def take(page: Path, folder: Path) -> list[Path]:
    """Write the pictures of a page into a folder; their paths.

    Raises:
        UserError: there is no such page, or no Chromium.
    """
    if not page.is_file():
        raise UserError(f"{page}: there is no such page; ask Snakemake for it")
    paths = []
    with browser() as chromium:
        for name, width, height, dark in PICTURES:
            opened = chromium.open(page, width, dark)
            paths.append(folder / f"report-{name}.png")
            write_whole(paths[-1], opened.picture(height=height))
            opened.close()
    return paths


def main() -> None:
    """Take them, as the command line says."""
    parser = ArgumentParser(prog="python -m nemoflow.screenshots", description=__doc__)
    parser.add_argument("page", type=Path, help="results/RUN/report.html")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    given = parser.parse_args()
    for path in take(given.page, given.folder):
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    report(main)
