//! A layer: attention and MLP, each with its norm, on the residual stream.

use lumina_nn::Loader;
use lumina_nn::ops::{Hidden, Linear, swiglu};

use super::attention::{Attention, PassRows};
use super::config::Architecture;
use super::norm::RmsNorm;
use super::rope::Rotation;

#[cfg_attr(feature = "burn", derive(burn::module::Module))]
#[derive(Debug)]
pub(super) struct Layer {
    self_attn: Attention,
    mlp: Mlp,
    input_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
    swin_norm: bool,
}

/// SwiGLU. Mirrors `ChameleonMLP`.
#[cfg_attr(feature = "burn", derive(burn::module::Module))]
#[derive(Debug)]
struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Mlp {
    fn new(loader: &Loader<'_>, architecture: &Architecture) -> Self {
        let &Architecture { hidden, intermediate, mlp_bias: bias, .. } = architecture;
        Self {
            gate_proj: loader.pp("gate_proj").linear(hidden, intermediate, bias),
            up_proj: loader.pp("up_proj").linear(hidden, intermediate, bias),
            down_proj: loader.pp("down_proj").linear(intermediate, hidden, bias),
        }
    }

    fn forward(&self, x: &Hidden) -> Hidden {
        let [gate, up] = Linear::forward_all([&self.gate_proj, &self.up_proj], x);
        self.down_proj.forward(&swiglu(gate, up))
    }
}

impl Layer {
    pub(super) fn new(loader: &Loader<'_>, architecture: &Architecture) -> Self {
        let norm = |name| RmsNorm::new(&loader.pp(name), architecture.hidden, architecture.rms_norm_eps);
        Self {
            self_attn: Attention::new(&loader.pp("self_attn"), architecture),
            mlp: Mlp::new(&loader.pp("mlp"), architecture),
            input_layernorm: norm("input_layernorm"),
            post_attention_layernorm: norm("post_attention_layernorm"),
            swin_norm: architecture.swin_norm,
        }
    }

    /// The stream `[n, hidden]` after the layer. Pre-norm: the norms act on the inputs of attention and MLP; swin-norm:
    /// on their outputs.
    pub(super) fn forward(
        &self,
        stream: Stream,
        rotation: &Rotation,
        rows: PassRows<'_, '_>,
        add: Addition<'_>,
    ) -> Stream {
        let (norm_1, norm_2) = (&self.input_layernorm, &self.post_attention_layernorm);
        if self.swin_norm {
            let x = stream.sum();
            let y = norm_1.forward(&self.self_attn.forward(&x, rotation, rows));
            let x = add_residual(add, Site::Attention, Stream::from(x), y).sum();
            let y = norm_2.forward(&self.mlp.forward(&x));
            add_residual(add, Site::Mlp, Stream::from(x), y)
        } else {
            let (x, normed) = stream.normed(norm_1);
            let y = self.self_attn.forward(&normed, rotation, rows);
            let (x, normed) = add_residual(add, Site::Attention, Stream::from(x), y).normed(norm_2);
            add_residual(add, Site::Mlp, Stream::from(x), self.mlp.forward(&normed))
        }
    }
}

/// The residual stream, `[n, hidden]`, and what is to be added to it: the addition and the norm after it then are one
/// pass over memory.
pub(super) struct Stream {
    x: Hidden,
    pending: Option<Hidden>,
}

impl From<Hidden> for Stream {
    fn from(x: Hidden) -> Self {
        Self { x, pending: None }
    }
}

impl Stream {
    /// The sum.
    pub(super) fn sum(self) -> Hidden {
        match self.pending {
            Some(y) => self.x + y,
            None => self.x,
        }
    }

    /// The sum, and its norm.
    pub(super) fn normed(self, norm: &RmsNorm) -> (Hidden, Hidden) {
        match self.pending {
            Some(y) => norm.add_forward(self.x, y),
            None => {
                let normed = norm.forward(&self.x);
                (self.x, normed)
            }
        }
    }

    /// The stream with its sum made, which `observe` gets, if there is somebody who observes.
    pub(super) fn observed(self, observe: &mut Option<&mut dyn FnMut(&Hidden)>) -> Self {
        let Some(observe) = observe else { return self };
        let x = self.sum();
        observe(&x);
        x.into()
    }
}

/// Where in a layer values are added to the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Site {
    Attention,
    Mlp,
}

/// How the output of attention or MLP is added to the residual stream: training drops some of it. `None` where it is
/// added as it is.
pub(super) type Addition<'a> = Option<&'a dyn Fn(Site, Hidden, Hidden) -> Hidden>;

fn add_residual(add: Addition<'_>, site: Site, stream: Stream, y: Hidden) -> Stream {
    match add {
        None => Stream { x: stream.sum(), pending: Some(y) },
        Some(add) => add(site, stream.sum(), y).into(),
    }
}
