"""The size of a page to explore, and how long its frames take while a pointer moves.

    size    100 queries x 8 heads x 3 modes of 25 x 38 cells, a photo of 1600 x 1066
    error   the largest error of a weight, and of a term, that the page states
    frame   from one animation frame to the next, in headless Chromium, while the
            pointer moves to another place in each; the median counts
    work    CPU time of the page's thread for such a frame, as other programs do not change it

Two photos: maps as smooth as those of trained networks, and content maps of pure noise, which are
the hardest to pack. Chromium draws on the CPU.

python tests/benchmarks/explorer.py [frames]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
sys.path[:0] = map(str, (HERE, HERE.parent, HERE.parent.parent))

from explorer_tools import dense, photo
from ratios import keep

from detr_viz.html import page

if TYPE_CHECKING:
    from playwright.sync_api import CDPSession

RATIOS = {
    "explorer, maps as trained: MB of the page": "<= 1.5",
    "explorer, maps as trained: ms from frame to frame": "<= 16",
    "explorer, maps of noise: MB of the page": "<= 1.5",
    "explorer, maps of noise: ms from frame to frame": "<= 16",
}
CHROMIUM = "/usr/bin/chromium"
# frames as fast as they come: with a screen of 60 Hz none would be shorter than 16.7 ms
ARGUMENTS = ["--no-sandbox", "--disable-frame-rate-limit", "--disable-gpu-vsync"]
FRAMES = """async (count) => {
  const marks = document.getElementById('marks');
  const box = marks.getBoundingClientRect();
  const times = [];
  let last = 0;
  for (let i = 0; i < count; i += 1) {
    marks.dispatchEvent(new PointerEvent('pointermove', {
      pointerType: 'mouse', bubbles: true,
      clientX: box.left + box.width * (0.5 + 0.45 * Math.sin(i / 7)),
      clientY: box.top + box.height * (0.5 + 0.45 * Math.cos(i / 11)) }));
    const now = await new Promise((resolve) => requestAnimationFrame(resolve));
    if (last) times.push(now - last);
    last = now;
  }
  return times;
}"""


def main() -> None:
    from playwright.sync_api import sync_playwright

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    rgb = photo(1066, 1600)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for name, noise in (("as trained", 0.1), ("of noise", 1.5)):
            title = f"explorer, maps {name}: "
            start = time.process_time()
            text = page(dense(rgb, noise=noise))
            seconds = time.process_time() - start
            path = Path(folder, "page.html")
            path.write_text(text, encoding="utf-8")
            tab = browser.new_page(viewport={"width": 1440, "height": 900})
            tab.goto(path.as_uri())
            tab.locator("#list .row").first.wait_for()
            tab.wait_for_timeout(1500)  # all arrays are unpacked
            errors = tab.evaluate("JSON.parse(document.getElementById('image-0').text).errors")
            detail = f"made in {seconds:.1f} s of CPU time"
            keep(RATIOS, title + "MB of the page", len(text.encode()) / 1e6, detail)
            print(f"  error  weight {errors['weight']:.2g}, term {errors['term']:.2g}")
            session = tab.context.new_cdp_session(tab)
            session.send("Performance.enable", {"timeDomain": "threadTicks"})
            before = _seconds(session)
            times = sorted(tab.evaluate(FRAMES, count))
            detail = f"95 % {times[int(0.95 * len(times))]:.1f} ms, {len(times)} frames"
            keep(RATIOS, title + "ms from frame to frame", statistics.median(times), detail)
            print(f"  work   {(_seconds(session) - before) / count * 1e3:.1f} ms a frame")
            tab.close()
        browser.close()


def _seconds(session: CDPSession) -> float:
    """CPU seconds of the page's thread so far."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(m["value"] for m in metrics if m["name"] == "TaskDuration")


if __name__ == "__main__":
    main()
