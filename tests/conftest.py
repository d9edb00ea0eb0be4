"""Fixtures: the instruction set, the number of threads, numbers, and the one real model."""

from __future__ import annotations

import os
import shutil

import build_tree as trees
import ml_dtypes
import numpy as np
import pytest
import real_model
from checks import BUILT_ISAS
from hypothesis import HealthCheck, settings

import headwise as hw

settings.register_profile(
    "headwise",
    deadline=None,  # the first call on an instruction set may take a while
    max_examples=int(os.environ.get("HEADWISE_TEST_EXAMPLES", "50")),
    derandomize=real_model.IN_CI,
    database=None,
    print_blob=True,
    # The fixtures that meet @given set a process-wide choice that holds for every example.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("headwise")


def pytest_generate_tests(metafunc):
    if "isa" in metafunc.fixturenames:
        isas = getattr(metafunc.module, "ISAS", BUILT_ISAS)
        metafunc.parametrize("isa", isas, indirect=True)


@pytest.fixture
def isa(request):
    """Each instruction set that is built in, or of the module's ISAS; the test runs on no other."""
    if request.param not in hw.available_isas():
        pytest.skip(f"this CPU or operating system lacks {request.param}")
    before = hw.active_isa()
    hw.set_isa(request.param)
    assert hw.active_isa() == request.param
    yield request.param
    assert hw.active_isa() == request.param, "something changed the instruction set meanwhile"
    hw.set_isa(before)


@pytest.fixture(params=[1, 3])
def threads(request):
    """One thread, and more than two cores have."""
    before = hw.get_num_threads()
    hw.set_num_threads(request.param)
    assert hw.get_num_threads() == request.param
    yield request.param
    hw.set_num_threads(before)


@pytest.fixture(params=[np.float32, np.float64], ids=["f32", "f64"])
def dtype(request):
    return request.param


@pytest.fixture(
    params=[np.float32, np.float64, np.float16, ml_dtypes.bfloat16],
    ids=["f32", "f64", "f16", "bf16"],
)
def any_dtype(request):
    """What attention takes; linear layers and norms take the first two."""
    return np.dtype(request.param)


@pytest.fixture
def rng():
    return np.random.default_rng(20170612)


@pytest.fixture(scope="session")
def build_tree(tmp_path_factory):
    """An up to date build tree: the one that the package was built in, or a new one."""
    found = trees.find()
    return found or trees.build(tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="session")
def minilm():
    """The folder of all-MiniLM-L6-v2, fetched once and verified."""
    return real_model.folder()


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium: Debian's packages chromium and chromium-driver."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        (pytest.fail if real_model.IN_CI else pytest.skip)(
            "chromium and chromedriver are not installed"
        )
    from browser import start

    started = start(chromium, driver)
    yield started
    started.quit()


@pytest.fixture
def page(browser, tmp_path):
    """A page that has to stay silent, and alone."""
    from browser import Page

    page = Page(browser, tmp_path / "page.html")
    page.size(1280)
    page.scheme("light")
    yield page
    console, requests = page.logged()
    assert console == []
    assert {url.partition("#")[0] for url in requests} <= {"data:,", page.path.as_uri()}
