//! The launches of a token by one kernel for each operation.

use mk_sys::abi::{MkBaseline, MkBaselineState};
use mk_sys::device::{Graph, Grid, HostMemory, Kernel, Memory, Stream};
use mk_sys::driver::DriverError;

use super::super::baseline::{BaselineKernels, Buffers, Gemv, PlainWeights, STATE_BYTES};
use crate::config::Config;

const _: () = assert!(size_of::<MkBaselineState>() == STATE_BYTES);

/// What a token's launches work on.
pub(in super::super) struct BaselineCall<'a> {
    pub(in super::super) config: &'a Config,
    pub(in super::super) kernels: &'a BaselineKernels,
    pub(in super::super) weights: &'a PlainWeights,
    pub(in super::super) buffers: &'a Buffers,
    /// One word for each token.
    pub(in super::super) mailbox: &'a HostMemory,
    /// Parts of the positions that attention is split into.
    pub(in super::super) splits: usize,
    /// Whether a kernel may begin while the one before it ends.
    pub(in super::super) overlapping: bool,
}

/// Puts one token's launches on a stream.
pub(in super::super) fn queue_token(
    stream: &Stream,
    call: &BaselineCall<'_>,
) -> Result<(), DriverError> {
    let BaselineCall { config, kernels, weights, buffers, mailbox, splits, overlapping } = call;
    let (hidden, inter, vocab) = (config.hidden_size, config.intermediate_size, config.vocab_size);
    let (q_size, kv_size) = (config.q_size(), config.kv_size());
    let (kv_heads, head_dim) = (config.num_key_value_heads, config.head_dim);
    let at = |memory: &Memory, offset: usize| memory.address() + offset as u64;
    let base = MkBaseline {
        weights: std::ptr::null(),
        norms: std::ptr::null(),
        embed: weights.embedding.address() as *const u16,
        rope: weights.rope.address() as *const f32,
        forced: buffers.forced.address() as *const u32,
        x: buffers.x.address() as *mut f32,
        input: std::ptr::null(),
        output: std::ptr::null_mut(),
        numbers: buffers.numbers.address() as *mut f32,
        k: std::ptr::null_mut(),
        v: std::ptr::null_mut(),
        parts: buffers.parts.address() as *mut f32,
        states: buffers.states.address() as *mut _,
        keys: buffers.keys.address() as *mut u64,
        state: buffers.state.address() as *mut _,
        out: mailbox.address() as *mut u64,
        hidden: hidden as i32,
        rows: 0,
        capacity: buffers.capacity as i32,
        splits: *splits as i32,
        eps: config.rms_norm_eps,
        reserved: 0,
    };
    let launch = |kernel: &Kernel, blocks: [usize; 2], threads: u32, p: &MkBaseline| {
        let blocks = [blocks[0] as u32, blocks[1] as u32, 1];
        let grid = Grid { blocks, threads, shared: 0, cooperative: false };
        // SAFETY: the buffers are made for this model and `capacity` positions, of which the caller runs no more; they are
        // one decoder's, whose launches are in order on its stream. Weights are only read, and each kernel waits before it
        // touches anything else.
        unsafe {
            if *overlapping {
                stream.launch_overlapping(kernel, grid, p)
            } else {
                stream.launch(kernel, grid, p)
            }
        }
    };
    let product = |gemv: &Gemv, matrix: u64, rows: usize, input: &Memory, p: MkBaseline| {
        let input = input.address() as *const u16;
        let p = MkBaseline { weights: matrix as *const u16, rows: rows as i32, input, ..p };
        launch(&gemv.kernel, [rows.div_ceil(gemv.block_rows), 1], 128, &p)
    };
    let norm = |norms: u64| {
        let output = buffers.normed.address() as *mut u16;
        launch(
            &kernels.norm,
            [1, 1],
            256,
            &MkBaseline { norms: norms as *const u16, output, ..base },
        )
    };

    launch(&kernels.embed, [1, 1], 256, &base)?;
    let layer_norms = (2 * hidden + 2 * head_dim) * 2;
    let cache_layer = kv_heads * buffers.capacity * head_dim * 2;
    for layer in 0..config.num_hidden_layers {
        let norms = at(&weights.norms, layer * layer_norms);
        let [qkv, o, gate_up, down] =
            weights.matrices.map(|start| at(&weights.layers, layer * weights.layer_bytes + start));
        let base = MkBaseline {
            k: at(&buffers.keys_cache, layer * cache_layer) as *mut u16,
            v: at(&buffers.values_cache, layer * cache_layer) as *mut u16,
            ..base
        };
        norm(norms)?;
        product(&kernels.qkv, qkv, q_size + 2 * kv_size, &buffers.normed, base)?;
        let heads = MkBaseline {
            norms: (norms + 4 * hidden as u64) as *const u16,
            output: buffers.queries.address() as *mut u16,
            ..base
        };
        launch(&kernels.heads, [kv_heads, 1], 128, &heads)?;
        let attention = MkBaseline { input: buffers.queries.address() as *const u16, ..base };
        launch(&kernels.attention, [kv_heads, *splits], 128, &attention)?;
        let merge = MkBaseline { output: buffers.attended.address() as *mut u16, ..base };
        launch(&kernels.merge, [config.num_attention_heads, 1], head_dim as u32, &merge)?;
        product(&kernels.o, o, hidden, &buffers.attended, base)?;
        norm(norms + 2 * hidden as u64)?;
        let gate = MkBaseline { output: buffers.activated.address() as *mut u16, ..base };
        product(&kernels.gate, gate_up, inter, &buffers.normed, gate)?;
        product(&kernels.down, down, hidden, &buffers.activated, base)?;
    }
    norm(at(&weights.norms, config.num_hidden_layers * layer_norms))?;
    let head = weights.head.as_ref().unwrap_or(&weights.embedding).address();
    product(&kernels.head, head, vocab, &buffers.normed, base)?;
    let keys = vocab.div_ceil(kernels.head.block_rows);
    launch(&kernels.argmax, [1, 1], 1024, &MkBaseline { rows: keys as i32, ..base })
}

/// Replays a token's launches.
pub(in super::super) fn replay(stream: &Stream, token: &mut Graph) -> Result<(), DriverError> {
    // SAFETY: recorded by `queue_token`, on buffers that the caller still holds, with positions left.
    unsafe { stream.replay(token) }
}
