# SPDX-License-Identifier: Apache-2.0
"""What several ops compute together: functions that layers and importers share.

Each takes the builder and values, and returns values. ValueError means that the arguments contradict each other,
RefusalError that this version cannot build what they ask for.
"""
