"""What a file may name: layers and operations that hold no code and read no files, and the objects in their settings.

Nothing is built that is not in these lists, but for classes that the user registered with Keras: those are the user's
code. A new version of Keras brings layers that are in no list; they are refused until somebody has looked at them.
"""

import sys

import keras

__all__ = [
    "ARRAYS",
    "FUNCTIONS",
    "LAYERS",
    "OBJECTS",
    "OPERATIONS",
    "check_layer",
    "check_objects",
    "resolve",
    "tag_of",
]


def _names(text):
    return frozenset(text.split())


LAYERS = _names(
    """
    Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D
    AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention AlphaDropout Attention
    AugMix AutoContrast Average AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization
    Bidirectional CategoryEncoding CenterCrop Concatenate ContrastLimitedAdaptiveHistogramEqualization Conv1D
    Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Cropping1D
    Cropping2D Cropping3D CutMix Dense DepthwiseConv1D DepthwiseConv2D Discretization Dot Dropout ELU
    EinsumDense Embedding Equalization Flatten GRU GRUCell GaussianDropout GaussianNoise GlobalAveragePooling1D
    GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
    GroupNormalization GroupQueryAttention HashedCrossing Hashing Identity InputLayer IntegerLookup LSTM
    LSTMCell LayerNormalization LeakyReLU Masking MaxNumBoundingBoxes MaxPooling1D MaxPooling2D MaxPooling3D
    Maximum MelSpectrogram Minimum MixUp MultiHeadAttention Multiply Normalization PReLU Permute Pipeline
    RMSNormalization RNN RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast
    RandomCrop RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue
    RandomInvert RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness
    RandomShear RandomTranslation RandomZoom ReLU RepeatVector Rescaling Reshape Resizing ReversibleEmbedding
    STFTSpectrogram SeparableConv1D SeparableConv2D SimpleRNN SimpleRNNCell Softmax Solarization
    SpatialDropout1D SpatialDropout2D SpatialDropout3D SpectralNormalization StackedRNNCells StringLookup
    Subtract TextVectorization TimeDistributed UnitNormalization UpSampling1D UpSampling2D UpSampling3D
    ZeroPadding1D ZeroPadding2D ZeroPadding3D
    """
)
_MODELS = {"Functional": "keras.src.models.functional", "Sequential": "keras.src.models.sequential"}
OPERATIONS = {  # by module; what takes functions (Map, Scan, Cond, WhileLoop, …) is left out
    f"keras.src.{module}": _names(names)
    for module, names in {
        "activations.activations": "Mish ReLU",
        "ops.core": "Cast ConvertToTensor SaturateCast Scatter ScatterUpdate Slice SliceUpdate StopGradient Unstack",
        "ops.einops": "Rearrange",
        "ops.image": """
            AffineTransform CropImages ElasticTransform ExtractPatches GaussianBlur HSVToRGB MapCoordinates PadImages
            PerspectiveTransform RGBToGrayscale RGBToHSV Resize SSIM ScaleAndTranslate SobelEdges""",
        "ops.linalg": """
            Cholesky CholeskyInverse Det Eig Eigh Inv Lstsq LuFactor MatrixRank Norm Pinv Qr SVD Solve
            SolveTriangular""",
        "ops.math": """
            CDist Erf Erfc Erfinv ExtractSequences FFT FFT2 IFFT2 IRFFT ISTFT InTopK Logdet Logsumexp RFFT Rsqrt STFT
            SegmentMax SegmentMin SegmentProd SegmentReduction SegmentSum TopK ViewAsComplex ViewAsReal""",
        "ops.nn": """
            AdaptiveAveragePool AdaptiveMaxPool AveragePool BatchNorm BinaryCrossentropy CTCDecode CTCLoss
            CategoricalCrossentropy Celu Conv ConvTranspose DepthToSpace DepthwiseConv DotProductAttention Elu Fold
            Gelu Glu HardShrink HardSigmoid HardSilu HardTanh LayerNorm LeakyRelu LogSigmoid LogSoftmax MaxPool Moments
            MultiHot Normalize OneHot PSNR Polar RMSNorm Relu Relu6 Selu SeparableConv Sigmoid Silu SoftShrink Softmax
            Softplus Softsign SpaceToDepth SparseCategoricalCrossentropy SparsePlus SparseSigmoid Sparsemax Squareplus
            TanhShrink Threshold Unfold""",
        "ops.numpy": """
            Abs Absolute Add All AllClose Amax Amin Angle Any Append Arange Arccos Arccosh Arcsin Arcsinh Arctan
            Arctan2 Arctanh Argmax Argmin Argpartition Argsort Array ArraySplit Average Bincount BitwiseAnd
            BitwiseInvert BitwiseLeftShift BitwiseNot BitwiseOr BitwiseRightShift BitwiseXor BroadcastTo Cbrt Ceil Clip
            Concatenate Conj Conjugate Copy Corrcoef Correlate Cos Cosh CountNonzero Cross Cumprod Cumsum Deg2rad Diag
            Diagflat Diagonal Diff Digitize Divide DivideNoNan Dot Dsplit Dstack Einsum EmptyLike Equal Exp Exp2
            ExpandDims Expm1 Fabs Flip Fliplr Flipud Floor FloorDivide Fmax Fmin Fmod Full FullLike Gcd Geomspace
            GetItem Greater GreaterEqual Heaviside Histogram Hsplit Hstack Hypot I0 Imag Inner IsIn Isclose Isfinite
            Isinf Isnan Isneginf Isposinf Isreal Kron Lcm Ldexp LeftShift Less LessEqual Linspace Log Log10 Log1p Log2
            Logaddexp Logaddexp2 LogicalAnd LogicalNot LogicalOr LogicalXor Logspace Matmul Max Maximum Mean Median
            Meshgrid Min Minimum Mod Moveaxis Multiply NanToNum Nanargmax Nanargmin Nancumprod Nancumsum Nanmax Nanmean
            Nanmedian Nanmin Nanpercentile Nanprod Nanquantile Nanstd Nansum Nanvar Ndim Negative Nextafter Nonzero
            NotEqual OnesLike Outer Pad Percentile Power Prod Ptp Quantile Rad2deg Ravel Real Reciprocal Repeat Reshape
            RightShift Roll Rot90 Round SearchSorted Select Sign Signbit Sin Sinc Sinh Size Slogdet Sort Split Sqrt
            Square Squeeze Stack Std Subtract Sum Swapaxes Take TakeAlongAxis Tan Tanh Tensordot Tile Trace Transpose
            Trapezoid Tril Triu TrueDivide Trunc Unique UnravelIndex Vander Var Vdot View Vsplit Vstack Where
            ZerosLike""",
    }.items()
}
OBJECTS = {  # in settings, by module
    "keras.constraints": "MaxNorm MinMaxNorm NonNeg UnitNorm",
    "keras.dtype_policies": """
        DTypePolicy DTypePolicyMap FloatDTypePolicy Int4DTypePolicy QuantizedDTypePolicy QuantizedFloat8DTypePolicy""",
    "keras.initializers": """
        Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity IdentityInitializer LecunNormal LecunUniform
        Ones Orthogonal OrthogonalInitializer RandomNormal RandomUniform STFT STFTInitializer TruncatedNormal
        VarianceScaling Zeros""",
    "keras.quantizers": "AbsMaxQuantizer Float8QuantizationConfig Int4QuantizationConfig Int8QuantizationConfig",
    "keras.random": "SeedGenerator",
    "keras.regularizers": "L1 L1L2 L2 OrthogonalRegularizer",
}
FUNCTIONS = _names(
    """
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear
    log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus
    sparse_sigmoid sparsemax squareplus swish tanh tanh_shrink threshold
    """
)
_PLACES = {(module, name) for module, names in OBJECTS.items() for name in names.split()}
_PLACES |= {("keras", name) for names in OBJECTS.values() for name in names.split() if name.endswith("Policy")}
ARRAYS = ("__tensor__", "__numpy__")  # what Keras serializes them as; a file has them elsewhere
_VALUES = ("__bytes__", "__ellipsis__", "__slice__")
_BUILT = ("build_config", "compile_config", "shared_object_id")  # instructions beyond the object itself


def tag_of(layer):
    """The class of a serialized layer as text: ``Dense``, ``package>Name``, or ``module:Name`` elsewhere in Keras.

    Raises:
        ValueError: if `resolve` would refuse it.
    """
    registered, module, name = layer.get("registered_name"), layer["module"], layer["class_name"]
    if registered and keras.saving.get_registered_object(registered) is not None:
        tag = registered
    else:
        tag = name if module == "keras.layers" else f"{module}:{name}"
    resolve(tag)
    return tag


def resolve(tag):
    """The class of a tag and the module under which Keras looks for it.

    Raises:
        ValueError: if the tag is neither a layer or operation of the lists nor registered with Keras.
    """
    module, _, name = tag.rpartition(":") if isinstance(tag, str) else ("", "", "")
    if isinstance(tag, str) and ">" in tag:
        module, cls = None, keras.saving.get_registered_object(tag)
    elif _is_layer(module or "keras.layers", name):
        module = module or "keras.layers"
        cls = getattr(sys.modules.get(module), name, None)
    else:
        cls = None
    if not (isinstance(cls, type) and issubclass(cls, keras.Operation)):
        raise ValueError(
            "Expected a layer or operation of Keras that holds no code and reads no files, or a class registered with "
            f"Keras before loading. Received: {str(tag)[:100]!r}"
        )
    return cls, module


def _is_layer(module, name):
    if name in _MODELS:
        return module in ("keras", "keras.models", _MODELS[name])
    return name in (LAYERS if module == "keras.layers" else OPERATIONS.get(module, ()))


def check_layer(layer):
    """Refuse a serialized layer or operation that a file may not hold.

    Args:
        layer: what ``keras.saving.serialize_keras_object`` makes of it; arrays in its settings do not matter here.

    Returns:
        Its class, and its settings without what Keras knows of its building.

    Raises:
        ValueError: see above.
    """
    cls, _ = resolve(tag_of(layer))
    config = _without_build(layer["config"])
    check_objects({key: value for key, value in config.items() if not key.endswith("_initializer")})
    return cls, config


def _without_build(value):
    if isinstance(value, dict):
        dropped = ("build_config", "compile_config") if "class_name" in value else ()
        return {key: _without_build(item) for key, item in value.items() if key not in dropped}
    return [_without_build(item) for item in value] if isinstance(value, list | tuple) else value


def check_objects(value):
    """Refuse settings that name anything but objects of the lists and registered ones, at any depth.

    Raises:
        ValueError: see above.
    """
    if isinstance(value, dict):
        if "class_name" in value:
            _check_object(value)
        if isinstance(value.get("vocabulary"), str):
            raise ValueError(f"Expected a vocabulary in the file. Received: vocabulary={value['vocabulary'][:100]!r}")
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            check_objects(item)


def _check_object(value):
    name, module, registered = (value.get(k) for k in ("class_name", "module", "registered_name"))
    own = keras.saving.get_registered_object(registered) if isinstance(registered, str) else None
    if not isinstance(name, str) or any(value.get(key) for key in _BUILT):
        known = False
    elif name.startswith("__"):
        known = name in _VALUES
    elif name == "function":
        known = _is_function(module, value.get("config"), registered)
    elif own is not None:
        known = isinstance(own, type)
    else:
        known = registered in (None, name) and (_is_layer(module, name) or (module, name) in _PLACES)
    if not known:
        raise ValueError(
            "Expected settings without code and arrays, of objects of Keras or registered with it. "
            f"Received: {str(module)[:100]}.{str(name)[:100]}"
        )


def _is_function(module, name, registered):
    if not isinstance(name, str):
        return False
    if keras.saving.get_registered_object(name) is not None:
        return registered in (None, name, "function")
    return name in FUNCTIONS and module in ("builtins", "keras.activations") and registered in (None, name, "function")
