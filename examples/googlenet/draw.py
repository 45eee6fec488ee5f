# SPDX-License-Identifier: Apache-2.0
"""Pictures of graphs as SVG: boxes in layers, edges downwards, several graphs side by side.

The layout is Sugiyama's: each box goes as far up as its inputs allow, edges that skip layers get a place in each, boxes
are ordered by where their neighbours are, then moved as near to them as the order allows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

BOX_WIDTH, BOX_HEIGHT, COLUMN, ROW, MARGIN, TITLE = 184, 40, 200, 68, 24, 46
COLOURS = {"data": "#e8e8e8", "convolution": "#cfe2ff", "relu": "#d7f0d2", "max_pool": "#ffe3c2", "other": "#f3f3f3"}


@dataclass(frozen=True)
class Box:
    """A box: what it says (a bold line and a plain one), what colour it has, what it reads. A dashed one is no step."""

    title: str
    detail: str
    colour: str
    reads: tuple[str, ...] = ()
    dashed: bool = False


@dataclass
class Layout:
    """Where everything is: the centre of each box, and the points of each edge from the lower end of one to the upper
    end of another."""

    centres: dict[str, tuple[float, float]]
    edges: list[list[tuple[float, float]]]
    width: float
    height: float


def svg(panels: Sequence[tuple[str, Mapping[str, Box]]]) -> str:
    """A picture of graphs, each with a title and its boxes by name; those that come first are further to the left."""
    parts: list[str] = []
    left, height = float(MARGIN), 0.0
    for title, boxes in panels:
        layout = lay_out(boxes)
        width = max(layout.width, 9.0 * len(title))
        parts.append(f'<g transform="translate({left:.0f} {MARGIN})">')
        parts.append(f'<text class="title" x="{width / 2:.0f}" y="14">{escape(title)}</text>')
        parts.append(f'<g transform="translate({(width - layout.width) / 2:.0f} {TITLE})">')
        parts += [_path(points) for points in layout.edges]
        parts += [_box(box, *layout.centres[name]) for name, box in boxes.items()]
        parts.append("</g></g>")
        left, height = left + width + 2 * MARGIN, max(height, layout.height)
    total = (left - MARGIN, height + TITLE + 2 * MARGIN)
    return "\n".join([_head(*total), *parts, "</svg>", ""])


def lay_out(boxes: Mapping[str, Box]) -> Layout:
    """The places of boxes and edges."""
    depth: dict[str, int] = {}
    for name in boxes:
        _descend(name, boxes, depth)
    layers: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    up: dict[str, list[str]] = {}
    chains: list[list[str]] = []  # of each edge, the names of both ends and of its places in the layers between
    for name, box in boxes.items():
        layers[depth[name]].append(name)
        up[name] = []
        for read in box.reads:
            between = [f"{read} > {name} {level}" for level in range(depth[read] + 1, depth[name])]
            chain = [read, *between, name]
            chains.append(chain)
            for level, place in enumerate(between, depth[read] + 1):
                layers[level].append(place)
                up[place] = []
            for above, below in zip(chain, chain[1:], strict=False):
                up[below].append(above)
    down: dict[str, list[str]] = {name: [] for name in up}
    for name, above in up.items():
        for other in above:
            down[other].append(name)
    x = _columns(layers, up, down)
    low = min(x.values())
    centres = {n: ((x[n] - low) * COLUMN + BOX_WIDTH / 2, depth[n] * ROW + BOX_HEIGHT / 2) for n in boxes}
    return Layout(
        centres,
        [_points(chain, centres, x, low, depth[chain[0]]) for chain in chains],
        (max(x.values()) - low) * COLUMN + BOX_WIDTH,
        (len(layers) - 1) * ROW + BOX_HEIGHT,
    )


def _descend(name: str, boxes: Mapping[str, Box], depth: dict[str, int]) -> int:
    """The layer of a box: the one below the lowest of those it reads."""
    if name not in depth:
        depth[name] = max((_descend(read, boxes, depth) + 1 for read in boxes[name].reads), default=0)
    return depth[name]


def _columns(
    layers: Sequence[list[str]], up: Mapping[str, Sequence[str]], down: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """The column of each place: layers are sorted by the mean place of neighbours, then drawn towards them."""
    x = {name: float(i) for layer in layers for i, name in enumerate(layer)}
    for sweep in range(8):
        neighbours = up if sweep % 2 == 0 else down
        for layer in layers:
            layer.sort(key=lambda name: _mean([x[n] for n in neighbours[name]], x[name]))
            x.update((name, float(i)) for i, name in enumerate(layer))
    for _ in range(60):
        for layer in layers:
            wanted = [_mean([x[n] for n in (*up[name], *down[name])], x[name]) for name in layer]
            x.update(zip(layer, _apart(wanted), strict=True))
    return x


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _apart(wanted: Sequence[float]) -> list[float]:
    """The nearest places (least squares) that keep the order and are at least 1 apart: isotonic regression."""
    blocks: list[list[float]] = []  # sum and number of the offsets that have one value
    for i, place in enumerate(wanted):
        blocks.append([place - i, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    offsets = [total / count for total, count in blocks for _ in range(int(count))]
    return [offset + i for i, offset in enumerate(offsets)]


def _points(
    chain: Sequence[str], centres: Mapping[str, tuple[float, float]], x: Mapping[str, float], low: float, depth: int
) -> list[tuple[float, float]]:
    (x0, y0), (x1, y1) = centres[chain[0]], centres[chain[-1]]
    points = [(x0, y0 + BOX_HEIGHT / 2)]
    for level, place in enumerate(chain[1:-1], depth + 1):
        at = (x[place] - low) * COLUMN + BOX_WIDTH / 2
        points += [(at, level * ROW), (at, level * ROW + BOX_HEIGHT)]
    return [*points, (x1, y1 - BOX_HEIGHT / 2)]


# -- SVG --------------------------------------------------------------------------------------------
def _head(width: float, height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="Helvetica, Arial, sans-serif" text-anchor="middle">\n'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0.5 L8 4 L0 7.5 z" fill="#555"/></marker></defs>\n'
        "<style>.title{font-size:16px;font-weight:bold}.op{font-size:12px;font-weight:bold}"
        ".detail{font-size:10px;fill:#444}.edge{fill:none;stroke:#555;stroke-width:1.2}"
        ".box{stroke:#555;stroke-width:1}.view{stroke-dasharray:4 3;stroke:#999}</style>\n"
        '<rect width="100%" height="100%" fill="white"/>'
    )


def _box(box: Box, x: float, y: float) -> str:
    shape = "box view" if box.dashed else "box"
    fill = "white" if box.dashed else COLOURS.get(box.colour, COLOURS["other"])
    return (
        f'<rect class="{shape}" x="{x - BOX_WIDTH / 2:.1f}" y="{y - BOX_HEIGHT / 2:.1f}" width="{BOX_WIDTH}" '
        f'height="{BOX_HEIGHT}" rx="5" fill="{fill}"/>'
        f'<text class="op" x="{x:.1f}" y="{y - 3:.1f}">{escape(box.title)}</text>'
        f'<text class="detail" x="{x:.1f}" y="{y + 12:.1f}">{escape(box.detail)}</text>'
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    """A curve that leaves and enters vertically."""
    (x, y), *rest = points
    text = f"M{x:.1f} {y:.1f}"
    for x1, y1 in rest:
        middle = (y + y1) / 2
        text += f" C{x:.1f} {middle:.1f} {x1:.1f} {middle:.1f} {x1:.1f} {y1:.1f}"
        x, y = x1, y1
    return f'<path class="edge" marker-end="url(#tip)" d="{text}"/>'
