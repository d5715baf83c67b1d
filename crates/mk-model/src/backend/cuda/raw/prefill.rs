//! The launches that take a batch of positions through the layers.

use mk_sys::abi::{MK_TILE, MkGemm, MkPrefill};
use mk_sys::device::{Grid, Kernel, Memory, Stream};
use mk_sys::driver::DriverError;

use super::super::kernels::{Gemms, Kernels};
use super::super::prefill::{BATCH, Scratch};
use super::super::state::Cache;
use super::super::weights::Weights;

/// Up to so many times the columns of a product are split, as long as there are no more blocks than multiprocessors.
const MOST_SPLITS: u32 = 4;

/// A batch of positions.
pub(in super::super) struct PrefillCall<'a> {
    pub(in super::super) kernels: &'a Kernels,
    pub(in super::super) weights: &'a Weights,
    pub(in super::super) cache: &'a Cache,
    pub(in super::super) scratch: &'a Scratch,
    pub(in super::super) layers: usize,
    pub(in super::super) eps: f32,
    pub(in super::super) position: usize,
    pub(in super::super) tokens: usize,
    /// Whether `Scratch::rows` holds the input, rather than `Scratch::ids`.
    pub(in super::super) by_rows: bool,
}

/// Appends the batch to the cache. Its last layer's result is not read out by anybody.
pub(in super::super) fn prefill(
    stream: &Stream,
    call: &PrefillCall<'_>,
) -> Result<(), DriverError> {
    let PrefillCall { kernels, weights, cache, scratch, .. } = call;
    let shape = &kernels.shape;
    let (hidden, inter) = (shape.hidden as usize, shape.inter as usize);
    let q_size = (shape.q_heads * shape.head_dim) as usize;
    let qkv_size = q_size + 2 * (shape.kv_heads * shape.head_dim) as usize;
    let end = call.position + call.tokens;
    assert!((1..=BATCH).contains(&call.tokens), "an empty batch, or one too large");
    assert!(end <= cache.tiles() * MK_TILE as usize, "the cache is too small");
    assert!(weights.rope.len() >= end * shape.head_dim as usize * 4, "beyond the table of angles");
    assert!(call.by_rows || weights.embedding.is_some(), "ids for a model without an embedding");

    let base = MkPrefill {
        weights: std::ptr::null(),
        norms: std::ptr::null(),
        rope: weights.rope.address() as *const f32,
        kv: std::ptr::null_mut(),
        embed: weights.embedding.as_ref().map_or(0, Memory::address) as *const u16,
        ids: if call.by_rows { 0 } else { scratch.ids.address() } as *const u32,
        rows: scratch.rows.address() as *const f32,
        x: scratch.x.address() as *mut f32,
        input: std::ptr::null(),
        output: std::ptr::null_mut(),
        partials: scratch.partials.address() as *mut f32,
        tokens: call.tokens as i32,
        pos0: call.position as i32,
        max_tiles: cache.tiles() as i32,
        hidden: hidden as i32,
        columns: 0,
        out_columns: 0,
        slice: 0,
        steps: 0,
        tiles_per_block: 1,
        gate_rows: 0,
        splits: 1,
        eps: call.eps,
    };
    let launch = |kernel: &Kernel, blocks: [u32; 3], threads: u32, shared: u32, p: &MkPrefill| {
        let grid = Grid { blocks, threads, shared, cooperative: false };
        // SAFETY: scratch has room for a batch of this shape, and its owner lets one prefill at a time have it until the
        // stream is done. The cache is one sequence's. Weights are only read. The checks above hold the sizes. Where kernels
        // overlap, each waits for the one before it.
        unsafe {
            if kernels.overlapping {
                stream.launch_overlapping(kernel, grid, p)
            } else {
                stream.launch(kernel, grid, p)
            }
        }
    };
    let tokens = call.tokens as u32;
    let norm = |norms: u64, splits: u32| {
        let output = scratch.normed.address() as *mut u16;
        let p = MkPrefill { norms: norms as *const u16, output, splits: splits as i32, ..base };
        launch(&kernels.norm, [tokens, 1, 1], 256, 0, &p)
    };
    let blocks =
        |gemm: &MkGemm, rows: usize| [rows as u32 / gemm.rows, tokens.div_ceil(gemm.tokens), 1];
    let product = |gemms: &Gemms, rows: usize, splits: u32, p: MkPrefill| {
        let [x, y, _] = blocks(&gemms.large.1, rows);
        // The smaller tiles where large ones leave a quarter of the device idle.
        let (kernel, config) =
            if x * y < kernels.multiprocessors * 3 / 4 { &gemms.small } else { &gemms.large };
        let [x, y, _] = blocks(config, rows);
        let p = MkPrefill { steps: p.slice / 64, ..p };
        launch(kernel, [x, y, splits], config.threads, config.shared_bytes, &p)
    };
    // Products that are added to the residual have few rows. Their parts are added by the norm that comes after.
    let [x, y, _] = blocks(&kernels.add.small.1, hidden);
    let mut splits = 1;
    while splits < MOST_SPLITS && x * y * splits * 2 <= kernels.multiprocessors {
        splits *= 2;
    }
    let parts = splits as usize * call.tokens * hidden * 4;
    assert!(splits == 1 || parts <= scratch.partials.len(), "the parts of a product do not fit");

    launch(&kernels.embed, [tokens, 1, 1], 256, 0, &base)?;
    let layer_norms = (2 * hidden + 2 * shape.head_dim as usize) * 2;
    let cache_layer = shape.kv_heads as usize * cache.tiles() * shape.tile_bytes as usize;
    for layer in 0..call.layers {
        let norms = weights.norms.address() + (layer * layer_norms) as u64;
        let matrices = weights.layers.address() + layer as u64 * shape.layer_bytes;
        let kv = (cache.address() + (layer * cache_layer) as u64) as *mut u8;
        let with = |matrix: u64, input: &Memory, columns: usize, slices: usize| MkPrefill {
            weights: (matrices + matrix) as *const u8,
            input: input.address() as *const u16,
            columns: columns as i32,
            slice: (columns / slices) as i32,
            out_columns: hidden as i32,
            ..base
        };
        norm(norms, if layer == 0 { 1 } else { splits })?;
        let qkv = MkPrefill {
            output: scratch.qkv.address() as *mut u16,
            out_columns: qkv_size as i32,
            tiles_per_block: (qkv_size as u32 / shape.shares / 16) as i32,
            ..with(shape.qkv_weights, &scratch.normed, hidden, 16)
        };
        product(&kernels.store, qkv_size, 1, qkv)?;
        let heads = MkPrefill {
            norms: norms as *const u16,
            kv,
            input: scratch.qkv.address() as *const u16,
            output: scratch.queries.address() as *mut u16,
            ..base
        };
        launch(&kernels.heads, [tokens, 1, 1], 128 * shape.kv_heads, 0, &heads)?;
        let attention = MkPrefill {
            kv,
            input: scratch.queries.address() as *const u16,
            output: scratch.attended.address() as *mut u16,
            ..base
        };
        let (kernel, config) = &kernels.attention;
        let blocks = [tokens.div_ceil(config.tokens), shape.kv_heads, 1];
        launch(kernel, blocks, config.threads, config.shared_bytes, &attention)?;
        let add = if shape.hidden / shape.shares == 8 { &kernels.add8 } else { &kernels.add };
        product(add, hidden, splits, with(shape.o_weights, &scratch.attended, q_size, 16))?;
        norm(norms + 2 * hidden as u64, splits)?;
        let gate_rows = shape.inter / shape.shares;
        let gate = MkPrefill {
            output: scratch.activated.address() as *mut u16,
            out_columns: inter as i32,
            tiles_per_block: (2 * gate_rows / 16) as i32,
            gate_rows: gate_rows as i32,
            ..with(shape.gate_up_weights, &scratch.normed, hidden, 16)
        };
        product(&kernels.gate, 2 * inter, 1, gate)?;
        product(add, hidden, splits, with(shape.down_weights, &scratch.activated, inter, 16))?;
    }
    Ok(())
}
