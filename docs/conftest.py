"""What the code blocks of these pages find: the model's folder, and a folder to write to."""

from __future__ import annotations

import pytest
import real_model

import headwise as hw

collect_ignore = ["conf.py"]  # Sphinx's alone


@pytest.fixture(scope="session")
def model_folder():
    return real_model.folder()


@pytest.fixture(autouse=True)
def page(request, doctest_namespace, tmp_path, monkeypatch):
    """Give a page its names; leave no file and no setting behind."""
    if "folder" in request.path.read_text("utf-8"):
        doctest_namespace["folder"] = request.getfixturevalue("model_folder")
    monkeypatch.chdir(tmp_path)
    threads, isa = hw.get_num_threads(), hw.active_isa()
    yield
    hw.set_num_threads(threads)
    hw.set_isa(isa)
