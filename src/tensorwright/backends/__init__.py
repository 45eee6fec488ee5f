# SPDX-License-Identifier: Apache-2.0
"""What a target can do: kernel families, code generation and launch, one folder for each kind of target."""
