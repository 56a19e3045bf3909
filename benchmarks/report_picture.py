"""Makes docs/report.png, the picture of a report in the README.

    ban-jax scan --out picture
    python -m benchmarks.report_picture picture/report.html

Needs Playwright and Chromium. Few colours keep the file small.
"""

import pathlib
import shutil
import sys
import tempfile

from PIL import Image

from benchmarks import _results

PICTURE = _results.ROOT / "docs/report.png"
WIDTH, HEIGHT = 1100, 1000
COLOURS = 256


def take(page: pathlib.Path, picture: pathlib.Path) -> None:
    """Writes what a browser shows of a page at first.

    Args:
      page: an HTML file.
      picture: the PNG file.

    Raises:
      ImportError: without Playwright.
    """
    from playwright import sync_api

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with tempfile.TemporaryDirectory() as folder:
        taken = pathlib.Path(folder) / "page.png"
        with sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox"]
            )
            opened = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            opened.goto(page.resolve().as_uri())
            opened.screenshot(path=str(taken))
            browser.close()
        with Image.open(taken) as image:
            image.convert("RGB").quantize(COLOURS).save(picture, optimize=True)


if __name__ == "__main__":
    take(pathlib.Path(sys.argv[1]), PICTURE)
