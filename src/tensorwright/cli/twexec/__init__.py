# SPDX-License-Identifier: Apache-2.0
"""The `twexec` command: takes the flags of trtexec and giexec, and prints what their users' scripts read."""
