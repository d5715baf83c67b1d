//! The kernels for one model's dimensions, on one device.

use mk_sys::abi::{MkGemm, MkShape};
use mk_sys::device::{Device, Grid, Kernel, Module};

use super::raw::{self, Variable};
use crate::config::Config;
use crate::error::{Error, Result};

/// `hidden_size` and `intermediate_size` that there are kernels for: Qwen3-0.6B, and 1.7B.
const SHAPES: [(usize, usize); 2] = [(1024, 3072), (2048, 6144)];

/// What a model's launches need to know of its kernels.
pub(super) struct Kernels {
    pub(super) shape: MkShape,
    pub(super) decode: Kernel,
    pub(super) pack_layer: Kernel,
    pub(super) pack_head: Kernel,
    pub(super) embed: Kernel,
    pub(super) norm: Kernel,
    pub(super) heads: Kernel,
    pub(super) attention: (Kernel, MkGemm),
    /// Products whose result is stored.
    pub(super) store: Gemms,
    /// Of gate and up, with the activation.
    pub(super) gate: Gemms,
    /// Added to the residual stream.
    pub(super) add: Gemms,
    /// The same where a block of the decode kernel has 8 rows.
    pub(super) add8: Gemms,
}

/// A matrix product of the prefill in two sizes of tiles.
pub(super) struct Gemms {
    pub(super) large: (Kernel, MkGemm),
    pub(super) small: (Kernel, MkGemm),
}

impl Kernels {
    /// Loads the kernels and checks that model and device fit them.
    ///
    /// # Errors
    /// [`Error::Unavailable`], with what does not fit.
    pub(super) fn load(device: &Device, config: &Config) -> Result<Self> {
        let (hidden, inter) = (config.hidden_size, config.intermediate_size);
        if !SHAPES.contains(&(hidden, inter)) {
            return Err(unavailable(format!(
                "there is no kernel for hidden_size {hidden} with intermediate_size {inter}, only for {}",
                SHAPES.map(|(h, i)| format!("{h} with {i}")).join(" and ")
            )));
        }
        let image = mk_sys::kernels::image(device.info().compute_capability)
            .map_err(|e| unavailable(e.to_string()))?;
        let module = device.load(image)?;
        let shape: MkShape = read(&module, &format!("mk_shape_{hidden}_{inter}"))?;
        let heads = (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
        let built = (shape.q_heads as usize, shape.kv_heads as usize, shape.head_dim as usize);
        if heads != built {
            return Err(unavailable(format!(
                "the kernel has (attention heads, key-value heads, head_dim) = {built:?}, the model {heads:?}"
            )));
        }
        if config.vocab_size > shape.max_vocab as usize {
            let (found, most) = (config.vocab_size, shape.max_vocab);
            return Err(unavailable(format!(
                "a vocabulary of {found}: the kernel takes {most} at most"
            )));
        }
        let kernel = |name: &str| module.kernel(&format!("mk_{name}_{hidden}_{inter}"));
        let configs: [MkGemm; 5] = read(&module, "mk_gemm_configs")?;
        let [large, small, large_gate, small_gate, attention] = configs;
        let sized = |name: &str, config: MkGemm| -> Result<(Kernel, MkGemm)> {
            let kernel = module.kernel(name)?;
            kernel.allow_shared_memory(config.shared_bytes)?;
            Ok((kernel, config))
        };
        let gemms = |name: &str, large: MkGemm, small: MkGemm| -> Result<Gemms> {
            Ok(Gemms {
                large: sized(&format!("mk_gemm_{name}_large"), large)?,
                small: sized(&format!("mk_gemm_{name}_small"), small)?,
            })
        };
        let kernels = Self {
            shape,
            embed: module.kernel("mk_embed")?,
            norm: module.kernel("mk_norm")?,
            heads: module.kernel("mk_heads")?,
            attention: sized("mk_attention", attention)?,
            store: gemms("store", large, small)?,
            gate: gemms("gate", large_gate, small_gate)?,
            add: gemms("add", large, small)?,
            add8: gemms("add8", large, small)?,
            decode: kernel("decode")?,
            pack_layer: kernel("pack_layer")?,
            pack_head: kernel("pack_head")?,
        };
        kernels.check_residency(device)?;
        Ok(kernels)
    }

    /// The decode kernel's blocks wait for each other, so all of them must be on the device at once.
    fn check_residency(&self, device: &Device) -> Result<()> {
        let MkShape { blocks, threads, shared_bytes, .. } = self.shape;
        self.decode.allow_shared_memory(shared_bytes)?;
        let resident = self.decode.resident_blocks(threads, shared_bytes)?;
        if resident < blocks {
            return Err(unavailable(format!(
                "the kernel needs {blocks} blocks at once, {} holds {resident}",
                device.info().name
            )));
        }
        Ok(())
    }

    /// The decode kernel's launch.
    pub(super) fn decode_grid(&self) -> Grid {
        Grid {
            blocks: [self.shape.blocks, 1, 1],
            threads: self.shape.threads,
            shared: self.shape.shared_bytes,
            cooperative: true,
        }
    }
}

/// A variable of the module.
pub(super) fn read<T: Variable>(module: &Module, name: &str) -> Result<T> {
    raw::parse(&module.variable(name)?)
        .ok_or_else(|| Error::Device("the kernels are of another version than this program".into()))
}

/// Why the backend cannot be had.
pub(super) fn unavailable(reason: String) -> Error {
    Error::Unavailable { what: "the CUDA backend".into(), reason }
}
