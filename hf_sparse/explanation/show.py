"""Explanations for people: lines in a terminal, and pages without anything from elsewhere."""

import os
import sys
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from hf_sparse.explanation.explain import Explanation, NgramContribution

_GREEN, _RED, _PLAIN = "\033[32m", "\033[31m", "\033[0m"
_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.6 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
section { margin-bottom: 3rem; }
.words span { padding: 0.1em 0.15em; border-radius: 0.2em; color: #111; }
table { border-collapse: collapse; }
th, td { padding: 0.15rem 0.8rem; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.for { color: #1a7f37; } .against { color: #cf222e; }
"""


def format_explanations(result: Mapping[str, Any]) -> str:
    """Return what `explain` found as lines for a terminal, in colour if it is one."""
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    if "labels" in result:
        blocks = [
            "\n".join([f"{name}:", *_sides(sides["for"], sides["against"], coloured)])
            for name, sides in result["labels"].items()
        ]
    else:
        blocks = [_text_block(item, top=result["top"], coloured=coloured) for item in result["texts"]]
    return "\n\n".join(blocks)


def _text_block(item: Mapping[str, Any], *, top: int, coloured: bool) -> str:
    probability = "" if item["probability"] is None else f" ({item['probability']:.3f})"
    parts = f"logit {item['logit']:+.3f} = {item['baseline']:+.3f} without n-grams {_total(item):+.3f} by n-grams"
    residual = f" {item['residual']:+.4f} residual"
    for_it = [one for one in item["ngrams"] if one["contribution"] > 0][:top]
    against = [one for one in item["ngrams"] if one["contribution"] < 0][:top]
    parted = [word["word"] for word in item["words"]]
    if item["second"] is not None:
        parted.insert(item["second"], "|")
    words = " ".join(parted)
    shown = words if len(words) <= 200 else words[:199] + "…"
    return "\n".join([shown, f"{item['label']}{probability}: {parts}{residual}", *_sides(for_it, against, coloured)])


def _total(item: Mapping[str, Any]) -> float:
    return float(sum(one["contribution"] for one in item["ngrams"]))


def _sides(for_it: Sequence[Mapping[str, Any]], against: Sequence[Mapping[str, Any]], coloured: bool) -> list[str]:
    lines = []
    for items, colour in ((for_it, _GREEN), (against, _RED)):
        for item in items:
            line = f"  {item['contribution']:+9.4f}  {item['count']:>6} x  {item['ngram']}"
            lines.append(f"{colour}{line}{_PLAIN}" if coloured else line)
    return lines


def text_page(explanations: Sequence[Explanation], *, top: int) -> str:
    """Return a page that shows each text with its words coloured, and its `top` n-grams on either side."""
    return _page("Explanations", "\n".join(text_section(item, top=top) for item in explanations))


def label_page(labels: Mapping[str, Mapping[str, Sequence[NgramContribution]]], *, num_texts: int) -> str:
    """Return a page with a table of n-grams for each label."""
    sections = []
    for name, sides in labels.items():
        rows = [*sides["for"], *sides["against"]]
        caption = f"mean contribution over {num_texts:,} texts"
        sections.append(f"<section><h2>{_safe(name)}</h2>{_table(rows, caption)}</section>")
    return _page("What the labels rest on", "\n".join(sections))


def text_section(item: Explanation, *, top: int, title: str | None = None) -> str:
    """Return the part of a page that shows a text with its words coloured, and its `top` n-grams on either side.

    Args:
        item: The explanation.
        top: N-grams on either side.
        title: Of the part; None takes label and probability.
    """
    largest = max((abs(value) for _, value in item.words), default=0.0) or 1.0
    words = [_word(word, value, largest) for word, value in item.words]
    if item.second is not None:
        words.insert(item.second, "<hr>")
    for_it = [one for one in item.ngrams if one.contribution > 0][:top]
    against = [one for one in item.ngrams if one.contribution < 0][:top]
    probability = "" if item.probability is None else f", probability {item.probability:.3f}"
    total = sum(one.contribution for one in item.ngrams)
    sum_up = (
        f"logit {item.logit:+.4f} = {item.baseline:+.4f} without n-grams {total:+.4f} by n-grams "
        f"{item.residual:+.4f} residual"
    )
    return (
        f"<section><h2>{_safe(title or item.label + probability)}</h2><div class='words'>{' '.join(words)}</div>"
        f"<p>{sum_up}</p>{_table([*for_it, *against], 'contribution to the logit')}</section>"
    )


def every_ngram(item: Explanation, *, most: int) -> str:
    """Return a part of a page with every n-gram of a text, coloured by its contribution, the strongest first.

    Args:
        item: The explanation.
        most: N-grams at the most; how many more there are is said.
    """
    ranked = sorted(item.ngrams, key=lambda one: -abs(one.contribution))
    largest = max((abs(one.contribution) for one in ranked), default=0.0) or 1.0
    spans = [
        f"<li>{_word(one.ngram, one.contribution, largest)} <small>{one.contribution:+.3f}</small></li>"
        for one in ranked[:most]
    ]
    rest = f"<p>and {len(ranked) - most:,} more, each of which contributes less</p>" if len(ranked) > most else ""
    title = f"All {len(ranked):,} n-grams, the strongest first"
    return f"<details><summary>{title}</summary><ul class='words ngrams'>{''.join(spans)}</ul>{rest}</details>"


def _word(word: str, value: float, largest: float) -> str:
    strength = min(1.0, abs(value) / largest)
    colour = "26, 127, 55" if value > 0 else "207, 34, 46"
    # Light enough for black letters; on a dark page too, since the white below shows through nowhere else.
    style = f"background: color-mix(in srgb, rgb({colour}) {round(60 * strength)}%, white)"
    return f'<span style="{style}" title="{value:+.4f}">{_safe(word)}</span>'


def _table(rows: Sequence[NgramContribution], caption: str) -> str:
    body = "".join(
        f"<tr><td class='number {'for' if row.contribution > 0 else 'against'}'>{row.contribution:+.4f}</td>"
        f"<td class='number'>{row.count:,}</td><td>{_safe(row.ngram)}</td></tr>"
        for row in rows
    )
    head = "<tr><th scope='col'>contribution</th><th scope='col'>times</th><th scope='col'>n-gram</th></tr>"
    return f"<table><caption>{caption}</caption><thead>{head}</thead><tbody>{body}</tbody></table>"


def _safe(text: str) -> str:
    """Return a text for a page; what is no character (a lone surrogate) is a question mark."""
    return escape(text.encode("utf-8", "replace").decode("utf-8"))


def _page(title: str, body: str) -> str:
    return (
        f"<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><title>{title}</title>"
        f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style></head>"
        f"<body><h1>{title}</h1>\n{body}\n</body></html>\n"
    )
