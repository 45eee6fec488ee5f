# SPDX-License-Identifier: Apache-2.0
"""The NumPy backend: slow, simple, and the oracle of every test."""
