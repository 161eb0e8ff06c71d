#!/usr/bin/env python3
"""Draws docs/demo.svg: the mesh of `make demo`, and below it what the demo printed.

    make demo | tee target/demo.txt && docs/picture.py target/demo.txt
"""
import pathlib
import re
import sys
import textwrap
from xml.sax.saxutils import escape

COLUMNS = 150
WIDTH, PADDING, LINE, CHAR = 1180, 24, 19, 7.82
SANS = "font-family='Inter,Helvetica,Arial,DejaVu Sans,sans-serif'"
MONO = "font-family='ui-monospace,SFMono-Regular,Menlo,DejaVu Sans Mono,monospace'"
BACK, PANEL, EDGE, TEXT, DIM = "#0d1b2a", "#14273c", "#3a5a7c", "#e6edf3", "#8aa4bf"
SIDECAR, AGENT, GREEN, YELLOW = "#1f6f8b", "#23415f", "#7ee787", "#f2cc60"


def text(x, y, words, size=14, colour=TEXT, anchor="start", font=SANS, weight="normal"):
    return (f"<text x='{x}' y='{y}' {font} font-size='{size}' fill='{colour}' text-anchor='{anchor}' "
            f"font-weight='{weight}' xml:space='preserve'>{escape(words)}</text>")


def box(x, y, w, h, fill, lines):
    middle = y + h / 2 - (len(lines) - 1) * 9 + 5
    out = [f"<rect x='{x}' y='{y}' width='{w}' height='{h}' rx='7' fill='{fill}' stroke='{EDGE}'/>"]
    for number, (words, size, colour) in enumerate(lines):
        out.append(text(x + w / 2, middle + number * 18, words, size, colour, "middle"))
    return out


def pair(x, y, name, note, turned=False):
    """An agent and the sidecar beside it."""
    agent = [(name, 14, TEXT), (note, 11, DIM)]
    proxy = [("pilotfish-proxy", 13, TEXT)]
    first, second = (agent, proxy) if not turned else (proxy, agent)
    return (box(x, y, 132, 48, AGENT if not turned else SIDECAR, first)
            + arrow(x + 132, y + 24, x + 152, y + 24)
            + box(x + 152, y, 132, 48, SIDECAR if not turned else AGENT, second))


def arrow(x1, y1, x2, y2, colour=TEXT, dash=""):
    dash = f" stroke-dasharray='{dash}'" if dash else ""
    return [f"<path d='M{x1},{y1} C{(x1 + x2) / 2},{y1} {(x1 + x2) / 2},{y2} {x2 - 4},{y2}' fill='none' "
            f"stroke='{colour}' stroke-width='1.6'{dash} marker-end='url(#tip)'/>"]


def diagram():
    left, right, top = 60, 836, 28
    rows = [("nlp-v1-a", "v1"), ("nlp-v1-b", "v1"), ("nlp-v2-a", "v2"), ("nlp-v2-b", "v2"), ("streaming-agent", "tokens, WebSocket")]
    out = pair(left, top + 128, "caller", "any language")
    out.append(text(left + 142, top + 116, "an HTTP call, as it always was", 12, DIM, "middle"))
    for number, (name, note) in enumerate(rows):
        y = top + number * 64
        out += arrow(left + 284, top + 152, right, y + 24, TEXT if number < 4 else GREEN)
        out += pair(right, y, name, note, turned=True)
    labels = [(14, "agent-type: nlp-agent  →  v1, 80 %"), (140, "the same  →  v2, 20 %"), (268, "communication-pattern: streaming")]
    for y, words in labels:
        out.append(f"<rect x='530' y='{top + y}' width='250' height='24' rx='12' fill='{BACK}' stroke='{EDGE}'/>")
        out.append(text(655, top + y + 16, words, 12, GREEN if "streaming" in words else TEXT, "middle"))
    y = top + 262
    out += box(left, y, 284, 50, PANEL, [("pilotfish serve", 14, TEXT), ("identities, who can do what, rules", 11, DIM)])
    dashed = f"fill='none' stroke='{DIM}' stroke-width='1.4' stroke-dasharray='4 4' marker-end='url(#tip)'"
    out.append(f"<path d='M{left + 218},{y} L{left + 218},{top + 182}' {dashed}/>")
    out.append(f"<path d='M{left + 284},{y + 34} C560,{y + 60} 700,{y + 56} {right - 4},{y + 30}' {dashed}/>")
    out.append(text(600, y + 66, "one stream to each sidecar", 11, DIM, "middle"))
    out.append(text(430, top + 112, "mutual TLS", 12, DIM, "middle"))
    return out, top + 5 * 64 + 20


def terminal(lines, top):
    out = [f"<rect x='{PADDING}' y='{top}' width='{WIDTH - 2 * PADDING}' height='{len(lines) * LINE + 30}' rx='8' fill='#010409' stroke='{EDGE}'/>"]
    size = min(13, (WIDTH - 2 * PADDING - 32) / max(map(len, lines)) / 0.602)
    for number, line in enumerate(lines):
        colour, weight = TEXT, "normal"
        if line.startswith("$"):
            colour = GREEN
        elif line.startswith("["):
            colour = DIM
        elif re.match(r"[A-Z]{4,}[A-Z ]*(  |$)", line):
            weight = "bold"
        elif "refused" in line or ": error:" in line:
            colour = YELLOW
        out.append(text(PADDING + 16, top + 27 + number * LINE, line, round(size, 2), colour, font=MONO, weight=weight))
    return out, top + len(lines) * LINE + 30


def main():
    printed = pathlib.Path(sys.argv[1]).read_text().rstrip().splitlines()
    printed = [line for line in printed if not line.startswith("demo: ")]
    # Sentences are folded as a terminal folds them; tables are not so wide.
    printed = [part for line in printed for part in textwrap.wrap(line, COLUMNS, subsequent_indent="    ", drop_whitespace=False) or [""]]
    body, bottom = diagram()
    shown, bottom = terminal(["$ make demo", *printed], bottom + 28)
    height = bottom + PADDING
    tip = (f"<defs><marker id='tip' viewBox='0 0 8 8' refX='6' refY='4' markerWidth='7' markerHeight='7' orient='auto'>"
           f"<path d='M0,0 L8,4 L0,8 z' fill='{DIM}'/></marker></defs>")
    svg = (f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' height='{height}'>{tip}"
           f"<rect width='{WIDTH}' height='{height}' rx='10' fill='{BACK}'/>" + "\n".join(body + shown) + "</svg>\n")
    pathlib.Path(__file__).with_name("demo.svg").write_text(svg)


main()
