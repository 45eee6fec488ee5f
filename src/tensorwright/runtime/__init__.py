# SPDX-License-Identifier: Apache-2.0
"""Running plans: nothing here needs the builder."""
