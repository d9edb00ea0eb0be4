"""The page of a trace in a real browser: what it shows is what NumPy computes."""

from __future__ import annotations

import re

import numpy as np
import pytest
from browser import STEP
from selenium.webdriver import Keys
from tiny import load_sentence_model

import headwise as hw


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_sentence_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def trace(model):
    return model.explain("a b c zebra d")


def weights_of(trace, layer, head, direction, token):
    """What the page should show, asked of the trace."""
    if head == "rollout":
        weights = trace.rollout(layer + 1)
    elif head == "mean":
        weights = trace.attention(layer)[0].mean(0)
    else:
        weights = trace.attention(layer, head)[0, 0]
    return weights[token] if direction == "from" else weights[:, token]


VIEWS = [
    (0, 0, "from"),
    (1, 2, "from"),
    (0, 1, "to"),
    (1, 0, "to"),
    (1, "mean", "from"),
    (0, "mean", "to"),
    (1, "rollout", "from"),
    (1, "rollout", "to"),
]


# Tokens


@pytest.mark.parametrize(("layer", "head", "direction"), VIEWS)
def test_hovered_token_shows_its_weights(page, trace, layer, head, direction):
    page.open(trace.to_html())
    page.choose(layer, head, direction)
    tokens = page.tokens()
    assert [token.text for token in tokens] == ["[CLS]", "a", "b", "c", "zebra", "d", "[SEP]"]
    for index in (4, 0, 6):
        page.hover(tokens[index])
        assert page.active() == [tokens[index].text]
        expected = weights_of(trace, layer, head, direction, index)
        np.testing.assert_allclose(page.weights(), expected, rtol=0, atol=STEP)
        # The expression that the page gives for Python is one of these weights.
        said = eval(page.one(".python").text, {"trace": trace})
        np.testing.assert_array_equal(said, expected)


@pytest.mark.parametrize(("layer", "head", "direction"), VIEWS[1:3])
def test_what_is_said_of_a_token(page, trace, layer, head, direction):
    """In a sentence, the strongest first; in a table, all; in the shade of each token."""
    page.open(trace.to_html())
    page.choose(layer, head, direction)
    page.one(".table summary").click()
    page.hover(page.tokens()[2])
    weights = page.weights()
    order = np.argsort(-weights, kind="stable")
    names = [token.text for token in page.tokens()]
    verb = "looks at" if direction == "from" else "is looked at by"
    parts = ", ".join(f"{names[i]} {weights[i]:.3f}" for i in order[:5])
    assert page.one(".reading").text == f"b (token 2) {verb} {parts}"
    rows = page.texts(".table tbody tr")
    assert rows == [f"{i} {names[i]} {weights[i]:.3f}" for i in order]
    largest = max(float(mark.text) for mark in page.all("#scale span"))
    np.testing.assert_allclose(page.shades(), np.sqrt(weights / largest), atol=0.6e-3)


def test_pointer_that_leaves_gives_back_the_chosen_token(page, trace):
    page.open(trace.to_html())
    assert page.active() == ["a"]
    page.tokens()[3].click()
    page.hover(page.tokens()[5])
    assert page.active() == ["d"]
    page.hover(page.one("h1"))
    assert page.active() == ["c"]
    np.testing.assert_allclose(page.weights(), trace.attention(0, 0)[0, 0, 3], atol=STEP)


@pytest.fixture(scope="module")
def minilm_model(minilm):
    return hw.TextEncoder.from_pretrained(minilm)


def test_real_model(page, minilm_model):
    trace = minilm_model.explain("The cat sat unbelievably on the mat because it was tired")
    page.open(trace.to_html())
    assert page.one(".tokens").text.replace("\n", "") == f"[CLS]{trace.tokens.text}[SEP]"
    it = trace.tokens.strings.index("it")
    for layer, head, direction in [(1, 8, "from"), (5, 11, "to"), (3, "rollout", "from")]:
        page.choose(layer, head, direction)
        page.hover(page.tokens()[it])
        expected = weights_of(trace, layer, head, direction, it)
        np.testing.assert_allclose(page.weights(), expected, rtol=0, atol=STEP)


# By keyboard alone


def focused(page):
    return page.browser.switch_to.active_element


def tab_to(page, selector):
    """Press Tab until what has the focus matches; what an arrow key is to move must be one stop."""
    for _ in range(30):
        page.keys(Keys.TAB)
        if page.run("return document.activeElement.matches(arguments[0])", selector):
            return
    raise AssertionError(f"Tab never reaches {selector}")


def test_by_keyboard_alone(page, trace):
    page.open(trace.to_html())
    tab_to(page, "[name=direction]")
    page.keys(Keys.ARROW_RIGHT)
    tab_to(page, ".token")
    page.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.active() == ["c"]
    np.testing.assert_allclose(page.weights(), trace.attention(0, 0)[0, 0, :, 3], atol=STEP)
    tab_to(page, ".heads button")
    page.keys(Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert focused(page).accessible_name == "layer 1, head 1"
    np.testing.assert_allclose(page.weights(), trace.attention(1, 1)[0, 0, :, 3], atol=STEP)
    tab_to(page, ".map canvas")
    page.keys(Keys.ARROW_DOWN, Keys.ARROW_LEFT)  # from the cell of token 3 and itself
    weight = trace.attention(1, 1)[0, 0, 4, 2]
    assert (
        page.one(".map output").text == f"b (token 2) is looked at by zebra (token 4): {weight:.3f}"
    )
    page.keys(Keys.ENTER)
    assert page.active() == ["b"]


@pytest.mark.parametrize(("text", "onwards"), [("a b c", 1), ("\u05d0 \u05d1 \u05d2", -1)])
def test_arrow_keys_follow_the_script(page, model, text, onwards):
    page.open(model.explain(text).to_html())
    direction = page.one(".tokens").value_of_css_property("direction")
    assert direction == ("ltr" if onwards > 0 else "rtl")
    tab_to(page, ".token")
    page.keys(Keys.ARROW_RIGHT)
    assert page.active() == [text.split()[1] if onwards > 0 else "[CLS]"]
    page.keys(Keys.END)
    assert page.active() == ["[SEP]"]
    page.keys(Keys.ARROW_RIGHT if onwards > 0 else Keys.ARROW_LEFT)
    assert page.active() == ["[SEP]"]
    page.keys(Keys.HOME)
    assert page.active() == ["[CLS]"]


# Maps


def test_grid_of_heads(page, trace):
    page.open(trace.to_html())
    buttons = page.all(".heads button")
    names = [button.accessible_name for button in buttons]
    columns = ["head 0", "head 1", "head 2", "mean of the heads", "rollout"]
    assert names == [f"layer {layer}, {column}" for layer in (0, 1) for column in columns]
    for index in (7, 3, 9):
        buttons[index].click()
        pressed = [b.accessible_name for b in buttons if b.get_attribute("aria-pressed") == "true"]
        assert pressed == [names[index]]
        layer, head = divmod(index, 5)
        head = {3: "mean", 4: "rollout"}.get(head, head)
        assert page.one("#layer").get_attribute("value") == str(layer)
        expected = weights_of(trace, layer, head, "from", 1)
        np.testing.assert_allclose(page.weights(), expected, atol=STEP)


def test_some_layers_and_heads_keep_their_numbers(page, trace):
    page.open(trace.to_html(layers=1, heads=[0, 2]))
    page.all(".heads button")[1].click()
    assert page.one(".map h3").text == "Layer 1, head 2"
    page.hover(page.tokens()[3])
    np.testing.assert_allclose(page.weights(), trace.attention(1, 2)[0, 0, 3], atol=STEP)


def canvas_pixels(page, selector):
    """Return the colours of a canvas, (rows, columns, 3)."""
    width, numbers = page.run(
        "const canvas = document.querySelector(arguments[0]);"
        "const { width, height } = canvas;"
        "const data = canvas.getContext('2d').getImageData(0, 0, width, height).data;"
        "return [width, [...data]];",
        selector,
    )
    return np.array(numbers).reshape(-1, width, 4)[..., :3]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("selector", [".map canvas", ".heads button[aria-pressed=true] canvas"])
def test_colours_of_a_map(page, trace, scheme, selector):
    """The colour of a cell follows the root of its weight, from the background to the strongest."""
    page.scheme(scheme)
    page.open(trace.to_html(), "#layer=1&head=1")
    shown = trace.attention(1, 1)[0, 0].round(3)
    shares = np.sqrt(shown / shown.max())
    style = "getComputedStyle(document.documentElement)"
    ends = [page.run(f"return {style}.getPropertyValue('--heat-{k}')") for k in range(3)]
    stops = np.array([[int(end[k : k + 2], 16) for k in (1, 3, 5)] for end in ends])
    expected = np.stack([np.interp(shares, [0, 0.5, 1], stops[:, k]) for k in range(3)], -1)
    np.testing.assert_allclose(canvas_pixels(page, selector), expected, atol=2.5)


def test_small_map_of_many_tokens_shows_the_strongest(page):
    trace = hw.Encoder(vocab_size=100, hidden_size=8, num_layers=1, num_heads=1).trace(range(96))
    page.open(trace.to_html())
    shown = trace.attention()[0, 0].round(3)
    strongest = shown.reshape(48, 2, 48, 2).max((1, 3))
    luminance = canvas_pixels(page, ".heads button canvas").sum(-1)
    order = np.argsort(strongest, axis=None)
    assert (np.diff(luminance.flat[order]) <= 1).all()
    assert luminance.min() < luminance.max() - 300


@pytest.mark.parametrize("direction", ["from", "to"])
def test_cell_of_the_heat_map(page, trace, direction):
    page.open(trace.to_html())
    page.choose(1, 2, direction)
    canvas = page.one(".map canvas")
    cell = canvas.size["width"] / 7
    names = [token.text for token in page.tokens()]
    for row, column in [(0, 6), (5, 2), (3, 3)]:
        page.hover(canvas, round((column - 3) * cell), round((row - 3) * cell))
        weight = trace.attention(1, 2)[0, 0, row, column]
        token, other = (row, column) if direction == "from" else (column, row)
        verb = "looks at" if direction == "from" else "is looked at by"
        said = page.one(".map output").text
        assert (
            said
            == f"{names[token]} (token {token}) {verb} {names[other]} (token {other}): {weight:.3f}"
        )
        assert page.active() == [names[token]]
        assert page.texts(".token.other") == [names[other]]
        assert page.texts(".rows .on") == [names[row]]
        assert [t.get_attribute("textContent") for t in page.all(".columns .on")] == [names[column]]
    page.hover(canvas, round(-2 * cell), round(2 * cell))
    page.click()
    page.hover(page.one("h1"))
    assert page.active() == [names[5 if direction == "from" else 1]]


# Two texts


@pytest.fixture(scope="module")
def pair(model):
    return model.explain("a b c d"), model.explain("c b p b c")


def test_cosines_of_shared_words(page, pair):
    page.open(pair[0].to_html(pair[1]))
    shared = hw.shared_words(*pair)
    page.one("#words summary").click()
    rows = [row.text.split() for row in page.all("#words tbody tr")]
    assert [row[0] for row in rows] == [word.word for word in shared] == ["b", "c"]
    cosines = np.array([[float(x) for x in row[1:]] for row in rows])
    expected = np.array([word.cosines for word in shared])
    np.testing.assert_allclose(cosines, expected, atol=0.55e-3)  # rounded twice
    # The lines: equal steps of x, and y a straight function of the cosine.
    paths = [p.get_attribute("d") for p in page.all(".word path:first-child")]
    order = [int(g.get_attribute("data-word")) for g in page.all(".word")]
    points = np.array([re.findall(r"[\d.]+", path) for path in paths], float)
    points = points.reshape(len(shared), -1, 2)[np.argsort(order)]
    assert points.shape[1] == pair[0].encoder.num_layers + 1
    np.testing.assert_allclose(np.diff(points[..., 0]), np.diff(points[0, :2, 0])[0], atol=1e-2)
    slope, start = np.polyfit(expected.ravel(), points[..., 1].ravel(), 1)
    assert slope < 0
    np.testing.assert_allclose(start + slope * expected, points[..., 1], atol=0.1)


def test_chosen_word(page, pair):
    page.open(pair[0].to_html(pair[1]))
    page.all(".choices button")[0].click()
    (word, _) = hw.shared_words(*pair)
    values = page.texts(".chosen text")
    assert values == [word.word, *(f"{cosine:.2f}" for cosine in word.cosines)]
    assert page.texts(".token.shared") == ["b", "b"]
    assert page.active() == ["b", "b"]
    for text, (trace, tokens) in enumerate(zip(pair, (word.first, word.second), strict=True)):
        expected = trace.attention(0, 0)[0, 0, tokens[0]]
        np.testing.assert_allclose(page.weights(text), expected, atol=STEP)
    said = page.texts(".python code")
    for expression, expected in zip(said, (0, 1), strict=True):
        value = eval(expression, {"first": pair[0], "second": pair[1]})
        np.testing.assert_allclose(page.weights(expected), value, atol=STEP)
    page.all(".choices button")[0].click()
    assert page.all(".chosen") == []


def test_texts_that_share_nothing(page, model):
    page.open(model.explain("a b").to_html(model.explain("c")))
    assert page.one(".chart").text == "The texts share no word."
