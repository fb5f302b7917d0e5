"""Text: which words make a passage sound like NumPy's manual, and what would make it sound like PyTorch's?

Words are no numbers that could change a little, their embeddings are. The passages are real: the docstrings of NumPy
and PyTorch, as installed, without the two names themselves. One page in five is kept for testing. A small
convolutional network over an embedding tells the manuals apart. Nothing to install beside this library.

    python -m pip install .
    python examples/attribution/text.py [--save text.png]
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from dataclasses import dataclass

import torch
from _manuals import MANUALS, PADDING, UNKNOWN, Passages, load_manuals
from captum.attr import configure_interpretable_embedding_layer, remove_interpretable_embedding_layer
from torch import Tensor, nn
from torch.nn import functional as F

from captum_lipschitz.attr import AdversarialAttribution, LayerAdversarialAttribution

WIDTH = 24


class Reader(nn.Module):
    """From words, (N, T), and their number in each row, (N,), to logits, (N, 2)."""

    def __init__(self, num_words: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_words, WIDTH, padding_idx=PADDING)
        self.mix = nn.Conv1d(WIDTH, 48, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.classify = nn.Linear(48, len(MANUALS))

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Average over the words that there are: padding takes no part."""
        embedded = self.embedding(tokens)
        present = (torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]).to(embedded.dtype)[:, None]
        mixed = F.silu(self.mix(embedded.transpose(1, 2) * present)) * present
        logits: Tensor = self.classify(self.drop(mixed.sum(2) / lengths[:, None]))
        return logits


@dataclass(frozen=True)
class Findings:
    """What the example found out.

    Attributes:
        accuracy: share of the test passages whose manual is told.
        passages: those explained: NumPy's, and seen as such.
        changes: of their embeddings toward PyTorch, (N, T, WIDTH).
        unmasked: the same where nothing but the lengths says what is padding.
        by_layer: the same again, from the words themselves, as a change of the embedding layer's output.
        delta: achieved size minus rho, (N,).
        before, after: probability of PyTorch, (N,).
        vocabulary: the words.
        table: the embedding's weights, (words, WIDTH).
    """

    accuracy: float
    passages: Passages
    changes: Tensor
    unmasked: Tensor
    by_layer: Tensor
    delta: Tensor
    before: Tensor
    after: Tensor
    vocabulary: list[str]
    table: Tensor

    @property
    def sizes(self) -> Tensor:
        """Per word: how far its embedding would have to go, (N, T)."""
        lengths: Tensor = self.changes.norm(dim=2)
        return lengths

    @property
    def signs(self) -> Tensor:
        """Per word: along its own embedding (more of the word, positive) or against it, (N, T)."""
        words = F.normalize(self.table[self.passages.tokens], dim=2)
        along: Tensor = (self.changes * words).sum(2)
        return along

    def replacement(self, row: int, place: int) -> str:
        """The word whose embedding lies most in the direction of the change."""
        towards = F.normalize(self.table - self.table[self.passages.tokens[row, place]], dim=1)
        fit = towards @ self.changes[row, place]
        fit[[PADDING, UNKNOWN]] = -torch.inf
        return self.vocabulary[int(fit.argmax())]


def train(model: Reader, passages: Passages, *, epochs: int) -> None:
    """In place, evaluation mode afterwards; rare manuals weigh as much as common ones."""
    weight = 1 / torch.bincount(passages.labels).float()
    descent = torch.optim.AdamW(model.parameters(), lr=0.005, weight_decay=0.05)
    for _ in range(epochs):
        for rows in torch.randperm(len(passages)).split(64):
            logits = model(passages.tokens[rows], passages.lengths[rows])
            descent.zero_grad()
            F.cross_entropy(logits, passages.labels[rows], weight=weight).backward()
            descent.step()
    model.eval()


def explain(*, epochs: int, rho: float, count: int = 16) -> Findings:
    """Train, then ask of NumPy's passages: what would make them PyTorch's?"""
    torch.manual_seed(0)
    training, testing, vocabulary = load_manuals()
    model = Reader(len(vocabulary))
    train(model, training, epochs=epochs)
    with torch.no_grad():
        guesses = model(testing.tokens, testing.lengths).argmax(1)
    numpy, pytorch = MANUALS.index("NumPy"), MANUALS.index("PyTorch")
    rows = ((guesses == numpy) & (testing.labels == numpy)).nonzero()[:count, 0]
    chosen = Passages(testing.tokens[rows], testing.lengths[rows], testing.labels[rows])

    table = model.embedding.weight.detach().clone()
    words = (chosen.tokens != PADDING).unsqueeze(2)
    settings = {"target": pytorch, "rho": rho, "norm": "l2", "scale": table[UNKNOWN + 1 :].std(0)}
    # The short way: words in, and the change is that of a layer's output.
    by_layer = LayerAdversarialAttribution(model, model.embedding).attribute(
        chosen.tokens, additional_forward_args=chosen.lengths, mask=words, **settings
    )
    # Captum's way, as for any of its methods: the model takes embeddings in the words' place.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="In order to make embedding layers")  # Captum says so every time
        interpretable = configure_interpretable_embedding_layer(model, "embedding")
    try:
        embeddings = interpretable.indices_to_embeddings(chosen.tokens).detach()
        attribution = AdversarialAttribution(model)
        changes, delta = attribution.attribute(
            embeddings, additional_forward_args=chosen.lengths, mask=words, return_convergence_delta=True, **settings
        )
        # The lengths alone do it as well: where they end, the model has no slope, and nothing is moved.
        unmasked = attribution.attribute(embeddings, additional_forward_args=chosen.lengths, **settings)
        with torch.no_grad():
            before, after = (
                model(x, chosen.lengths).softmax(1)[:, pytorch] for x in (embeddings, embeddings + changes)
            )
    finally:
        remove_interpretable_embedding_layer(model, interpretable)
    accuracy = (guesses == testing.labels).double().mean().item()
    return Findings(accuracy, chosen, changes, unmasked, by_layer, delta, before, after, vocabulary, table)


def show(found: Findings, row: int) -> None:
    """A passage, and the words whose embeddings would have to go furthest."""
    numbers = found.passages.tokens[row][: int(found.passages.lengths[row])]
    print(f'  "{" ".join(found.vocabulary[i] for i in numbers[:20].tolist())} ..."')
    for place in found.sizes[row].argsort(descending=True)[:4].tolist():
        word, instead = found.vocabulary[int(numbers[place])], found.replacement(row, place)
        print(
            f"    {word:<14} moves by {found.sizes[row, place]:.2f}, by {found.signs[row, place]:+.2f} "
            f"along itself, toward {instead!r}"
        )
    print(f"    probability of PyTorch {found.before[row]:.2f}, after the change {found.after[row]:.2f}")


def show_replacements(found: Findings) -> None:
    """The words that most embeddings move toward, over all passages."""
    lengths = found.passages.lengths.tolist()
    wanted = Counter(found.replacement(i, j) for i, length in enumerate(lengths) for j in range(length))
    shares = (f"{word} ({count / sum(lengths):.0%})" for word, count in wanted.most_common(6))
    print(f"Over all {len(lengths)} passages, words move toward: {', '.join(shares)}")


def save(path: str, found: Findings, rows: int = 6) -> None:
    """Words on a background that is the redder, the further the word's embedding would have to go."""
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(13, 0.4 * rows), layout="constrained")
    axis.axis("off")
    colours = plt.get_cmap("Reds")
    for row in range(rows):
        length = int(found.passages.lengths[row])
        sizes = found.sizes[row, :length]
        shades = 0.8 * (sizes - sizes.min()) / (sizes.max() - sizes.min())  # within a passage
        for place in range(min(14, length)):
            word = found.vocabulary[int(found.passages.tokens[row, place])]
            shade = colours(float(shades[place]))
            axis.text(place / 14, 1 - row / rows, word[:14], backgroundcolor=shade, fontsize=8, va="top")
    axis.set_title("NumPy's manual: the words that would have to change for PyTorch's (first 14 of each passage)")
    figure.savefig(path)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> Findings:
    """Train, explain, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8, help="of training")
    parser.add_argument("--rho", type=float, default=3.0, help="length of the change, in spreads of the embedding")
    parser.add_argument("--save", metavar="PNG", help="also draw some passages")
    options = parser.parse_args(arguments)
    found = explain(epochs=options.epochs, rho=options.rho)
    print(f"{found.accuracy:.1%} of the test passages right. What would make NumPy's passages PyTorch's?")
    for row in range(3):
        show(found, row)
    show_replacements(found)
    if options.save:
        save(options.save, found)
    return found


if __name__ == "__main__":
    main()
