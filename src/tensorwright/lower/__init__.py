# SPDX-License-Identifier: Apache-2.0
"""From an optimised graph to steps on buffers and views, with a memory plan."""
