# SPDX-License-Identifier: Apache-2.0
"""Object code made callable in this process."""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm

from tensorwright.errors import InternalError


class LoadedCode:
    """Owns executable memory of object files that may call each other. Keep it alive while code may run."""

    def __init__(self, *objects: bytes) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine(reloc="pic", codemodel="small", jit=True)
        self._engine: Any = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        for code in objects:
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()

    def address(self, symbol: str) -> int:
        """Address of a function. Raises InternalError when the object does not define it."""
        address = int(self._engine.get_function_address(symbol))
        if not address:
            raise InternalError(f"generated code has no function {symbol!r}")
        return address

    def close(self) -> None:
        """Free the executable memory; no function of it may run any more."""
        self._engine.close()
