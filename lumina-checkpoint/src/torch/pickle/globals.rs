//! The names that a pickle can refer to.

use crate::Dtype;

/// A name on the list. It decides what a call stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Global {
    /// A function that builds a tensor from a storage.
    Rebuild(Rebuild),
    /// `_rebuild_parameter`, and `_rebuild_parameter_with_state` for one with attributes: the first argument is the
    /// tensor.
    Parameter,
    /// `_rebuild_from_type_v2`, for a tensor with attributes: function, class, arguments, attributes.
    OfClass,
    /// `OrderedDict`: a dict.
    OrderedDict,
    /// The class of a storage, with the element type if [`Dtype`] has it.
    Storage(Option<Dtype>),
    /// `UntypedStorage`, whose length is in bytes.
    UntypedStorage,
    /// `torch.float32` and so on, if [`Dtype`] has it.
    Dtype(Option<Dtype>),
    /// Data that training leaves next to the weights. It is harmless, not needed and never built.
    Leftover,
}

/// The functions of `torch._utils` that build a tensor, by their arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rebuild {
    /// Storage, offset, shape and strides. Values for autograd can follow.
    TypeOfStorage,
    /// The same, then two values for autograd and the element type.
    OwnType,
}

impl Global {
    /// Finds a name on the list. `None` means that the pickle must be refused.
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Self::Rebuild(Rebuild::TypeOfStorage),
            ("torch._utils", "_rebuild_tensor_v3") => Self::Rebuild(Rebuild::OwnType),
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Self::Parameter,
            // Version 1 was in `torch.tensor` at first.
            ("torch._tensor", "_rebuild_from_type" | "_rebuild_from_type_v2")
            | ("torch.tensor", "_rebuild_from_type") => Self::OfClass,
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch" | "torch.storage", "UntypedStorage") => Self::UntypedStorage,
            ("torch", _) if name.ends_with("Storage") => Self::Storage(storage(name)),
            ("torch", _) if is_dtype(name) => Self::Dtype(dtype(name)),
            _ if is_leftover(module, name) => Self::Leftover,
            _ => return None,
        })
    }
}

fn storage(name: &str) -> Option<Dtype> {
    Some(match name {
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::Bool,
        _ => return None,
    })
}

fn is_dtype(name: &str) -> bool {
    let kinds = ["float", "bfloat", "int", "uint", "complex", "qint", "quint", "bits"];
    let has_width = |rest: &str| rest.starts_with(|digit: char| digit.is_ascii_digit());
    name == "bool" || kinds.iter().any(|kind| name.strip_prefix(kind).is_some_and(has_width))
}

fn dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "float64" => Dtype::F64,
        "float32" => Dtype::F32,
        "float16" => Dtype::F16,
        "bfloat16" => Dtype::BF16,
        "int64" => Dtype::I64,
        "int32" => Dtype::I32,
        "int16" => Dtype::I16,
        "int8" => Dtype::I8,
        "uint8" => Dtype::U8,
        "bool" => Dtype::Bool,
        _ => return None,
    })
}

/// Plain data of Python and numpy in hyper-parameters and optimizer states, tensors of other kinds, and classes of the
/// training libraries whose callbacks and configurations are in checkpoints.
fn is_leftover(module: &str, name: &str) -> bool {
    let is_training_library = || {
        ["pytorch_lightning.", "lightning.", "lightning_fabric.", "omegaconf."]
            .iter()
            .any(|library| module.starts_with(library))
    };
    match module {
        "builtins" | "__builtin__" => matches!(
            name,
            "bool"
                | "bytearray"
                | "bytes"
                | "complex"
                | "dict"
                | "float"
                | "frozenset"
                | "int"
                | "list"
                | "object"
                | "range"
                | "set"
                | "slice"
                | "str"
                | "tuple"
        ),
        "collections" => matches!(name, "Counter" | "defaultdict" | "deque"),
        "datetime" => matches!(name, "date" | "datetime" | "timedelta"),
        "pathlib" => matches!(name, "Path" | "PosixPath" | "PurePosixPath" | "PureWindowsPath" | "WindowsPath"),
        "numpy" => matches!(name, "dtype" | "ndarray"),
        "numpy.core.multiarray" | "numpy._core.multiarray" => matches!(name, "_reconstruct" | "scalar"),
        "torch" => matches!(name, "device" | "Size" | "Tensor"),
        "torch.nn.parameter" => name == "Parameter",
        "torch._utils" => name.starts_with("_rebuild_"),
        _ => {
            let is_rest = matches!(
                (module, name),
                ("_codecs", "encode")
                    | ("argparse", "Namespace")
                    | ("copyreg" | "copy_reg", "_reconstructor")
                    | ("typing", "Any")
            );
            is_rest || is_training_library()
        }
    }
}
