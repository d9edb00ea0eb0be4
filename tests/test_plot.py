"""The figure of a trace shows its weights."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest

import headwise as hw


def traced(count, **changes):
    options = {"vocab_size": 100, "hidden_size": 12, "num_layers": 3, "num_heads": 4}
    return hw.Encoder(**(options | changes)).trace(np.arange(count))


def maps(figure):
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def test_every_map_shows_its_head():
    trace = traced(5)
    figure = hw.plot_attention(trace)
    shown = np.array([axes.images[0].get_array() for axes in maps(figure)])
    np.testing.assert_array_equal(shown.reshape(3, 4, 5, 5), trace.attention())
    assert [axes.get_title() for axes in maps(figure)[:4]] == [f"head {h}" for h in range(4)]
    assert [axes.get_ylabel() for axes in maps(figure)[::4]] == [f"layer {i}" for i in range(3)]
    scales = {axes.images[0].norm.vmax for axes in maps(figure)}
    assert scales == {trace.attention().max()}


def test_chosen_layers_and_heads():
    trace = traced(5)
    figure = hw.plot_attention(trace, layers=-1, heads=[3, 0])
    shown = [axes.images[0].get_array() for axes in maps(figure)]
    np.testing.assert_array_equal(shown, trace.attention(2, [3, 0])[0])
    assert [axes.get_title() for axes in maps(figure)] == ["head 3", "head 0"]
    assert maps(figure)[0].get_ylabel() == "layer 2"


@pytest.mark.parametrize(("count", "named"), [(4, True), (90, False)])
def test_names_of_tokens_where_there_is_room(count, named):
    axes = maps(hw.plot_attention(traced(count), layers=[0, 1], heads=[1, 2]))
    names = [str(i) for i in range(count)] if named else []
    for place, (rows, columns) in enumerate([(names, []), ([], []), (names, names), ([], names)]):
        assert [label.get_text() for label in axes[place].get_yticklabels()] == rows
        assert [label.get_text() for label in axes[place].get_xticklabels()] == columns


def test_dollar_signs_are_no_formula():
    made = traced(3)
    tokens = hw.nn.Tokens(
        "$\\x$ b", ("$\\x$", "b", "$"), np.array([[0, 4], [5, 6], [0, 0]]), np.array([0, 1, -1])
    )
    trace = hw.Trace(made.encoder, made.input_ids, made.hidden_states, made.output, tokens)
    figure = hw.plot_attention(trace, 0, 0)
    assert [label.get_text() for label in maps(figure)[0].get_xticklabels()] == ["$\\x$", "b", "$"]
    figure.draw_without_rendering()


def test_shows_itself_and_pickles():
    figure = hw.plot_attention(traced(3), 0, 0)
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert len(maps(pickle.loads(pickle.dumps(figure)))) == 1


def test_neither_headwise_nor_the_figure_needs_pyplot():
    code = (
        "import sys, headwise as hw\n"
        "assert 'matplotlib' not in sys.modules\n"
        "hw.plot_attention(hw.Encoder(vocab_size=9, num_layers=1).trace([1, 2])).canvas.draw()\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "headwise.view.figure", None)
    with pytest.raises(ImportError, match=r"needs matplotlib: pip install 'headwise\[plot\]'"):
        hw.plot_attention(traced(3))


def test_bad_input():
    with pytest.raises(ValueError, match=r"heads holds 4: it must be -4 to 3"):
        hw.plot_attention(traced(3), heads=4)
    with pytest.raises(TypeError, match=r"layers is 'last': it must be an integer"):
        hw.plot_attention(traced(3), layers="last")
    with pytest.raises(ValueError, match=r"weights have shape \(3, 0, 3, 3\): there must be"):
        hw.plot_attention(traced(3), heads=[])
    with pytest.raises(ValueError, match=r"weights have shape \(3, 4, 0, 0\): there must be"):
        hw.plot_attention(traced(0))
