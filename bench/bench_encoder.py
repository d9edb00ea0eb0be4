"""Encoders in every precision: all-MiniLM-L6-v2 on texts, BERT-base on a batch of token ids."""

from __future__ import annotations

from functools import cache

import models
import numpy as np
import peers_encoder
import pytest
from peers_encoder import check
from texts import SETS


def cases(libraries):
    return [(precision, library) for precision in libraries for library in libraries[precision]]


@cache
def minilm(library, precision):
    return peers_encoder.text_encoder(library, precision, models.minilm())


@cache
def minilm_vectors(name, step):
    return minilm("headwise", "float32")(SETS[name][::step])


@pytest.mark.parametrize(("precision", "library"), cases(peers_encoder.TEXT_ENCODERS))
@pytest.mark.parametrize("name", SETS)
def bench_minilm(measure, name, precision, library, benchmark):
    benchmark.group = f"MiniLM {precision}, {name}"
    step = 32 if benchmark.disabled else 1  # untimed, a few texts will do
    texts, encode = SETS[name][::step], minilm(library, precision)
    lowest = check(library, precision, encode(texts), minilm_vectors(name, step), atol=2e-6)
    benchmark.extra_info["lowest cosine"] = lowest
    measure(lambda: encode(texts), **cost(texts, precision))


def cost(texts, precision):
    """Return what embedding these texts by MiniLM takes, for `measure`."""
    folder = models.minilm()
    lengths = [len(ids) for ids in peers_encoder.tokenizer(folder)(texts)]
    return {
        "flops": models.flops(folder, lengths),
        "nbytes": models.nbytes(folder, precision, len(texts)),
        "texts": len(texts),
        "precision": precision,
    }


@pytest.mark.parametrize(("precision", "library"), cases(peers_encoder.TEXT_ENCODERS))
@pytest.mark.parametrize("count", [1, 4, 16, 64, 256])
def bench_batch(measure, count, precision, library, benchmark):
    """A call with `count` short texts. Peers cut it into batches of 32."""
    benchmark.group = f"MiniLM {precision}, {count} short"
    texts = SETS["256 short"][: min(count, 4) if benchmark.disabled else count]
    encode = minilm(library, precision)
    expected = minilm("headwise", "float32")(texts)
    benchmark.extra_info["lowest cosine"] = check(
        library, precision, encode(texts), expected, atol=2e-6
    )
    measure(lambda: encode(texts), **cost(texts, precision))


def bert_base(library, precision, batch):
    return peers_encoder.hidden_states(library, precision, models.bert_base(), iter([batch]))


@cache
def bert_base_batch(sequences):
    """Return ids and mask, and what headwise makes of them in float32."""
    ids = np.random.default_rng(1).integers(models.BERT_BASE["vocab_size"], size=(sequences, 128))
    batch = ids, np.ones_like(ids)
    return batch, bert_base("headwise", "float32", batch)(*batch)


@pytest.mark.parametrize(("precision", "library"), cases(peers_encoder.ENCODERS))
def bench_bert_base(measure, precision, library, benchmark):
    """Weights are random, as before training: only the time means something."""
    benchmark.group = f"BERT-base {precision}, 16 x 128 tokens"
    batch, expected = bert_base_batch(1 if benchmark.disabled else 16)
    run = bert_base(library, precision, batch)
    benchmark.extra_info["lowest cosine"] = check(
        library, precision, run(*batch), expected, atol=2e-5
    )
    sequences, length = batch[0].shape
    measure(
        lambda: run(*batch),
        flops=models.flops(models.bert_base(), [length] * sequences),
        nbytes=models.nbytes(models.bert_base(), precision, sequences * length),
        precision=precision,
    )
