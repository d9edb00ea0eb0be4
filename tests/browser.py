"""A page in a headless Chromium, as its user has it."""

from __future__ import annotations

import json
import os

import numpy as np
from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

STEP = 0.5001e-3  # weights are shown in thousandths


def start(chromium, driver):
    """Start the programs at these paths; Selenium is to fetch none."""
    os.environ["SE_OFFLINE"] = "true"
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(driver))


class Page:
    """What a user sees of a page, and does with it."""

    def __init__(self, browser, path):
        self.browser = browser
        self.path = path

    def open(self, html, fragment="", ready="main:not([hidden])"):
        self.path.write_text(html, encoding="ascii")
        self.browser.get("about:blank")
        self.logged()
        self.browser.get(f"{self.path.as_uri()}{fragment}")
        self.wait(ready)
        return self

    def wait(self, selector):
        WebDriverWait(self.browser, 20).until(lambda _: self.all(selector))

    def all(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        (found,) = self.all(selector)
        return found

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def size(self, width, height=900):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def scheme(self, name):
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def choose(self, layer, head, direction="from"):
        Select(self.one("#layer")).select_by_visible_text(str(layer))
        names = {"mean": "mean of the heads"}
        Select(self.one("#column")).select_by_visible_text(names.get(head, str(head)))
        self.one(f"[value={direction}]").click()

    def tokens(self, text=0):
        return self.all("section.text")[text].find_elements(By.CSS_SELECTOR, ".token")

    def hover(self, element, x=0, y=0):
        moves = ActionChains(self.browser, duration=0)
        moves.move_to_element_with_offset(element, x, y).perform()

    def click(self):
        """Click where the pointer is."""
        ActionChains(self.browser, duration=0).click().perform()

    def keys(self, *keys):
        ActionChains(self.browser, duration=0).send_keys(*keys).perform()

    def weights(self, text=0):
        found = self.run(
            "const text = document.querySelectorAll('section.text')[arguments[0]];"
            "return [...text.querySelectorAll('.token')].map((token) => token.dataset.weight)",
            text,
        )
        return np.array(found, float)

    def shades(self):
        """Return how strongly each token is shaded, from 0 to 1."""
        return self.run(
            "return [...document.querySelectorAll('.token')]"
            ".map((token) => parseFloat(token.style.getPropertyValue('--share')) / 100)"
        )

    def active(self):
        return [t.text for t in self.all(".token.active")]

    def logged(self):
        """Return what the console and the network have seen since the last call."""
        console = [entry["message"] for entry in self.browser.get_log("browser")]
        events = [json.loads(e["message"])["message"] for e in self.browser.get_log("performance")]
        requests = [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]
        return console, requests
