# SPDX-License-Identifier: Apache-2.0
"""Choosing a kernel for every workload: candidates, measurements, verification, and the timing cache."""
