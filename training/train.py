"""Fit the local classifier and write llm_router/data/classifier.bin.

Data: `open.jsonl` (openly licensed sources, kept outside of the repository) and the prompts of this folder. Needs
numpy, scipy and scikit-learn, which the router itself does not.

    python -m training.train --open PATH/open.jsonl [--folds] [--out llm_router/data/classifier.bin]
"""

from __future__ import annotations

import argparse
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_matrix, vstack
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from llm_router.routing.classify_features import bounded, extract
from llm_router.routing.classify_model import dense_names, share_of
from llm_router.routing.turns import read_turns
from training import prompts
from training.weights import dump, read_lexicons

HERE = Path(__file__).parent
CLASSES = ("conversation", "code", "reasoning", "creative")
STEP = 1 / 2048
SEED = 1
COPIES = 6  # of every row, each with other features missing
MISSING = 0.3  # share of the features that a copy lacks
_USUAL = 5.0  # rarity (as a logarithm) of the grams that weigh one; rarer ones weigh more, by its root
WEIGHTS = {"single": 1.0, "weak": 0.25, "agent-real": 1.0, "paste": 1.0}  # kinds of rows that are read


@dataclass(frozen=True, slots=True)
class Row:
    """One text to learn from; `family` are the sources that are left out together, `clear` has one right label."""

    text: str
    label: str
    family: str
    weight: float
    clear: bool = True


def open_rows(path: Path) -> Iterator[Row]:
    """Rows of the openly licensed file, by family of sources."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["label"] not in CLASSES or row["kind"] not in WEIGHTS:
            continue
        turns = read_turns(row["request"]["messages"])
        weight = WEIGHTS[row["kind"]] * (0.5 if row["accept"] else 1.0)
        yield Row(turns.latest, row["label"], re.split(r"[-_]", row["source"])[0], weight, not row["accept"])


def own_rows() -> Iterator[Row]:
    """The prompts of this folder."""
    for text, label, family, weight in prompts.rows():
        yield Row(text, label, "own-" + family, weight)


@dataclass(slots=True)
class Table:
    """Rows as a sparse matrix over named features."""

    names: list[str]
    grams: int
    scale: np.ndarray
    matrix: csr_matrix


def table(
    texts: Sequence[str], lexicon: dict[str, tuple[int, ...]], groups: int, dense_scale: float, least: int
) -> Table:
    """Features of the texts; grams that fewer than `least` texts have are dropped."""
    rows: list[tuple[set[str], list[str]]] = []
    frequency: Counter[str] = Counter()
    dense_frequency: Counter[str] = Counter()
    for text in texts:
        features = extract(bounded(text), lexicon)
        dense = dense_names(features, groups)
        rows.append((features.grams, dense))
        frequency.update(features.grams)
        dense_frequency.update(set(dense))
    names = sorted(name for name, count in frequency.items() if count >= least and "\n" not in name)
    grams = len(names)
    names += sorted((n for n, c in dense_frequency.items() if c >= 4), key=lambda name: ("&" in name, name))
    index = {name: i for i, name in enumerate(names)}
    scale = np.array(
        [math.sqrt(math.log(len(texts) / frequency[name]) / _USUAL) for name in names[:grams]]
        + [dense_scale * (0.5 if "&" in name else 1.0) for name in names[grams:]]
    )
    data, columns, starts = [], [], [0]
    for gram_set, dense in rows:
        for names_here, share in ((gram_set, share_of(len(gram_set))), (dense, 1.0)):
            here = [i for i in map(index.get, names_here) if i is not None]
            columns += here
            data += [share * scale[i] for i in here]
        starts.append(len(columns))
    matrix = csr_matrix((np.array(data, dtype=np.float64), columns, starts), shape=(len(rows), len(names)))
    matrix.sort_indices()  # sets are walked in another order every time, and sums depend on it
    return Table(names, grams, scale, matrix)


def balance(rows: Sequence[Row]) -> np.ndarray:
    """Weights so that a large source does not drown small ones, and classes weigh about the same."""
    source = Counter((row.family, row.label) for row in rows)
    weights = np.array([row.weight * source[row.family, row.label] ** -0.25 for row in rows])
    totals = {label: sum(w for w, r in zip(weights, rows, strict=True) if r.label == label) for label in CLASSES}
    share = {"conversation": 1.75, "code": 1.0, "reasoning": 1.0, "creative": 1.0}
    factor = {label: share[label] / max(total, 1e-9) for label, total in totals.items()}
    weights *= np.array([factor[row.label] for row in rows])
    return weights * len(rows) / weights.sum()


def fit(matrix: csr_matrix, labels: np.ndarray, weights: np.ndarray, c: float) -> LogisticRegression:
    """Multinomial logistic regression over the rows and copies of them that lack some of their features.

    No feature may lean on another one's being there: prompts that are new share few of them with those known.
    """
    chance = np.random.default_rng(SEED)
    model = LogisticRegression(C=c, max_iter=400, tol=1e-4)
    rows = vstack([matrix, *(_thinned(matrix, chance) for _ in range(COPIES))]).tocsr()
    with threadpool_limits(1):  # several threads add up in another order
        model.fit(rows, np.tile(labels, COPIES + 1), sample_weight=np.tile(weights, COPIES + 1) / (COPIES + 1))
    return model


def _thinned(matrix: csr_matrix, chance: np.random.Generator) -> csr_matrix:
    """A copy without some of the features, those that stay made up for it."""
    thin = matrix.copy()
    thin.data = np.where(chance.random(thin.nnz) < MISSING, 0.0, thin.data / (1 - MISSING))
    thin.eliminate_zeros()
    return thin


def pruned(data: Table, model: LogisticRegression, sample: np.ndarray, most: int) -> Table:
    """The features that weigh most. What is fitted on them alone makes up for the many small ones that are gone."""
    spread = np.sqrt(np.asarray(data.matrix.multiply(data.matrix).multiply(sample[:, None]).sum(axis=0)).ravel())
    importance = np.abs(model.coef_ - model.coef_.mean(axis=0)).max(axis=0) * spread
    importance[data.grams :] += 1e9
    kept = np.sort(np.argsort(-importance, kind="stable")[:most])
    names = [data.names[i] for i in kept]
    return Table(names, int((kept < data.grams).sum()), data.scale[kept], data.matrix[:, kept])


def fold_of(family: str, folds: int) -> int:
    return zlib.crc32(family.encode()) % folds


def scores_out_of_source(data: Table, rows: Sequence[Row], c: float, folds: int) -> np.ndarray:
    """Log-odds of every row from a model that has not seen its family of sources."""
    out = np.zeros((len(rows), len(CLASSES)))
    where = np.array([fold_of(row.family, folds) for row in rows])
    labels = np.array([row.label for row in rows])
    for fold in range(folds):
        train, test = where != fold, where == fold
        if not test.any():
            continue
        model = fit(data.matrix[train], labels[train], balance([r for r, t in zip(rows, train, strict=True) if t]), c)
        order = [list(model.classes_).index(name) for name in CLASSES]
        out[test] = model.decision_function(data.matrix[test])[:, order]
    return out


def temperature_of(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """The temperature at which the scores are the best probabilities."""

    def loss(temperature: float) -> float:
        scaled = scores / temperature
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        log = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
        return float(-(weights * log[np.arange(len(labels)), labels]).sum() / weights.sum())

    return float(minimize_scalar(loss, bounds=(0.3, 5), method="bounded").x)


def main() -> None:
    """Read, fit, report, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--open", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=HERE.parent / "llm_router" / "data" / "classifier.bin")
    parser.add_argument("--c", type=float, default=6.0)
    parser.add_argument("--dense", type=float, default=0.3)
    parser.add_argument("--least", type=int, default=2)
    # Up to 21,845 names the router's dictionary of them is half as large as with one more.
    parser.add_argument("--rows", type=int, default=20_900)
    parser.add_argument("--folds", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=0.93)
    args = parser.parse_args()
    groups, lexicon = read_lexicons(HERE / "lexicons.txt")
    rows = [*open_rows(args.open), *own_rows()]
    print(len(rows), "rows", Counter(row.label for row in rows))
    data = table([row.text for row in rows], lexicon, len(groups), args.dense, args.least)
    labels = np.array([row.label for row in rows])
    temperature = args.temperature
    if args.folds:
        temperature = report(data, rows, args.c, args.folds)
    weights = balance(rows)
    data = pruned(data, fit(data.matrix, labels, weights, args.c), weights, args.rows)
    model = fit(data.matrix, labels, weights, args.c)
    write(args.out, model, data, groups, lexicon, temperature)


def report(data: Table, rows: Sequence[Row], c: float, folds: int) -> float:
    """Print how right models are about families that they have not seen; give the temperature."""
    scores = scores_out_of_source(data, rows, c, folds)
    truth = np.array([CLASSES.index(row.label) for row in rows])
    weights = balance(rows) * np.array([row.family != "own-followups" for row in rows])
    temperature = temperature_of(scores, truth, weights)
    clear = np.array([row.clear and not row.family.startswith("own-") for row in rows])
    right = scores.argmax(axis=1) == truth
    for family in sorted({row.family for row, is_clear in zip(rows, clear, strict=True) if is_clear}):
        here = clear & np.array([row.family == family for row in rows])
        print(f"  {family:16s} n={here.sum():5d} {100 * right[here].mean():5.1f}%")
    print(f"open sources, left out: {measures(scores[clear] / temperature, truth[clear])}")
    own = np.array([row.family.startswith("own-") and row.family != "own-followups" for row in rows])
    print(f"own prompts, left out: {measures(scores[own] / temperature, truth[own])}")
    print(f"temperature {temperature:.2f}")
    return temperature


def measures(scores: np.ndarray, truth: np.ndarray) -> str:
    """Accuracy, F1 by class, calibration."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    guess, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right = guess == truth
    f1 = []
    for number, name in enumerate(CLASSES):
        hits = ((guess == number) & (truth == number)).sum()
        total = (guess == number).sum() + (truth == number).sum()
        f1.append(f"{name} {200 * hits / max(1, total):.1f}")
    surest = np.argsort(-sure)[: len(sure) * 8 // 10]
    bins = np.minimum(9, (sure * 10).astype(int))
    gaps = [abs(sure[bins == b].sum() - right[bins == b].sum()) for b in range(10)]
    return (
        f"n={len(truth)} right {100 * right.mean():.1f}%, F1 {', '.join(f1)}, "
        f"surest 80% {100 * right[surest].mean():.1f}%, calibration error {100 * sum(gaps) / len(truth):.1f}"
    )


def write(
    path: Path,
    model: LogisticRegression,
    data: Table,
    groups: Sequence[tuple[str, str]],
    lexicon: dict[str, tuple[int, ...]],
    temperature: float,
) -> None:
    """Quantise, write."""
    order = [list(model.classes_).index(name) for name in CLASSES]
    weights = model.coef_[order] * data.scale
    weights = weights[1:] - weights[0]
    bias = model.intercept_[order]
    count = np.asarray((data.matrix > 0).sum(axis=0)).ravel()
    kept = [i for i in range(len(data.names)) if np.abs(weights[:, i]).max() > STEP]
    names = [data.names[i] for i in kept]
    clipped = np.clip(np.round(weights[:, kept] / STEP), -32767, 32767).astype(int)
    header = {
        "version": 1,
        "classes": CLASSES,
        "groups": [description for _, description in groups],
        "followup": [name for name, _ in groups].index("followup"),
        "temperature": round(temperature, 4),
        "step": STEP,
        "bias": [round(float(b), 5) for b in (bias[1:] - bias[0])],
        "first_pair": next((n for n, i in enumerate(kept) if i >= data.grams and "&" in data.names[i]), len(names)),
    }
    size = data.matrix.shape[0]
    rarities = bytes(round(255 * math.log(size / max(1, count[i])) / math.log(size)) for i in kept)
    blob = dump(header, names, lexicon, clipped.tolist(), rarities)
    path.write_bytes(blob)
    print(f"{path}: {len(names)} features, {len(blob)} bytes")


if __name__ == "__main__":
    main()
