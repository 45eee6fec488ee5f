# SPDX-License-Identifier: Apache-2.0
"""Comparing an engine with another runtime, and finding the step where they part."""
