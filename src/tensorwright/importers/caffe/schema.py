# SPDX-License-Identifier: Apache-2.0
"""The messages of Caffe's two files: names, numbers and defaults of caffe.proto (BVLC Caffe, with the layers of SSD).

Parameters of layers that only some forks have are read from text alone: forks use the same numbers for different ones.
"""

from __future__ import annotations

from tensorwright.importers.schema import messages

_DESCRIPTION = """
enum Phase: TRAIN 0, TEST 1
enum VarianceNorm: FAN_IN 0, FAN_OUT 1, AVERAGE 2
enum Engine: DEFAULT 0, CAFFE 1, CUDNN 2
enum DimCheckMode: STRICT 0, PERMISSIVE 1
BlobShape: dim 1 *int64
BlobProto: shape 7 BlobShape, data 5 *float, diff 6 *float, double_data 8 *double, double_diff 9 *double, num 1 int32=0,
    channels 2 int32=0, height 3 int32=0, width 4 int32=0
FillerParameter: type 1 string=constant, value 2 float=0, min 3 float=0, max 4 float=1, mean 5 float=0, std 6 float=1,
    sparse 7 int32=-1, variance_norm 8 VarianceNorm=FAN_IN
NetState: phase 1 Phase=TEST, level 2 int32=0, stage 3 *string
NetStateRule: phase 1 Phase, min_level 2 int32, max_level 3 int32, stage 4 *string, not_stage 5 *string
ParamSpec: name 1 string, share_mode 2 DimCheckMode, lr_mult 3 float=1, decay_mult 4 float=1
NetParameter: name 1 string, input 3 *string, input_shape 8 *BlobShape, input_dim 4 *int32, force_backward 5 bool,
    state 6 NetState, debug_info 7 bool, layer 100 *LayerParameter, layers 2 *V1LayerParameter, profile_info 9 bool,
    profile_iter 10 int32, profile_warmup 11 int32
LayerParameter: name 1 string, type 2 string, bottom 3 *string, top 4 *string, phase 10 Phase, loss_weight 5 *float,
    param 6 *ParamSpec, blobs 7 *BlobProto, propagate_down 11 *bool, include 8 *NetStateRule, exclude 9 *NetStateRule,
    transform_param 100 TransformationParameter, loss_param 101 LossParameter, accuracy_param 102 AccuracyParameter,
    argmax_param 103 ArgMaxParameter, concat_param 104 ConcatParameter, contrastive_loss_param 105 MarginParameter,
    convolution_param 106 ConvolutionParameter, data_param 107 DataParameter, dropout_param 108 DropoutParameter,
    dummy_data_param 109 DummyDataParameter, eltwise_param 110 EltwiseParameter, exp_param 111 ExpParameter,
    hdf5_data_param 112 Hdf5DataParameter, hdf5_output_param 113 FileParameter, hinge_loss_param 114 HingeLossParameter,
    image_data_param 115 ImageDataParameter, infogain_loss_param 116 InfogainLossParameter,
    inner_product_param 117 InnerProductParameter, lrn_param 118 LrnParameter,
    memory_data_param 119 MemoryDataParameter, mvn_param 120 MvnParameter, pooling_param 121 PoolingParameter,
    power_param 122 PowerParameter,
    relu_param 123 ReluParameter, sigmoid_param 124 EngineParameter, softmax_param 125 SoftmaxParameter,
    slice_param 126 SliceParameter, tanh_param 127 EngineParameter, threshold_param 128 ThresholdParameter,
    window_data_param 129 WindowDataParameter, python_param 130 PythonParameter, prelu_param 131 PReluParameter,
    spp_param 132 SppParameter, reshape_param 133 ReshapeParameter, log_param 134 LogParameter,
    flatten_param 135 FlattenParameter, reduction_param 136 ReductionParameter, embed_param 137 EmbedParameter,
    tile_param 138 TileParameter, batch_norm_param 139 BatchNormParameter, elu_param 140 EluParameter,
    bias_param 141 BiasParameter, scale_param 142 ScaleParameter, input_param 143 InputParameter,
    crop_param 144 CropParameter, parameter_param 145 ParameterParameter, recurrent_param 146 RecurrentParameter,
    swish_param 147 SwishParameter, clip_param 148 ClipParameter,
    annotated_data_param 200 AnnotatedDataParameter, multibox_loss_param 201 MultiBoxLossParameter,
    permute_param 202 PermuteParameter, prior_box_param 203 PriorBoxParameter,
    detection_output_param 204 DetectionOutputParameter, detection_evaluate_param 205 DetectionEvaluateParameter,
    norm_param 206 NormalizeParameter, video_data_param 207 VideoDataParameter,
    upsample_param 100000 UpsampleParameter, interp_param 100001 InterpParameter,
    shuffle_channel_param 100002 ShuffleChannelParameter, roi_pooling_param 100003 RoiPoolingParameter,
    relu6_param 100004 EngineParameter, bn_param 100005 BnParameter
TransformationParameter: scale 1 float=1, mirror 2 bool, crop_size 3 uint32=0, mean_file 4 string, mean_value 5 *float,
    force_color 6 bool, force_gray 7 bool, resize_param 8 ResizeParameter, noise_param 9 NoiseParameter,
    emit_constraint 10 EmitConstraint, crop_h 11 uint32=0, crop_w 12 uint32=0, distort_param 13 DistortionParameter,
    expand_param 14 ExpansionParameter
enum ResizeMode: WARP 1, FIT_SMALL_SIZE 2, FIT_LARGE_SIZE_AND_PAD 3
enum PadMode: CONSTANT 1, MIRRORED 2, REPEAT_NEAREST 3
enum InterpMode: LINEAR 1, AREA 2, NEAREST 3, CUBIC 4, LANCZOS4 5
ResizeParameter: prob 1 float=1, resize_mode 2 ResizeMode=WARP, height 3 uint32=0, width 4 uint32=0, pad_mode 5 PadMode,
    pad_value 6 *float, interp_mode 7 *InterpMode, height_scale 8 uint32=0, width_scale 9 uint32=0
SaltPepperParameter: fraction 1 float, value 2 *float
NoiseParameter: prob 1 float, hist_eq 2 bool, inverse 3 bool, decolorize 4 bool, gauss_blur 5 bool, jpeg 6 float,
    posterize 7 bool, erode 8 bool, saltpepper 9 bool, saltpepper_param 10 SaltPepperParameter, clahe 11 bool,
    convert_to_hsv 12 bool, convert_to_lab 13 bool
enum EmitType: CENTER 0, MIN_OVERLAP 1
EmitConstraint: emit_type 1 EmitType, emit_overlap 2 float
DistortionParameter: brightness_prob 1 float, brightness_delta 2 float, contrast_prob 3 float, contrast_lower 4 float,
    contrast_upper 5 float, hue_prob 6 float, hue_delta 7 float, saturation_prob 8 float, saturation_lower 9 float,
    saturation_upper 10 float, random_order_prob 11 float
ExpansionParameter: prob 1 float, max_expand_ratio 2 float
enum NormalizationMode: FULL 0, VALID 1, BATCH_SIZE 2, NONE 3
LossParameter: ignore_label 1 int32, normalize 2 bool, normalization 3 NormalizationMode
AccuracyParameter: top_k 1 uint32, axis 2 int32, ignore_label 3 int32
MarginParameter: margin 1 float, legacy_version 2 bool
enum HingeNorm: L1 1, L2 2
HingeLossParameter: norm 1 HingeNorm
InfogainLossParameter: source 1 string, axis 2 int32
FileParameter: file_name 1 string
PythonParameter: module 1 string, layer 2 string, param_str 3 string, share_in_parallel 4 bool
enum Db: LEVELDB 0, LMDB 1
DataParameter: source 1 string, scale 2 float, mean_file 3 string, batch_size 4 uint32, crop_size 5 uint32=0,
    mirror 6 bool, rand_skip 7 uint32, backend 8 Db, force_encoded_color 9 bool, prefetch 10 uint32
DummyDataParameter: data_filler 1 *FillerParameter, num 2 *uint32, channels 3 *uint32, height 4 *uint32,
    width 5 *uint32, shape 6 *BlobShape
Hdf5DataParameter: source 1 string, batch_size 2 uint32, shuffle 3 bool
ImageDataParameter: source 1 string, scale 2 float, mean_file 3 string, batch_size 4 uint32=1, crop_size 5 uint32=0,
    mirror 6 bool, rand_skip 7 uint32, shuffle 8 bool, new_height 9 uint32=0, new_width 10 uint32=0,
    is_color 11 bool=true, root_folder 12 string
MemoryDataParameter: batch_size 1 uint32, channels 2 uint32, height 3 uint32, width 4 uint32
WindowDataParameter: source 1 string, scale 2 float, mean_file 3 string, batch_size 4 uint32, crop_size 5 uint32,
    mirror 6 bool, fg_threshold 7 float, bg_threshold 8 float, fg_fraction 9 float, context_pad 10 uint32,
    crop_mode 11 string, cache_images 12 bool, root_folder 13 string
enum VideoType: WEBCAM 0, VIDEO 1
VideoDataParameter: video_type 1 VideoType, device_id 2 int32, video_file 3 string, skip_frames 4 uint32
ArgMaxParameter: out_max_val 1 bool=false, top_k 2 uint32=1, axis 3 int32
BatchNormParameter: use_global_stats 1 bool, moving_average_fraction 2 float=0.999, eps 3 float=1e-5
enum BnMode: LEARN 0, INFERENCE 1
BnParameter: slope_filler 1 FillerParameter, bias_filler 2 FillerParameter, momentum 3 float=0.9, eps 4 float=1e-5,
    frozen 5 bool=false, engine 6 Engine, scale_filler 7 FillerParameter, shift_filler 8 FillerParameter,
    bn_mode 9 BnMode=LEARN
BiasParameter: axis 1 int32=1, num_axes 2 int32=1, filler 3 FillerParameter
ClipParameter: min 1 float, max 2 float
ConcatParameter: concat_dim 1 uint32=1, axis 2 int32=1
ConvolutionParameter: num_output 1 uint32, bias_term 2 bool=true, pad 3 *uint32, kernel_size 4 *uint32,
    group 5 uint32=1, stride 6 *uint32, weight_filler 7 FillerParameter, bias_filler 8 FillerParameter,
    pad_h 9 uint32=0, pad_w 10 uint32=0, kernel_h 11 uint32, kernel_w 12 uint32, stride_h 13 uint32,
    stride_w 14 uint32, engine 15 Engine, axis 16 int32=1,
    force_nd_im2col 17 bool, dilation 18 *uint32
CropParameter: axis 1 int32=2, offset 2 *uint32
DropoutParameter: dropout_ratio 1 float=0.5, scale_train 2 bool=true
enum EltwiseOp: PROD 0, SUM 1, MAX 2
EltwiseParameter: operation 1 EltwiseOp=SUM, coeff 2 *float, stable_prod_grad 3 bool
EluParameter: alpha 1 float=1
EmbedParameter: num_output 1 uint32, input_dim 2 uint32, bias_term 3 bool=true, weight_filler 4 FillerParameter,
    bias_filler 5 FillerParameter
EngineParameter: engine 1 Engine
ExpParameter: base 1 float=-1, scale 2 float=1, shift 3 float=0
FlattenParameter: axis 1 int32=1, end_axis 2 int32=-1
InnerProductParameter: num_output 1 uint32, bias_term 2 bool=true, weight_filler 3 FillerParameter,
    bias_filler 4 FillerParameter, axis 5 int32=1, transpose 6 bool=false
InputParameter: shape 1 *BlobShape
InterpParameter: height 1 int32=0, width 2 int32=0, zoom_factor 3 int32=1, shrink_factor 4 int32=1, pad_beg 5 int32=0,
    pad_end 6 int32=0, use_blob_size 7 bool=false
LogParameter: base 1 float=-1, scale 2 float=1, shift 3 float=0
enum NormRegion: ACROSS_CHANNELS 0, WITHIN_CHANNEL 1
LrnParameter: local_size 1 uint32=5, alpha 2 float=1, beta 3 float=0.75, norm_region 4 NormRegion=ACROSS_CHANNELS,
    k 5 float=1, engine 6 Engine
MvnParameter: normalize_variance 1 bool=true, across_channels 2 bool=false, eps 3 float=1e-9
NormalizeParameter: across_spatial 1 bool=true, scale_filler 2 FillerParameter, channel_shared 3 bool=true,
    eps 4 float=1e-10
ParameterParameter: shape 1 BlobShape
PermuteParameter: order 1 *uint32
enum PoolMethod: MAX 0, AVE 1, STOCHASTIC 2
enum RoundMode: CEIL 0, FLOOR 1
PoolingParameter: pool 1 PoolMethod=MAX, kernel_size 2 uint32, stride 3 uint32=1, pad 4 uint32=0, kernel_h 5 uint32,
    kernel_w 6 uint32, stride_h 7 uint32, stride_w 8 uint32, pad_h 9 uint32=0, pad_w 10 uint32=0, engine 11 Engine,
    global_pooling 12 bool=false, round_mode 13 RoundMode=CEIL, ceil_mode 100000 bool=true
PowerParameter: power 1 float=1, scale 2 float=1, shift 3 float=0
PReluParameter: filler 1 FillerParameter, channel_shared 2 bool=false
enum CodeType: CORNER 1, CENTER_SIZE 2, CORNER_SIZE 3
PriorBoxParameter: min_size 1 *float, max_size 2 *float, aspect_ratio 3 *float, flip 4 bool=true, clip 5 bool=false,
    variance 6 *float, img_size 7 uint32, img_h 8 uint32, img_w 9 uint32, step 10 float, step_h 11 float,
    step_w 12 float, offset 13 float=0.5
NmsParameter: nms_threshold 1 float=0.3, top_k 2 int32, eta 3 float=1
DetectionOutputParameter: num_classes 1 uint32, share_location 2 bool=true, background_label_id 3 int32=0,
    nms_param 4 NmsParameter, save_output_param 5 SaveOutputParameter, code_type 6 CodeType=CORNER,
    keep_top_k 7 int32=-1, variance_encoded_in_target 8 bool=false, confidence_threshold 9 float, visualize 10 bool,
    visualize_threshold 11 float, save_file 12 string
SaveOutputParameter: output_directory 1 string, output_name_prefix 2 string, output_format 3 string,
    label_map_file 4 string, name_size_file 5 string, num_test_image 6 uint32, resize_param 7 ResizeParameter
DetectionEvaluateParameter: num_classes 1 uint32, background_label_id 2 uint32, overlap_threshold 3 float,
    evaluate_difficult_gt 4 bool, name_size_file 5 string, resize_param 6 ResizeParameter
enum LocLossType: L2 0, SMOOTH_L1 1
enum ConfLossType: SOFTMAX 0, LOGISTIC 1
enum MatchType: BIPARTITE 0, PER_PREDICTION 1
enum MiningType: NONE 0, MAX_NEGATIVE 1, HARD_EXAMPLE 2
MultiBoxLossParameter: loc_loss_type 1 LocLossType, conf_loss_type 2 ConfLossType, loc_weight 3 float,
    num_classes 4 uint32, share_location 5 bool, match_type 6 MatchType, overlap_threshold 7 float,
    use_prior_for_matching 8 bool, background_label_id 9 uint32, use_difficult_gt 10 bool, do_neg_mining 11 bool,
    neg_pos_ratio 12 float, neg_overlap 13 float, code_type 14 CodeType, encode_variance_in_target 16 bool,
    map_object_to_agnostic 17 bool, ignore_cross_boundary_bbox 18 bool, bp_inside 19 bool, mining_type 20 MiningType,
    nms_param 21 NmsParameter, sample_size 22 int32, use_prior_for_nms 23 bool
Sampler: min_scale 1 float, max_scale 2 float, min_aspect_ratio 3 float, max_aspect_ratio 4 float
SampleConstraint: min_jaccard_overlap 1 float, max_jaccard_overlap 2 float, min_sample_coverage 3 float,
    max_sample_coverage 4 float, min_object_coverage 5 float, max_object_coverage 6 float
BatchSampler: use_original_image 1 bool, sampler 2 Sampler, sample_constraint 3 SampleConstraint, max_sample 4 uint32,
    max_trials 5 uint32
enum AnnotationType: BBOX 0
AnnotatedDataParameter: batch_sampler 1 *BatchSampler, label_map_file 2 string, anno_type 3 AnnotationType
RecurrentParameter: num_output 1 uint32=0, weight_filler 2 FillerParameter, bias_filler 3 FillerParameter,
    debug_info 4 bool, expose_hidden 5 bool=false
enum ReductionOp: SUM 1, ASUM 2, SUMSQ 3, MEAN 4
ReductionParameter: operation 1 ReductionOp=SUM, axis 2 int32=0, coeff 3 float=1
ReluParameter: negative_slope 1 float=0, engine 2 Engine
ReshapeParameter: shape 1 BlobShape, axis 2 int32=0, num_axes 3 int32=-1
RoiPoolingParameter: pooled_h 1 uint32=0, pooled_w 2 uint32=0, spatial_scale 3 float=1
ScaleParameter: axis 1 int32=1, num_axes 2 int32=1, filler 3 FillerParameter, bias_term 4 bool=false,
    bias_filler 5 FillerParameter
ShuffleChannelParameter: group 1 uint32=1
SliceParameter: slice_dim 1 uint32=1, slice_point 2 *uint32, axis 3 int32=1
SoftmaxParameter: engine 1 Engine, axis 2 int32=1
SppParameter: pyramid_height 1 uint32, pool 2 PoolMethod=MAX, engine 6 Engine
SwishParameter: beta 1 float=1
ThresholdParameter: threshold 1 float=0
TileParameter: axis 1 int32=1, tiles 2 int32
UpsampleParameter: scale 1 uint32=2, scale_h 2 uint32, scale_w 3 uint32, pad_out_h 4 bool, pad_out_w 5 bool,
    upsample_h 6 uint32, upsample_w 7 uint32
enum V1Type: NONE 0, ABSVAL 35, ACCURACY 1, ARGMAX 30, BNLL 2, CONCAT 3, CONTRASTIVE_LOSS 37, CONVOLUTION 4, DATA 5,
    DECONVOLUTION 39, DROPOUT 6, DUMMY_DATA 32, EUCLIDEAN_LOSS 7, ELTWISE 25, EXP 38, FLATTEN 8, HDF5_DATA 9,
    HDF5_OUTPUT 10, HINGE_LOSS 28, IM2COL 11, IMAGE_DATA 12, INFOGAIN_LOSS 13, INNER_PRODUCT 14, LRN 15, MEMORY_DATA 29,
    MULTINOMIAL_LOGISTIC_LOSS 16, MVN 34, POOLING 17, POWER 26, RELU 18, SIGMOID 19, SIGMOID_CROSS_ENTROPY_LOSS 27,
    SILENCE 36, SOFTMAX 20, SOFTMAX_LOSS 21, SPLIT 22, SLICE 33, TANH 23, WINDOW_DATA 24, THRESHOLD 31
V1LayerParameter: layer 1 V0LayerParameter, bottom 2 *string, top 3 *string, name 4 string, type 5 V1Type,
    blobs 6 *BlobProto, param 1001 *string, blobs_lr 7 *float, weight_decay 8 *float
V0LayerParameter: name 1 string, type 2 string, blobs 50 *BlobProto
"""

_CLASSES = messages("tensorwright.caffe", _DESCRIPTION)

NetParameter = _CLASSES["NetParameter"]
LayerParameter = _CLASSES["LayerParameter"]
V1LayerParameter = _CLASSES["V1LayerParameter"]
BlobProto = _CLASSES["BlobProto"]
FillerParameter = _CLASSES["FillerParameter"]

MODERN_TYPES = {
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "IM2COL": "Im2col",
    "LRN": "LRN",
    "MVN": "MVN",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}
"""Today's names of old layer types that are more than their words in another case."""


def modern_type(old: str) -> str:
    """Today's spelling of an old layer type: CONVOLUTION is Convolution."""
    return MODERN_TYPES.get(old.upper()) or "".join(word.capitalize() for word in old.split("_"))
