# SPDX-License-Identifier: Apache-2.0
"""The CPU: probing it, emitting LLVM IR, kernel families, assembling a program, and running it on a thread pool."""
