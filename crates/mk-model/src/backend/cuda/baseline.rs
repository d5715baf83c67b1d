//! The same decoder as one kernel for each operation, in a CUDA graph that is replayed token by token: what the benchmark
//! compares the megakernel with (`kernels/baseline`). Greedy, one sequence, nothing else.

use std::sync::atomic::Ordering;

use mk_sys::abi::MK_NO_TOKEN;
use mk_sys::device::{Device, HostMemory, Kernel, Memory, Module, Stream};

use super::kernels::{read, unavailable};
use super::raw::{self, BaselineCall};
use super::weights::Loader;
use crate::checkpoint::{Checkpoint, Layout};
use crate::config::Config;
use crate::error::{Error, Result};

/// Attention heads, key-value heads and head_dim that the kernels are made for.
const HEADS: (usize, usize, usize) = (16, 8, 128);
/// Positions that a block of the attention takes at least, and into how many parts they are split.
const SPLIT_POSITIONS: usize = 64;
const SPLITS: (usize, usize) = (4, 32);
/// Replays that are queued before the token of the first of them is there: the GPU never waits for the host.
const AHEAD: usize = 8;
/// Looks at the mailbox between two questions to the driver whether something failed.
const LOOKS: u32 = 4096;
/// Position, last token, start, number of ids handed in: u32 each.
pub(super) const STATE_BYTES: usize = 16;

/// A decoder to compare with.
pub struct Baseline {
    config: Config,
    stream: Stream,
    kernels: BaselineKernels,
    weights: PlainWeights,
    buffers: Buffers,
    device: Device,
    len: usize,
    overlapping: bool,
}

/// Its kernels.
pub(super) struct BaselineKernels {
    pub(super) embed: Kernel,
    pub(super) norm: Kernel,
    pub(super) heads: Kernel,
    pub(super) attention: Kernel,
    pub(super) merge: Kernel,
    pub(super) argmax: Kernel,
    pub(super) qkv: Gemv,
    pub(super) o: Gemv,
    pub(super) gate: Gemv,
    pub(super) down: Gemv,
    pub(super) head: Gemv,
}

/// A product with one vector.
pub(super) struct Gemv {
    pub(super) kernel: Kernel,
    /// Rows of a block.
    pub(super) block_rows: usize,
}

/// Weights as a checkpoint has them, bf16.
pub(super) struct PlainWeights {
    /// `[layers]`, each its matrices one after the other.
    pub(super) layers: Memory,
    pub(super) layer_bytes: usize,
    /// Where in a layer begin: q, k and v; o; gate and up; down.
    pub(super) matrices: [usize; 4],
    pub(super) embedding: Memory,
    /// `None`: the embedding.
    pub(super) head: Option<Memory>,
    pub(super) norms: Memory,
    pub(super) rope: Memory,
}

/// What a token's launches hand to each other.
pub(super) struct Buffers {
    /// Positions of the cache.
    pub(super) capacity: usize,
    /// bf16 `[layers][kv_heads][capacity][head_dim]`.
    pub(super) keys_cache: Memory,
    pub(super) values_cache: Memory,
    /// u32 `[capacity]`.
    pub(super) forced: Memory,
    /// f32 `[hidden_size]`: the residual stream.
    pub(super) x: Memory,
    /// bf16 `[hidden_size]`.
    pub(super) normed: Memory,
    /// f32: queries, keys and values, or logits.
    pub(super) numbers: Memory,
    /// bf16 `[heads][head_dim]`, as the next.
    pub(super) queries: Memory,
    pub(super) attended: Memory,
    /// bf16 `[intermediate_size]`.
    pub(super) activated: Memory,
    /// f32 `[splits][heads][head_dim]`.
    pub(super) parts: Memory,
    /// f32 `[splits][heads][2]`.
    pub(super) states: Memory,
    /// u64, one for each block of the head.
    pub(super) keys: Memory,
    pub(super) state: Memory,
}

impl Baseline {
    /// Loads a Qwen3 on the GPU of this number, for texts of at most `capacity` positions.
    ///
    /// # Errors
    /// As [`crate::Model::load`] with [`crate::Device::Cuda`].
    pub fn load(checkpoint: &Checkpoint, ordinal: usize, capacity: usize) -> Result<Self> {
        checkpoint.audit(&mut |_| {})?;
        let config = checkpoint.config().clone();
        let device = Device::open(ordinal).map_err(|e| unavailable(e.to_string()))?;
        let heads = (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
        if heads != HEADS {
            return Err(unavailable(format!(
                "there is nothing to compare with for heads {heads:?}"
            )));
        }
        let image = mk_sys::kernels::image(device.info().compute_capability)
            .map_err(|e| unavailable(e.to_string()))?;
        let kernels = BaselineKernels::load(&device.load(image)?, &config)?;
        let stream = device.stream()?;
        let weights = PlainWeights::load(&device, &stream, &config, checkpoint)?;
        let buffers = Buffers::new(&device, &config, capacity)?;
        Ok(Self { config, stream, kernels, weights, buffers, device, len: 0, overlapping: false })
    }

    /// Whether a kernel may begin, and have its weights on the way, while the one before it ends (programmatic dependent
    /// launches); it may not at first.
    pub fn set_overlapping(&mut self, overlapping: bool) {
        self.overlapping = overlapping;
    }

    /// Positions in the cache.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all positions from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Appends `ids`, one after the other, then the most likely token after them, and so on, until `tokens` have been
    /// made. `each` hears of the most likely token after every position, those of `ids` included, as it is made. The last
    /// one is not in the cache.
    ///
    /// # Errors
    /// Ids out of range or none, a full cache, [`Error::NotFinite`], a failure of the device.
    pub fn run(&mut self, ids: &[u32], tokens: usize, each: &mut dyn FnMut(u32)) -> Result<()> {
        let (used, capacity, vocab_size) =
            (self.len, self.buffers.capacity, self.config.vocab_size);
        let steps = (ids.len() + tokens).saturating_sub(1);
        if ids.is_empty() || steps == 0 {
            return Err(Error::EmptyInput);
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocab_size) {
            return Err(Error::TokenOutOfRange { id: *id, vocab_size });
        }
        if used + steps > capacity {
            return Err(Error::ContextFull { wanted: steps, used, capacity });
        }
        self.stream.upload(&self.buffers.forced, 0, bytemuck::cast_slice(ids))?;
        let state = [used as u32, 0, used as u32, ids.len() as u32];
        self.stream.upload(&self.buffers.state, 0, bytemuck::cast_slice(&state))?;
        let mailbox = self.device.host_memory(steps * 8)?;
        let done = self.replay(&mailbox, steps, each);
        // The mailbox may not go while a launch still writes to it.
        self.stream.synchronize()?;
        done?;
        self.len += steps;
        Ok(())
    }

    fn replay(
        &mut self,
        mailbox: &HostMemory,
        steps: usize,
        each: &mut dyn FnMut(u32),
    ) -> Result<()> {
        let splits = ((self.len + steps) / SPLIT_POSITIONS).clamp(SPLITS.0, SPLITS.1);
        let call = BaselineCall {
            config: &self.config,
            kernels: &self.kernels,
            weights: &self.weights,
            buffers: &self.buffers,
            mailbox,
            splits,
            overlapping: self.overlapping,
        };
        let mut graph = self.stream.record(|| raw::queue_token(&self.stream, &call))?;
        let mut queued = 0;
        for index in 0..steps {
            while queued < steps.min(index + AHEAD) {
                raw::replay(&self.stream, &mut graph)?;
                queued += 1;
            }
            match self.arrival(mailbox, index)? {
                MK_NO_TOKEN => {
                    return Err(Error::NotFinite { what: "logits", position: self.len + index });
                }
                token => each(token),
            }
        }
        Ok(())
    }

    /// Waits for the token of this index.
    fn arrival(&self, mailbox: &HostMemory, index: usize) -> Result<u32> {
        let arrived = || {
            let word = mailbox.long_words()[index].load(Ordering::Acquire);
            (word >> 32 == index as u64 + 1).then_some(word as u32)
        };
        for look in 1_u32.. {
            if let Some(token) = arrived() {
                return Ok(token);
            }
            if look % LOOKS == 0 && self.stream.is_done()? {
                break;
            }
            std::hint::spin_loop();
        }
        arrived().ok_or_else(|| Error::Device("the graph ended without a token".into()))
    }

    /// The logits of the last position, f32 `[vocab_size]`.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn logits(&self) -> Result<Vec<f32>> {
        let mut logits = vec![0.0_f32; self.config.vocab_size];
        self.stream.download(&self.buffers.numbers, 0, bytemuck::cast_slice_mut(&mut logits))?;
        Ok(logits)
    }
}

impl BaselineKernels {
    fn load(module: &Module, config: &Config) -> Result<Self> {
        let shape = format!("{}_{}", config.hidden_size, config.intermediate_size);
        let kernel = |name: &str| module.kernel(&format!("mk_base_{name}"));
        let gemv = |name: &str| -> Result<Gemv> {
            let name = format!("{name}_{shape}");
            let block_rows: u32 = read(module, &format!("mk_base_rows_{name}"))?;
            Ok(Gemv { kernel: kernel(&name)?, block_rows: block_rows as usize })
        };
        Ok(Self {
            embed: kernel("embed")?,
            norm: kernel("norm")?,
            heads: kernel("heads")?,
            attention: kernel("attention")?,
            merge: kernel("merge")?,
            argmax: kernel("argmax")?,
            qkv: gemv("qkv")?,
            o: gemv("o")?,
            gate: gemv("gate")?,
            down: gemv("down")?,
            head: gemv("head")?,
        })
    }
}

impl PlainWeights {
    fn load(
        device: &Device,
        stream: &Stream,
        config: &Config,
        checkpoint: &Checkpoint,
    ) -> Result<Self> {
        let (layout, tensors) = (Layout::qwen3(), checkpoint.tensors());
        let loader = Loader { device, stream, tensors };
        let hidden = config.hidden_size;
        let rows = 2 * config.q_size() + 2 * config.kv_size() + 3 * config.intermediate_size;
        let layer_bytes = rows * hidden * 2;
        let layers = device.memory(config.num_hidden_layers * layer_bytes)?;
        let mut matrices = [0; 4];
        for layer in (0..config.num_hidden_layers).rev() {
            // The last one copied is the first layer, so that these are offsets within any.
            matrices = loader.layer(&layout, layer, (&layers, layer * layer_bytes))?;
        }
        let tied = layout.is_tied(config, tensors);
        let embedding = layout.embedding.as_deref().unwrap_or_default();
        let weights = Self {
            layers,
            layer_bytes,
            matrices,
            embedding: loader.matrix(embedding)?,
            head: if tied { None } else { Some(loader.matrix(&layout.heads[0])?) },
            norms: loader.norms(config, &layout)?,
            rope: loader.rope(config)?,
        };
        stream.synchronize()?;
        Ok(weights)
    }
}

impl Buffers {
    fn new(device: &Device, config: &Config, capacity: usize) -> Result<Self> {
        let (q_size, kv_size) = (config.q_size(), config.kv_size());
        let cache = || device.memory(config.num_hidden_layers * kv_size * capacity * 2);
        Ok(Self {
            capacity,
            keys_cache: cache()?,
            values_cache: cache()?,
            forced: device.memory(capacity * 4)?,
            x: device.memory(config.hidden_size * 4)?,
            normed: device.memory(config.hidden_size * 2)?,
            numbers: device.memory(config.vocab_size.max(q_size + 2 * kv_size) * 4)?,
            queries: device.memory(q_size * 2)?,
            attended: device.memory(q_size * 2)?,
            activated: device.memory(config.intermediate_size * 2)?,
            parts: device.memory(SPLITS.1 * q_size * 4)?,
            states: device.memory(SPLITS.1 * config.num_attention_heads * 8)?,
            keys: device.memory(config.vocab_size * 8)?,
            state: device.memory(STATE_BYTES)?,
        })
    }
}
