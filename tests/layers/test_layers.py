# SPDX-License-Identifier: Apache-2.0
"""Imports point backwards along the road of a network, so that each part can be read (and shipped) without the next."""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Iterator

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[2] / "src" / "tensorwright"

# A module may import its own layer and those before it. Where two lines could trade places, the order is free.
ROAD = (
    "errors",
    "knobs",
    "memory",
    "shapes",
    "ir",
    "ops",
    "network",
    "importers",
    "passes",
    "backends.base",
    "lower",
    "plan",
    "backends",
    "tune",
    "runtime",
    "builder",
    "surgeon",
    "compare",
    "cli",
)
# What a process needs that only loads and runs plans, on the target they were built for.
RUNTIME_MAY_IMPORT = (
    "errors",
    "knobs",
    "memory",
    "shapes",
    "ir.dim_text",
    "ir.dims",
    "ir.dtype",
    "ir.op",
    "plan",
    "runtime",
    "backends.cpu.launch",
)
# A plan from another target is generated again: the one place where the runtime reaches forward, when it must.
REACHES_FORWARD = {("runtime", "builder")}


def modules() -> list[pathlib.Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def name_of(path: pathlib.Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: pathlib.Path, *, lazy: bool) -> Iterator[tuple[str, int]]:
    """(module inside tensorwright, line) of each import that runs; `lazy` adds those inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    typing_only = {id(node) for block in blocks for statement in block.body for node in ast.walk(statement)}
    for node in ast.walk(tree) if lazy else tree.body:
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "tensorwright":
            base = node.module.removeprefix("tensorwright").removeprefix(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".removeprefix(".")
                yield (inner if is_module(inner) else base), node.lineno
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "tensorwright":
                    yield alias.name.removeprefix("tensorwright").removeprefix("."), node.lineno


def is_module(name: str) -> bool:
    stem = PACKAGE / name.replace(".", "/")
    return stem.is_dir() or stem.with_suffix(".py").exists()


def layer(module: str) -> int:
    """Position on the road: the longest entry that the module name begins with."""
    fits = [name for name in ROAD if module == name or module.startswith(name + ".")]
    assert fits, f"tensorwright.{module} has no place on the road: add its folder to ROAD"
    return ROAD.index(max(fits, key=len))


def test_road_names_exist() -> None:
    for name in ROAD:
        assert is_module(name), f"{name} is on the road but not in the package"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_module_imports_point_backwards(path: pathlib.Path) -> None:
    module = name_of(path)
    wrong = [
        f"line {line}: {target}"
        for target, line in imports(path, lazy=True)
        if target
        and layer(target) > layer(module)
        and (module.split(".")[0], target.split(".")[0]) not in REACHES_FORWARD
    ]
    assert not wrong, f"{module} imports what comes after it: {'; '.join(wrong)}"


@pytest.mark.parametrize("path", [p for p in modules() if name_of(p).split(".")[0] == "runtime"], ids=name_of)
def test_runtime_at_import_needs_no_builder(path: pathlib.Path) -> None:
    wrong = [
        f"line {line}: {target}"
        for target, line in imports(path, lazy=False)
        if target and not any(target == name or target.startswith(name + ".") for name in RUNTIME_MAY_IMPORT)
    ]
    assert not wrong, f"{name_of(path)} imports {'; '.join(wrong)}"


def test_library_outside_cli_imports_no_cli_packages() -> None:
    wrong = [
        f"{name_of(path)}:{node.lineno}"
        for path in modules()
        if name_of(path).split(".")[0] != "cli"
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        and {"typer", "rich"}
        & {(alias.name if isinstance(node, ast.Import) else node.module or "").split(".")[0] for alias in node.names}
    ]
    assert not wrong, f"imported at import time: {wrong}"
