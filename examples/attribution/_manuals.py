"""Real English text that is on every machine that runs these examples: passages of two manuals."""

from __future__ import annotations

import inspect
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

MANUALS = ("NumPy", "PyTorch")
PADDING, UNKNOWN = 0, 1
LENGTH = 60  # words in a passage, at most
SHORTEST = 25
TEST_SHARE = 5  # one page in five

_NAMES = re.compile(r"\b(numpy|np|torch|pytorch|python)\b", re.IGNORECASE)  # these would give the answer away
_CODE = (">>>", "...", "::", "==", "|", "---", "\\", "http")


@dataclass(frozen=True)
class Passages:
    """Passages as numbers of words.

    Attributes:
        tokens: (N, LENGTH), ``PADDING`` after the last word.
        lengths: words in each, (N,).
        labels: positions in ``MANUALS``, (N,).
    """

    tokens: Tensor
    lengths: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def load_manuals(*, rarest: int = 4) -> tuple[Passages, Passages, list[str]]:
    """Passages to train on, those of other pages to test on, and the vocabulary.

    Args:
        rarest: a word that occurs less often in the training text is unknown.
    """
    texts: dict[bool, list[tuple[list[str], int]]] = {True: [], False: []}
    seen: set[tuple[str, ...]] = set()
    for label, pages in enumerate((_pages(_numpy()), _pages(_torch()))):
        for name, page in pages:
            tested = zlib.crc32(f"{label} {name}".encode()) % TEST_SHARE == 0  # by page: a page repeats itself
            for words in _passages(page):
                if tuple(words) not in seen:
                    seen.add(tuple(words))
                    texts[tested].append((words, label))
    counts = Counter(word for words, _ in texts[False] for word in words)
    vocabulary = ["(padding)", "(unknown)", *sorted(word for word, count in counts.items() if count >= rarest)]
    numbers = {word: number for number, word in enumerate(vocabulary)}
    return _as_numbers(texts[False], numbers), _as_numbers(texts[True], numbers), vocabulary


def _as_numbers(texts: list[tuple[list[str], int]], numbers: dict[str, int]) -> Passages:
    tokens = torch.full((len(texts), LENGTH), PADDING)
    for row, (words, _) in zip(tokens, texts, strict=True):
        row[: len(words)] = torch.tensor([numbers.get(word, UNKNOWN) for word in words])
    return Passages(tokens, (tokens != PADDING).sum(1), torch.tensor([label for _, label in texts]))


def _passages(page: str) -> Iterator[list[str]]:
    """A page's prose, cut into passages of ``LENGTH`` words; a short rest is left out."""
    words: list[str] = []
    for block in re.split(r"\n\s*\n", page):
        if not any(sign in block for sign in _CODE):
            words += [word.lower() for word in re.findall(r"[A-Za-z]{2,}", _NAMES.sub(" ", block))]
    for start in range(0, len(words) - SHORTEST + 1, LENGTH):
        if len(words) - start >= SHORTEST:
            yield words[start : start + LENGTH]


def _pages(things: Iterator[tuple[str, object]]) -> Iterator[tuple[str, str]]:
    """Each documented thing's name and docstring; one name's page belongs to one half, wherever it turns up."""
    for name, thing in things:
        page = getattr(thing, "__doc__", None)
        if isinstance(page, str):
            yield name, inspect.cleandoc(page)


def _numpy() -> Iterator[tuple[str, object]]:
    for module in (np, np.linalg, np.fft, np.random, np.ma, np.polynomial, np.ndarray, np.char):
        yield from _members(module)


def _torch() -> Iterator[tuple[str, object]]:
    for module in (torch, torch.nn, torch.nn.functional, torch.optim, torch.linalg, torch.distributions, torch.Tensor):
        yield from _members(module)


def _members(thing: object) -> Iterator[tuple[str, object]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated names warn when they are looked at
        for name in sorted(vars(thing)):
            member = getattr(thing, name, None)
            if not name.startswith("_") and not isinstance(member, ModuleType):
                yield name, member
