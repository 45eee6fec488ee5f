# SPDX-License-Identifier: Apache-2.0
"""LLVM IR text to object code, and object code to callable addresses, through llvmlite."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections import OrderedDict
from typing import Any, Final

import llvmlite.binding as llvm

from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.errors import InternalError

_LOCK = threading.Lock()  # LLVM's target machine is not thread-safe


@functools.cache
def _initialise() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@functools.cache
def _machine(target: CpuTarget) -> Any:
    _initialise()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="small"
    )


def _pass_manager(machine: Any) -> Any:
    """Scalar clean-up only: kernels come unrolled and vectorised, so loop passes would just cost time."""
    manager = llvm.create_new_function_pass_manager()
    manager.add_sroa_pass()
    manager.add_simplify_cfg_pass()
    manager.add_instruction_combine_pass()
    manager.add_new_gvn_pass()
    manager.add_simplify_cfg_pass()
    return manager


def compile_object(ir_text: str, target: CpuTarget) -> bytes:
    """Object code of one module for `target`.

    Raises InternalError when LLVM refuses the text: emitted code must always be valid.
    """
    attributes = f'attributes #0 = {{ nounwind "target-cpu"="{target.cpu}" "target-features"="{target.features}" }}\n'
    with _LOCK:
        machine = _machine(target)
        try:
            module = llvm.parse_assembly(f'target triple = "{target.triple}"\n{ir_text}\n{attributes}')
            module.verify()
        except RuntimeError as error:
            raise InternalError(f"LLVM refused generated code: {error}") from error
        manager, builder = (
            _pass_manager(machine),
            llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()),
        )
        for function in module.functions:
            if not function.is_declaration:
                manager.run(function, builder)
        return bytes(machine.emit_object(module))


# -- compiled code by content -------------------------------------------------------------------------
class _ObjectCache:
    """Object code of the modules compiled last, by content, up to `limit_bytes`."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit, self._size = limit_bytes, 0
        self._objects: OrderedDict[tuple[bytes, CpuTarget], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, ir: str, target: CpuTarget) -> bytes:
        key = hashlib.blake2b(ir.encode(), digest_size=32).digest(), target
        with self._lock:
            if key in self._objects:
                self._objects.move_to_end(key)
                return self._objects[key]
        code = compile_object(ir, target)
        with self._lock:
            self._size += len(code) - len(self._objects.pop(key, b""))
            self._objects[key] = code
            while self._size > self._limit:
                self._size -= len(self._objects.popitem(last=False)[1])
        return code


_OBJECTS: Final = _ObjectCache(32 << 20)


def compile_cached(ir: str, target: CpuTarget) -> bytes:
    """Object code of IR text; equal text is compiled once per process (within a bound of 32 MiB of code)."""
    return _OBJECTS.get(ir, target)
