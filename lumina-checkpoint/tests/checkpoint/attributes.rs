//! Tensors and parameters with attributes in torch files: the tensor is read, the attributes are passed over.

use lumina_checkpoint::{Checkpoint, Error, Result};

use crate::build::{Pickle, open, torch};
use crate::shared::f32_bytes;

/// Opens a file of the tensor `w`, which `tensor` makes, with one storage of three elements.
fn read(tensor: impl FnOnce(Pickle) -> Pickle) -> Result<Checkpoint> {
    let pickle = tensor(Pickle::new().op(b"}").text("state_dict").op(b"}").text("w")).op(b"ss");
    open("vqgan.ckpt", &torch(&pickle.end(), &[("0", f32_bytes([1.0, 2.0, 3.0]))]))
}

/// `{"_is_hf_initialized": True}`.
fn attributes(pickle: Pickle) -> Pickle {
    pickle.op(b"}").text("_is_hf_initialized").op(b"\x88s")
}

/// The arguments of `_rebuild_tensor_v2`.
fn arguments(pickle: Pickle) -> Pickle {
    let pickle = pickle.op(b"(").storage("FloatStorage", "0", 3).int(0).ints(&[3]).ints(&[1]);
    pickle.op(b"\x89").global("collections", "OrderedDict").op(b")Rt")
}

/// A call of `_rebuild_from_type_v2` with another function or class.
fn of_class(pickle: Pickle, function: (&str, &str), class: (&str, &str)) -> Pickle {
    let pickle = pickle.global("torch._tensor", "_rebuild_from_type_v2").op(b"(");
    let pickle = pickle.global(function.0, function.1).global(class.0, class.1);
    attributes(arguments(pickle)).op(b"tR")
}

const REBUILD: (&str, &str) = ("torch._utils", "_rebuild_tensor_v2");
const TENSOR: (&str, &str) = ("torch", "Tensor");

fn parameter(pickle: Pickle) -> Pickle {
    let pickle = pickle.global("torch._utils", "_rebuild_parameter_with_state").op(b"(").vector("0", 3).op(b"\x88");
    attributes(pickle.global("collections", "OrderedDict").op(b")R")).op(b"tR")
}

/// What is added to a pickle.
type Change = fn(Pickle) -> Pickle;

#[test]
fn tensors_and_parameters_with_attributes_are_read() {
    let forms: [(&str, Change); 5] = [
        ("a parameter", parameter),
        ("a tensor", |pickle| of_class(pickle, REBUILD, TENSOR)),
        ("a parameter by its class", |pickle| of_class(pickle, REBUILD, ("torch.nn.parameter", "Parameter"))),
        ("a tensor of torch 1.9", |pickle| {
            let pickle = pickle.global("torch._tensor", "_rebuild_from_type").op(b"(");
            let pickle = pickle.global(REBUILD.0, REBUILD.1).global(TENSOR.0, TENSOR.1);
            attributes(arguments(pickle)).op(b"tR")
        }),
        ("a parameter of a tensor with attributes", |pickle| {
            let pickle = pickle.global("torch._utils", "_rebuild_parameter").op(b"(");
            of_class(pickle, REBUILD, TENSOR).op(b"\x88").global("collections", "OrderedDict").op(b")RtR")
        }),
    ];
    for (about, form) in forms {
        let checkpoint = read(form).unwrap_or_else(|error| panic!("{about}: {error}"));
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["w"], "{about}");
        assert_eq!(checkpoint.get("w").unwrap().to_f32().unwrap(), [1.0, 2.0, 3.0], "{about}");
    }
}

#[test]
fn nothing_else_is_built_by_them() {
    for (function, class) in [(("os", "system"), TENSOR), (REBUILD, ("fastai.torch_core", "TensorImage"))] {
        let error = read(|pickle| of_class(pickle, function, class)).unwrap_err();
        assert!(matches!(error, Error::ForeignGlobal { .. }), "{error}");
    }
    // Functions on the list that build no dense tensor.
    for function in ["_rebuild_sparse_tensor", "_rebuild_qtensor"] {
        let error = read(|pickle| of_class(pickle, ("torch._utils", function), TENSOR)).unwrap_err().to_string();
        assert!(error.contains(function), "{error}");
    }
    let itself = ("torch._tensor", "_rebuild_from_type_v2");
    let error = read(|pickle| of_class(pickle, itself, TENSOR)).unwrap_err();
    assert!(matches!(error, Error::Pickle { .. }), "{error}");
    let error = read(|pickle| pickle.global(itself.0, itself.1).op(b")R")).unwrap_err().to_string();
    assert!(error.contains("four parts"), "{error}");
    let error = read(|pickle| pickle.global(itself.0, itself.1).op(b"(NNNNtR")).unwrap_err().to_string();
    assert!(error.contains("a call of what is no function"), "{error}");
}
