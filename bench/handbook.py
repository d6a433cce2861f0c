"""Prose to calibrate on and to be tested on: the Debian Administrator's Handbook, in English.

Its pages are shuffled with a fixed seed; a third is for testing, so that no page is on both sides.
"""

import random
from html.parser import HTMLParser

import downloads
import torch

INSIDE = "usr/share/doc/debian-handbook/html/en-US"
SHORTEST = 80  # characters of a paragraph: what is shorter is a heading or a list's item
SEED = 0


class _Paragraphs(HTMLParser):
    """The text of `<div class="para">`, without listings."""

    def __init__(self):
        super().__init__()
        self.depth, self.listing, self.text, self.found = 0, 0, [], []

    def handle_starttag(self, tag, attrs):
        if tag == "div" and (self.depth or dict(attrs).get("class") == "para"):
            self.depth += 1
        self.listing += tag == "pre"

    def handle_endtag(self, tag):
        self.listing -= tag == "pre"
        if tag == "div" and self.depth:
            self.depth -= 1
            if not self.depth:
                self.found.append(" ".join("".join(self.text).split()))
                self.text = []

    def handle_data(self, data):
        if self.depth and not self.listing:
            self.text.append(data)


def pages():
    """(pages for calibration, pages for testing): the prose of each."""
    texts = []
    for file in sorted(downloads.debian("debian-handbook", INSIDE).glob("*.html")):
        reader = _Paragraphs()
        reader.feed(file.read_text(encoding="utf-8"))
        prose = [paragraph for paragraph in reader.found if len(paragraph) >= SHORTEST]
        if prose:
            texts.append("\n\n".join(prose))
    random.Random(SEED).shuffle(texts)
    third = len(texts) // 3
    return texts[third:], texts[:third]


def windows(tokenizer, length=512):
    """(windows for calibration, windows for testing): token ids, each [windows, length], in the order of the pages."""
    def cut(texts):
        ids = torch.tensor([i for text in texts for i in tokenizer(text + "\n\n").input_ids])
        return ids[: len(ids) // length * length].view(-1, length)
    return tuple(map(cut, pages()))
