# SPDX-License-Identifier: Apache-2.0
"""Caffe: a prototxt that describes the network, and a caffemodel with its weights."""
