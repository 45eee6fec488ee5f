# SPDX-License-Identifier: Apache-2.0
"""Symbolic dims against plain integer arithmetic."""

from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tensorwright.ir.assumed import broadcast_dims
from tensorwright.ir.dim_text import parse_dim
from tensorwright.ir.dims import Dim, Symbol, SymDim, evaluate, high, low, maximum, minimum, product, substitute

Tree = int | str | tuple[str, "Tree", "Tree"]
_SYMBOLIC: dict[str, Callable[[Dim, Dim], Dim]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "min": minimum,
    "max": maximum,
}
_PLAIN: dict[str, Callable[[int, int], int]] = {**_SYMBOLIC, "min": min, "max": max}  # type: ignore[dict-item]

names = st.sampled_from(["n", "m", "batch size", "min", 'a"b'])
trees = st.recursive(
    st.integers(-6, 6) | names, lambda inner: st.tuples(st.sampled_from(sorted(_SYMBOLIC)), inner, inner), max_leaves=8
)
bindings = st.fixed_dictionaries({name: st.integers(-9, 9) for name in ("n", "m", "batch size", "min", 'a"b')})


def build(tree: Tree) -> Dim:
    if isinstance(tree, tuple):
        return _SYMBOLIC[tree[0]](build(tree[1]), build(tree[2]))
    return SymDim.symbol(tree) if isinstance(tree, str) else tree


def direct(tree: Tree, values: dict[str, int]) -> int:
    """The tree's value, without the code under test."""
    if isinstance(tree, tuple):
        return _PLAIN[tree[0]](direct(tree[1], values), direct(tree[2], values))
    return values[tree] if isinstance(tree, str) else tree


def built(tree: Tree) -> Dim:
    try:
        return build(tree)
    except ZeroDivisionError:
        assume(False)
        raise


@settings(max_examples=400, deadline=None)
@given(trees, bindings)
def test_expression_evaluated_equals_integer_arithmetic(tree: Tree, values: dict[str, int]) -> None:
    dim = built(tree)
    try:
        expected = direct(tree, values)
    except ZeroDivisionError:
        assume(False)
    assert evaluate(dim, values) == expected


@settings(max_examples=300, deadline=None)
@given(trees)
def test_expression_as_text_reads_back_equal(tree: Tree) -> None:
    dim = built(tree)
    again = parse_dim(str(dim))
    assert again == dim and hash(again) == hash(dim) and str(again) == str(dim)


@settings(max_examples=200, deadline=None)
@given(trees, trees, trees)
def test_equal_polynomials_have_one_form(a: Tree, b: Tree, c: Tree) -> None:
    x, y, z = built(a), built(b), built(c)
    assert x + y == y + x and x * y == y * x
    assert (x + y) + z == x + (y + z) and x * (y + z) == x * y + x * z
    assert x - x == 0 and x + x == 2 * x
    assert minimum(x, y) == minimum(y, x) and maximum(x, x + 1) == x + 1


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='nm0123456789+-*/%() ,"\\min.max²', max_size=20))
def test_parse_dim_of_any_text_gives_a_dim_or_a_value_error(text: str) -> None:
    try:
        dim = parse_dim(text)
    except ValueError:
        return
    assert parse_dim(str(dim)) == dim


n, m = SymDim.symbol("n"), SymDim.symbol("m")


def test_constant_results_fold_to_ints() -> None:
    assert n - n == 0 and (n * 12 * 64) // n == 768 and (4 * n) % n == 0 and (6 * n) // 3 == 2 * n
    assert (4 * n + 6) // 4 == n + 1 and (4 * n + 3) % 2 == 1 and maximum(n + 3, n) == n + 3
    assert all(isinstance(d, int) for d in (n - n, (4 * n + 3) % 2, product([2, 3]), product([])))


def test_symbols_are_found_inside_atoms() -> None:
    dim = maximum((n + 1) // 2, SymDim.symbol("k") % 3) * m
    assert isinstance(dim, SymDim) and dim.symbols == {"n", "m", "k"}


def test_evaluate_without_a_binding_raises_key_error() -> None:
    with pytest.raises(KeyError):
        n.evaluate({"m": 1})


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [(1, 5, 5), (5, 1, 5), (n, 1, n), (1, n, n), (n, n, n), (n, 4, 4), (4, n, 4), (0, 1, 0), (n, m, maximum(n, m))],
)
def test_broadcast_dims_gives_the_common_dim(a: Dim, b: Dim, expected: Dim) -> None:
    assert broadcast_dims(a, b) == expected


def test_broadcast_dims_that_do_not_fit_says_which() -> None:
    with pytest.raises(ValueError, match="dims 3 and 4 do not broadcast"):
        broadcast_dims(3, 4)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "n+",
        "(n",
        "n)",
        "n n",
        "min(n",
        "n//0",
        "3 %0",
        '"',
        '""',
        "n^2",
        "()",
        "9" * 5000,
        "(" * 500 + "n" + ")" * 500,
        "-" * 500 + "n",
        "*".join(["(a+b+c+d+e+f+g+h+i+j)"] * 9),
    ],
)
def test_parse_dim_of_bad_text_raises_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_dim(text)


_BOUNDED = {name: Symbol(name, low, low, high, i) for i, (name, low, high) in enumerate((("n", 2, 5), ("m", 1, 4)))}
bounded_trees = st.recursive(
    st.integers(-4, 4) | st.sampled_from(sorted(_BOUNDED)),
    lambda inner: st.tuples(st.sampled_from(["+", "-", "*", "min", "max"]), inner, inner),
    max_leaves=7,
)


def every_value(tree: Tree) -> list[int]:
    return [direct(tree, {"n": n, "m": m}) for n in range(2, 6) for m in range(1, 5)]


@given(bounded_trees)
@settings(max_examples=200, deadline=None)
def test_bounds_hold_for_every_value_of_the_symbols(tree: Tree) -> None:
    dim = substitute(build(tree), {name: SymDim.symbol(symbol) for name, symbol in _BOUNDED.items()})
    assert low(dim) <= min(every_value(tree)) <= max(every_value(tree)) <= high(dim)


def test_bounds_of_a_product_of_differences_are_its_extremes() -> None:
    n, m = (SymDim.symbol(symbol) for symbol in _BOUNDED.values())
    area = (n - 2) * (m - 1) * 7
    assert isinstance(area, SymDim) and area.bounds == (0, 63)


def test_calls_are_equal_when_their_text_is_and_know_their_symbols() -> None:
    n, m = (SymDim.symbol(symbol) for symbol in _BOUNDED.values())
    first, second = (n + m - 1) // 3 + maximum(n, m * 2), maximum(m + m, n) + (m - 1 + n) // 3
    assert first == second and hash(first) == hash(second) and first != (n + m - 1) // 3
    assert isinstance(first, SymDim) and first.symbols == {"n", "m"}
