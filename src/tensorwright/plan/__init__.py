# SPDX-License-Identifier: Apache-2.0
"""Plan files: the container format, and what a plan holds."""
