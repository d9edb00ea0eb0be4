"""The page of a trace in a real browser: any text, window, colour scheme, notebook."""

from __future__ import annotations

import contextlib
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from browser import STEP, Page
from selenium.webdriver.support.ui import WebDriverWait
from tiny import load_sentence_model

import headwise as hw


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_sentence_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def trace(model):
    return model.explain("a b c zebra d")


@pytest.fixture(scope="module")
def pair(model):
    return model.explain("a b c d"), model.explain("c b p b c")


@pytest.fixture(scope="module")
def minilm_model(minilm):
    return hw.TextEncoder.from_pretrained(minilm)


def test_address_keeps_the_choice(page, trace, pair):
    page.open(trace.to_html())
    page.choose(1, "rollout", "to")
    page.tokens()[3].click()
    fragment = page.browser.current_url.partition("#")[2]
    assert fragment == "layer=1&head=rollout&direction=to&token=3"
    page.open(trace.to_html(), f"#{fragment}")
    assert page.one(".python").text == "trace.rollout(2)[:, 3]"
    page.run("location.hash = 'layer=0&head=2&token=5'")
    WebDriverWait(page.browser, 5).until(lambda _: page.active() == ["d"])
    assert page.one(".python").text == "trace.attention(layers=0, heads=2)[0, 0, :, 5]"
    page.open(pair[0].to_html(pair[1]), "#word=1&token=3,1&head=mean")
    assert page.active() == ["c", "c"]
    assert page.texts(".token.shared") == ["c", "c"]


@pytest.mark.parametrize(
    "fragment", ["#layer=7&head=x&direction=up&token=99&word=5", "#word=length", "#%", "#token=-1"]
)
def test_address_that_means_nothing(page, trace, fragment):
    page.open(trace.to_html(), fragment)
    assert page.active() == ["a"]
    assert page.one(".map h3").text == "Layer 0, head 0"


@pytest.mark.parametrize(
    "text",
    [
        "</script><script>window.harmed = 1</script>",
        "<!-- <script> --><img src=x onerror='window.harmed=1'>",
        "\"quotes\" 'and' &amp; $style {{x}} `${1}` \\u003c",
        "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd, \u0645\u0631\u062d\u0628\u0627",
        "\U0001f469\u200d\U0001f469\u200d\U0001f467 na\u00efve cafe\u0301 \U0001f1e9\U0001f1ea",
        "a \u2028 b \u2029 c \u202e d \x00 e \ufffd f",
    ],
)
def test_texts_stay_texts(page, minilm_model, text):
    trace = minilm_model.explain(text)
    page.open(trace.to_html())
    content = page.one(".tokens").get_attribute("textContent")
    assert content == f"[CLS]{text}[SEP]" or content.replace("[SEP]", "") == f"[CLS]{text}"
    assert page.run("return window.harmed") is None
    if "\x00" not in text:
        assert page.run("return document.title") == text
    page.hover(page.tokens()[1])
    np.testing.assert_allclose(page.weights(), trace.attention(0, 0)[0, 0, 1], atol=STEP)


CONTRAST = """
const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
function mixed(colour, behind) {  // as pixels, whatever way the style has it
  canvas.fillStyle = `rgb(${behind.join()})`;
  canvas.fillRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
}
function backdrop(element) {
  if (!element) return mixed("Canvas", [255, 255, 255]);
  return mixed(getComputedStyle(element).backgroundColor, backdrop(element.parentElement));
}
function luminance(rgb) {
  const [r, g, b] = rgb.map((c) => c / 255).map((c) =>
    c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function contrast(a, b) {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}
const found = [];
const walker = document.createTreeWalker(document.querySelector("body"), NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
  const style = getComputedStyle(element);
  const behind = backdrop(element);
  const colour = element instanceof SVGElement ? style.fill : style.color;
  found.push([element.textContent, contrast(mixed(colour, behind), behind)]);
  if (element.matches(".strong")) {
    const around = backdrop(element.parentElement);
    const number = getComputedStyle(element, "::after");
    found.push([number.content, contrast(mixed(number.color, around), around)]);
  }
}
return found;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(page, pair, scheme):
    """WCAG 2 asks for 4.5 of text (level AA)."""
    page.scheme(scheme)
    page.open(pair[0].to_html(pair[1]), "#word=0&token=2,2&head=rollout")
    for summary in page.all("summary"):
        summary.click()
    WebDriverWait(page.browser, 5).until(lambda _: len(page.all(".table tbody tr")) == 6 + 7)
    page.run(
        "document.querySelectorAll('.token').forEach((token, k, { length }) =>"
        " token.style.setProperty('--share', `${(100 * k) / (length - 1)}%`))"
    )
    assert (min(page.shades()), max(page.shades())) == (0, 1)
    found = page.run(CONTRAST)
    names = {name for name, _ in found}
    assert {"[CLS]", "Where each token looks", "after layer", "b", "Weight"} <= names
    assert any(re.fullmatch(r'"?\d\.\d{3}"?|attr\(data-weight\)', name) for name in names)
    poor = [(name, ratio) for name, ratio in found if ratio < 4.5]
    assert poor == []


@pytest.mark.parametrize("count", [7, 64])
def test_narrow_window(page, pair, count):
    """Nothing but maps and tables scrolls sideways."""
    page.size(400)
    big = hw.Encoder(vocab_size=100, hidden_size=24, num_layers=12, num_heads=12)
    page.open(big.trace(range(count)).to_html())
    assert page.run("return document.documentElement.scrollWidth") <= 400
    page.open(pair[0].to_html(pair[1]))
    assert page.run("return document.documentElement.scrollWidth") <= 400


def test_long_and_short_traces(page):
    encoder = hw.Encoder(vocab_size=100, hidden_size=8, num_layers=1, num_heads=1)
    for count in (1, 512):
        trace = encoder.trace(np.arange(count) % 100)
        page.open(trace.to_html(), f"#token={count - 1}")
        expected = trace.attention()[0, 0, -1]
        np.testing.assert_allclose(page.weights(), expected, rtol=0, atol=STEP)


def test_notebook_frame(page, trace):
    page.open(f"<!doctype html><title>Notebook</title>{trace._repr_html_()}", ready="iframe")
    page.browser.switch_to.frame(page.one("iframe"))
    page.wait("main:not([hidden])")
    page.choose(1, 2)
    page.hover(page.tokens()[4])
    np.testing.assert_allclose(page.weights(), trace.attention(1, 2)[0, 0, 4], atol=STEP)
    page.browser.switch_to.default_content()


@contextlib.contextmanager
def server():
    """Yield an address, and what is asked for there."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}", asked
        finally:
            http.shutdown()
            thread.join()


FETCH = """
const [address, done] = arguments;
fetch(`${address}/fetch`, { mode: "no-cors" }).then(() => done("loaded"), () => done("refused"));
"""


def test_browser_refuses_to_load_anything_for_it(browser, trace, tmp_path):
    page = Page(browser, tmp_path / "page.html")
    with server() as (address, asked):
        page.open(trace.to_html())
        assert browser.execute_async_script(FETCH, address) == "refused"
        page.open("<!doctype html><title>No policy</title>", ready="title")
        assert browser.execute_async_script(FETCH, address) == "loaded"
        assert asked == ["/fetch"]
    page.logged()
