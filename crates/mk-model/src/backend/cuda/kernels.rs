//! The kernels for one model's dimensions, on one device.

use mk_sys::abi::{MkGemm, MkShape};
use mk_sys::device::{Device, Grid, Kernel, Module};
use mk_sys::kernels::NoKernels;

use super::plan::{Plan, pace};
use super::raw::{self, Variable};
use crate::backend::CudaOptions;
use crate::config::Config;
use crate::error::{Error, Result};

/// `hidden_size` and `intermediate_size` that there are kernels for: Qwen3-0.6B, and 1.7B.
const SHAPES: [(usize, usize); 2] = [(1024, 3072), (2048, 6144)];

/// What a model's launches need to know of its kernels.
pub(super) struct Kernels {
    pub(super) shape: MkShape,
    /// Whether they are those for no chip in particular.
    pub(super) portable: bool,
    /// Whether a kernel of the prefill may start while the one before it still runs.
    pub(super) overlapping: bool,
    /// Of the device, or as many of them as may be used.
    pub(super) multiprocessors: u32,
    /// Of the decode kernel's launches.
    pub(super) plan: Plan,
    /// Clocks between two of a block's copies of weights, at least, in those launches at short contexts; 0: none.
    pub(super) pace: u32,
    /// The highest clock, in MHz.
    pub(super) clock_mhz: u32,
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
    pub(super) fn load(device: &Device, config: &Config, options: &CudaOptions) -> Result<Self> {
        let (hidden, inter) = (config.hidden_size, config.intermediate_size);
        if !SHAPES.contains(&(hidden, inter)) {
            return Err(unavailable(format!(
                "there is no kernel for hidden_size {hidden} with intermediate_size {inter}, only for {}",
                SHAPES.map(|(h, i)| format!("{h} with {i}")).join(" and ")
            )));
        }
        let info = device.info();
        let within = |limit: Option<u32>, has: u32| limit.map_or(has, |limit| limit.min(has));
        let multiprocessors = within(options.multiprocessors, info.multiprocessors);
        let open = |image: std::result::Result<&'static [u8], NoKernels>| {
            let module = device.load(image.map_err(|e| unavailable(e.to_string()))?)?;
            let shape: MkShape = read(&module, &format!("mk_shape_{hidden}_{inter}"))?;
            Ok::<_, Error>((module, shape))
        };
        let mut portable = options.portable;
        let (mut module, mut shape) = open(if portable {
            mk_sys::kernels::portable_image(info.compute_capability)
        } else {
            mk_sys::kernels::image(info.compute_capability)
        })?;
        if shape.min_blocks > multiprocessors {
            portable = true;
            (module, shape) = open(mk_sys::kernels::portable_image(info.compute_capability))?;
        }
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
        let shared = within(options.shared_memory, info.shared_memory_per_block);
        let plan = Plan::new(&shape, multiprocessors, shared)
            .map_err(|reason| unavailable(format!("{reason} ({})", info.name)))?;
        let kernels = Self {
            shape,
            portable,
            // Portable code does without the instructions that wait for the kernel before.
            overlapping: !portable && info.compute_capability >= (9, 0),
            multiprocessors,
            plan,
            pace: pace(&shape, info),
            clock_mhz: (info.clock_khz / 1000).max(1),
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
        let Plan { blocks, shared_bytes, .. } = self.plan;
        self.decode.allow_shared_memory(shared_bytes)?;
        let resident = self.decode.resident_blocks(self.shape.threads, shared_bytes)?;
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
            blocks: [self.plan.blocks, 1, 1],
            threads: self.shape.threads,
            shared: self.plan.shared_bytes,
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
