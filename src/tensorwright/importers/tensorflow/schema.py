# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's messages, as far as inference needs them: names and numbers of graph.proto, node_def.proto,
attr_value.proto, tensor.proto, function.proto, saved_model.proto, tensor_bundle.proto and their like."""

from __future__ import annotations

from tensorwright.importers.schema import messages

_DESCRIPTION = """
GraphDef: node 1 *NodeDef, library 2 FunctionDefLibrary
NodeDef: name 1 string, op 2 string, input 3 *string, device 4 string, attr 5 map<AttrValue>
AttrValue: list 1 ListValue, s 2 bytes, i 3 int64, f 4 float, b 5 bool, type 6 int32, shape 7 TensorShapeProto,
    tensor 8 TensorProto, placeholder 9 string, func 10 NameAttrList
ListValue: s 2 *bytes, i 3 *int64, f 4 *float, b 5 *bool, type 6 *int32, shape 7 *TensorShapeProto,
    tensor 8 *TensorProto, func 9 *NameAttrList
NameAttrList: name 1 string, attr 2 map<AttrValue>
ShapeDim: size 1 int64, name 2 string
TensorShapeProto: dim 2 *ShapeDim, unknown_rank 3 bool
TensorProto: dtype 1 int32, tensor_shape 2 TensorShapeProto, tensor_content 4 bytes, float_val 5 *float,
    double_val 6 *double, int_val 7 *int32, string_val 8 *bytes, int64_val 10 *int64, bool_val 11 *bool,
    half_val 13 *int32, uint32_val 16 *uint32, uint64_val 17 *uint64
FunctionDefLibrary: function 1 *FunctionDef
FunctionDef: signature 1 OpDef, node_def 3 *NodeDef, ret 4 map<string>, attr 5 map<AttrValue>
OpDef: name 1 string, input_arg 2 *ArgDef, output_arg 3 *ArgDef
ArgDef: name 1 string, type 3 int32, type_attr 4 string, number_attr 5 string, type_list_attr 6 string
SavedModel: saved_model_schema_version 1 int64, meta_graphs 2 *MetaGraphDef
MetaGraphDef: meta_info_def 1 MetaInfoDef, graph_def 2 GraphDef, saver_def 3 SaverDef,
    signature_def 5 map<SignatureDef>, object_graph_def 7 SavedObjectGraph
MetaInfoDef: tags 4 *string, tensorflow_version 5 string
SaverDef: filename_tensor_name 1 string, save_tensor_name 2 string, restore_op_name 3 string
SignatureDef: inputs 1 map<TensorInfo>, outputs 2 map<TensorInfo>, method_name 3 string
TensorInfo: name 1 string, dtype 2 int32, tensor_shape 3 TensorShapeProto
ObjectReference: node_id 1 int32, local_name 2 string
SavedObjectGraph: nodes 1 *SavedObject
SavedObject: children 1 *ObjectReference, variable 7 SavedVariable
SavedVariable: dtype 1 int32, shape 2 TensorShapeProto, name 6 string
TrackableObjectGraph: nodes 1 *TrackableObject
TrackableObject: children 1 *ObjectReference, attributes 2 *SerializedTensor
SerializedTensor: name 1 string, full_name 2 string, checkpoint_key 3 string
BundleHeaderProto: num_shards 1 int32, endianness 2 int32
SliceExtent: start 1 int64, length 2 int64
TensorSliceProto: extent 1 *SliceExtent
BundleEntryProto: dtype 1 int32, shape 2 TensorShapeProto, shard_id 3 int32, offset 4 int64, size 5 int64,
    crc32c 6 fixed32, slices 7 *TensorSliceProto
"""

_CLASSES = messages("tensorwright.tensorflow", _DESCRIPTION)

GraphDef = _CLASSES["GraphDef"]
NodeDef = _CLASSES["NodeDef"]
TensorProto = _CLASSES["TensorProto"]
FunctionDef = _CLASSES["FunctionDef"]
SavedModel = _CLASSES["SavedModel"]
TrackableObjectGraph = _CLASSES["TrackableObjectGraph"]
BundleHeader = _CLASSES["BundleHeaderProto"]
BundleEntry = _CLASSES["BundleEntryProto"]
