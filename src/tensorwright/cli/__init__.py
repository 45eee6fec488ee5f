# SPDX-License-Identifier: Apache-2.0
"""The `tensorwright` command: one file per subcommand, each a thin layer over the public API."""
