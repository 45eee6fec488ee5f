# SPDX-License-Identifier: Apache-2.0
"""From model files to Graphs: `base` finds the importer, a folder per format does the work."""
