//! What a pickle may refer to by name.

use crate::Dtype;

/// A name on the list, and what becomes of a call of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Global {
    /// A function that makes a tensor of a storage.
    Rebuild(Rebuild),
    /// `_rebuild_parameter`: its first argument is the tensor.
    Parameter,
    /// `OrderedDict`: a dict.
    OrderedDict,
    /// A storage's class, with its element type where that is one of ours.
    Storage(Option<Dtype>),
    /// `UntypedStorage`: counted in bytes.
    UntypedStorage,
    /// `torch.float32` and so on, where that is one of ours.
    Dtype(Option<Dtype>),
    /// Harmless in itself, and of no use here: what training runs leave next to the weights. Never built.
    Leftover,
}

/// The functions of `torch._utils` that make a tensor; what they are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rebuild {
    /// Storage, offset, shape and strides, perhaps followed by what only autograd needs.
    TypeOfStorage,
    /// The same, then two values for autograd and the element type.
    OwnType,
}

impl Global {
    /// Finds a name on the list; `None` is for everything that is to be refused.
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Self::Rebuild(Rebuild::TypeOfStorage),
            ("torch._utils", "_rebuild_tensor_v3") => Self::Rebuild(Rebuild::OwnType),
            ("torch._utils", "_rebuild_parameter") => Self::Parameter,
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

/// Plain data of Python and numpy that hyper-parameters and optimizer states are made of, tensors of other
/// kinds, and classes of the training libraries whose callbacks and configurations land in checkpoints.
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
        "torch" => matches!(name, "device" | "Size"),
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
