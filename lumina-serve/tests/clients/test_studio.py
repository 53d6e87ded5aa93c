"""The studio in Chromium, without a window, against the server. Screenshots are kept in the folder LUMINA_SHOTS."""

import base64
import json
import os
import pathlib
import shutil
import threading
import unittest
import urllib.request

try:
    from playwright.sync_api import sync_playwright
except ImportError:
    raise unittest.SkipTest("no `playwright` to be had") from None

from served import PROMPT, Served

NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
if CHROMIUM is None:
    raise unittest.SkipTest("no Chromium on this machine")

# Notes what is shown while an image is drawn: it may be drawn faster than one can look.
NOTE = """() => {
  window.seen = { rows: new Set(), images: 0 };
  new MutationObserver(changes => changes.forEach(change => {
    if (change.type === 'attributes') { if (change.target.tagName === 'IMG') seen.images += 1; return; }
    const row = /^Rows? .* of \\d+$/.exec(change.target.textContent ?? '');
    if (row) seen.rows.add(row[0]);
  })).observe(document.querySelector('#stage'),
              { subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: ['src'] });
}"""
# Buttons of sizes whose content is not inside.
OVERFLOWING = """() => [...document.querySelectorAll('.sizes label')].filter(label => {
  const box = label.getBoundingClientRect();
  return [...label.querySelectorAll('svg, small')].some(part => {
    const { top, bottom } = part.getBoundingClientRect();
    return bottom > top && (top < box.top || bottom > box.bottom);
  });
}).map(label => label.textContent)"""
DROP = """b64 => {
  const bytes = Uint8Array.from(atob(b64), c => c.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], 'x.png', { type: 'image/png' }));
  document.body.dispatchEvent(new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer }));
}"""


class Studio(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # One image after the other, so that there is something to cancel.
        cls.server = Served("--max-sequences", "1", "--max-n", "64")
        cls.shots = pathlib.Path(os.environ.get("LUMINA_SHOTS", "studio-shots"))
        cls.shots.mkdir(parents=True, exist_ok=True)
        cls.playwright = sync_playwright().start()
        cls.browser = cls.playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

    @classmethod
    def tearDownClass(cls):
        cls.browser.close()
        cls.playwright.stop()
        cls.server.stop()

    def test_wide(self):
        self.use("1280", 1280, 800)

    def test_narrow(self):
        self.use("360", 360, 780)

    def use(self, name, width, height):
        context = self.browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
        page = context.new_page()
        page.set_default_timeout(60_000)
        wrong = []
        page.on("console", lambda message: message.type in ("error", "warning") and wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        own = (self.server.url, "data:", "blob:")
        page.on("request", lambda request: request.url.startswith(own) or wrong.append("request to " + request.url))

        def shot(state):
            page.screenshot(path=self.shots / f"{name}-{state}.png", full_page=True)
            over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            self.assertLessEqual(over, 0, f"{state}: wider than the window")
            self.assertEqual(page.evaluate(OVERFLOWING), [], f"{state}: higher than its button")

        def done():
            page.wait_for_selector("#stage .about .actions, .problem")
            self.assertFalse(page.is_visible(".problem"), page.inner_text("#stage"))

        def download():
            with page.expect_download() as file:
                page.click("#stage >> text=Download")
            return pathlib.Path(file.value.path()).read_bytes()

        page.goto(self.server.url)
        page.wait_for_selector(".try")
        shot("1-empty")

        # A prompt, and rows as they come.
        page.evaluate(NOTE)
        page.fill("#prompt", PROMPT)
        page.fill("#seed", "7")
        page.click("#submit")
        done()
        seen = page.evaluate("({ rows: [...seen.rows], images: seen.images })")
        self.assertGreaterEqual(len(seen["rows"]), 2, seen)
        self.assertGreaterEqual(seen["images"], 2, seen)
        shot("2-drawn")
        drawn = download()
        ask = json.dumps({"prompt": PROMPT, "size": "256x256", "seed": 7}).encode()
        request = urllib.request.Request(self.server.url + "/v1/images/generations", ask,
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            self.assertEqual(base64.b64decode(json.load(answer)["data"][0]["b64_json"]), drawn)

        # Cancelled while others are drawn.
        before = self.server.metric("requests_cancelled_total")
        others = json.dumps({"prompt": PROMPT, "n": 24}).encode()
        request = urllib.request.Request(self.server.url + "/v1/images/generations", others,
                                         {"Content-Type": "application/json"})
        busy = threading.Thread(target=lambda: urllib.request.urlopen(request, timeout=120).read())
        busy.start()
        self.until(lambda: self.server.metric("requests_running") > 0)
        page.click("#submit")
        page.wait_for_selector("#cancel:not([hidden])")
        shot("3-waiting")
        page.click("#cancel")
        page.wait_for_selector("text=Cancelled.")
        shot("4-cancelled")
        self.until(lambda: self.server.metric("requests_cancelled_total") > before)
        busy.join()

        # An edit of what was drawn.
        page.evaluate(DROP, base64.b64encode(drawn).decode())
        page.wait_for_selector("#offer[open]")
        shot("5-dropped")
        page.click("text=Use it as input")
        page.wait_for_selector("#picked:not([hidden])")
        page.click("#tasks label:has-text('Edit')")
        page.fill("#text", "make the red circle blue")
        page.click("#submit")
        done()
        shot("6-edited")
        edited = download()
        self.assertNotEqual(edited, drawn)

        # A PNG that is dropped fills the form.
        page.click("label:has-text('Draw')")
        page.fill("#prompt", "something else")
        page.fill("#seed", "1")
        page.evaluate(DROP, base64.b64encode(drawn).decode())
        page.wait_for_selector("#offer[open]")
        page.click("text=Fill in prompt and parameters")
        self.assertEqual((page.input_value("#prompt"), page.input_value("#seed")), (PROMPT, "7"))
        page.click("#submit")
        done()
        self.assertEqual(download(), drawn)
        shot("7-again")

        self.assertEqual(wrong, [])
        context.close()

    def test_words(self):
        """The words that a model of few words does not know are named, and the request can be sent."""
        context = self.browser.new_context(viewport={"width": 390, "height": 844})
        page = context.new_page()

        def with_words(route):
            answer = route.fetch()
            models = answer.json()
            models["data"][0]["lumina"]["words"] = ["a", "background", "circle", "on", "red", "small", "white"]
            route.fulfill(response=answer, json=models)

        hint = page.locator("#words-hint")
        page.goto(self.server.url)
        page.wait_for_selector("#tasks label", state="attached")
        page.fill("#prompt", "a dragon")
        page.click("label:has-text('From image')")
        # Any word is welcome where a model states none, and tasks that it has not learnt are not offered.
        self.assertEqual(hint.inner_text().strip(), "")
        self.assertNotIn("Pose", page.inner_text("#tasks"))

        page.route("**/v1/models", with_words)
        page.goto(self.server.url)
        page.wait_for_selector("#tasks label", state="attached")
        page.fill("#prompt", "A small dragon on a sky-blue cir")
        page.wait_for_selector("#words-hint:has-text('“dragon”, “sky”, and “blue”.')")
        self.assertIn("It knows: a, background, circle, on", hint.inner_text())
        page.screenshot(path=self.shots / "390-8-words.png", full_page=True)
        page.click("#submit")
        page.wait_for_selector("#stage .about .actions")
        page.fill("#prompt", PROMPT)
        self.until(lambda: page.evaluate("document.querySelector('#words-hint').textContent.trim()") == "")
        page.click("label:has-text('From image')")
        page.click("#tasks label:has-text('Edit')")
        page.fill("#text", "a moon")
        page.wait_for_selector("#text ~ #words-hint:has-text('“moon”')")
        context.close()

    def until(self, is_so):
        for _ in range(600):
            if is_so():
                return
            threading.Event().wait(0.1)
        self.fail("it has not happened")


if __name__ == "__main__":
    unittest.main()
