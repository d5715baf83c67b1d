//! One sequence on the device: its cache, its exchange buffers, its mailbox.

use std::sync::atomic::Ordering;

use mk_sys::abi::{MK_TILE, MkShape};
use mk_sys::device::{Device, HostMemory, Memory, Stream};

use crate::error::Result;

/// Tokens of one launch: bounds how long other sequences wait, who share the device launch by launch.
pub(super) const LAUNCH: usize = 64;
/// Ids or rows handed in to one launch at most.
pub(super) const MAX_HANDED_IN: usize = 256;
/// Positions that a new cache has room for.
const FIRST_POSITIONS: usize = 1024;

/// What a sequence's launches write.
pub(super) struct Buffers {
    pub(super) cache: Cache,
    /// What blocks hand to each other.
    pub(super) exchange: Memory,
    /// Two sets of ids, a bit each: seen, and suppressed.
    pub(super) masks: Memory,
    /// Ids handed in: u32 `[MAX_HANDED_IN]`.
    pub(super) forced: Memory,
    /// Rows handed in: bf16 `[rows][hidden_size]`, then the same as f32; for `MAX_HANDED_IN` rows at most.
    pub(super) rows: Memory,
    pub(super) mailbox: Mailbox,
}

impl Buffers {
    /// For a new sequence.
    pub(super) fn new(
        device: &Device,
        shape: &MkShape,
        layers: usize,
        vocab: usize,
    ) -> Result<Self> {
        Self::with(Cache::new(device, shape, layers)?, device, shape, vocab)
    }

    /// For a sequence whose cache is there.
    pub(super) fn with(
        cache: Cache,
        device: &Device,
        shape: &MkShape,
        vocab: usize,
    ) -> Result<Self> {
        Ok(Self {
            cache,
            exchange: device.memory(shape.exchange_bytes as usize)?,
            // Whole words of 64 bits, as `Seen` has them.
            masks: device.memory(2 * vocab.div_ceil(64) * 8)?,
            forced: device.memory(MAX_HANDED_IN * 4)?,
            rows: device.memory(MAX_HANDED_IN * shape.hidden as usize * 6)?,
            mailbox: Mailbox::new(device)?,
        })
    }
}

/// Keys and values: `[layers][kv_heads][tiles]` of `MkShape::tile_bytes` each.
pub(super) struct Cache {
    device: Device,
    memory: Memory,
    tiles: usize,
    /// One for each layer and key head.
    lanes: usize,
    tile_bytes: usize,
}

impl Cache {
    fn new(device: &Device, shape: &MkShape, layers: usize) -> Result<Self> {
        let lanes = layers * shape.kv_heads as usize;
        let tile_bytes = shape.tile_bytes as usize;
        Self::of(device, lanes, tile_bytes, FIRST_POSITIONS / MK_TILE as usize)
    }

    fn of(device: &Device, lanes: usize, tile_bytes: usize, tiles: usize) -> Result<Self> {
        let memory = device.memory(lanes * tiles * tile_bytes)?;
        Ok(Self { device: device.clone(), memory, tiles, lanes, tile_bytes })
    }

    /// Tiles it has room for.
    pub(super) fn tiles(&self) -> usize {
        self.tiles
    }

    /// Its address on the device.
    pub(super) fn address(&self) -> u64 {
        self.memory.address()
    }

    /// Makes room for `positions`, of which `used` are kept. Doubles, so that growing costs little on the whole.
    pub(super) fn reserve(&mut self, stream: &Stream, positions: usize, used: usize) -> Result<()> {
        let wanted = positions.div_ceil(MK_TILE as usize);
        if wanted > self.tiles {
            *self = self.copy(stream, wanted.max(2 * self.tiles), used)?;
        }
        Ok(())
    }

    /// A copy with room for as much, of which `used` positions are copied.
    pub(super) fn fork(&self, stream: &Stream, used: usize) -> Result<Self> {
        self.copy(stream, self.tiles, used)
    }

    fn copy(&self, stream: &Stream, tiles: usize, used: usize) -> Result<Self> {
        let copy = Self::of(&self.device, self.lanes, self.tile_bytes, tiles)?;
        let bytes = used.div_ceil(MK_TILE as usize) * self.tile_bytes;
        for lane in 0..self.lanes {
            let (from, to) = (lane * self.tiles * self.tile_bytes, lane * tiles * self.tile_bytes);
            stream.copy((&self.memory, from), (&copy.memory, to), bytes)?;
        }
        // The old memory is freed by whoever drops it, so its copy must be over.
        stream.synchronize()?;
        Ok(copy)
    }
}

/// Host memory in which a launch reports, and may be told to end: a status, then a word for each token.
pub(super) struct Mailbox {
    memory: HostMemory,
}

/// Words of 32 bits before the tokens: an `MkStatus`.
const STATUS_WORDS: usize = 4;

impl Mailbox {
    fn new(device: &Device) -> Result<Self> {
        Ok(Self { memory: device.host_memory(STATUS_WORDS * 4 + MAX_HANDED_IN * 8)? })
    }

    /// Tokens that fit.
    pub(super) fn capacity(&self) -> usize {
        self.memory.long_words().len() - STATUS_WORDS / 2
    }

    pub(super) fn status_address(&self) -> u64 {
        self.memory.address()
    }

    pub(super) fn tokens_address(&self) -> u64 {
        self.memory.address() + STATUS_WORDS as u64 * 4
    }

    /// Empties it, before a launch that makes so many tokens.
    pub(super) fn clear(&self, tokens: usize) {
        let words = STATUS_WORDS / 2 + tokens;
        self.memory.long_words()[..words].iter().for_each(|w| w.store(0, Ordering::Release));
    }

    /// The token of this index, if it is there.
    pub(super) fn token(&self, index: usize) -> Option<u32> {
        let word = self.memory.long_words()[STATUS_WORDS / 2 + index].load(Ordering::Acquire);
        (word >> 32 == index as u64 + 1).then_some(word as u32)
    }

    /// Asks the launch to end with the token it is at.
    pub(super) fn cancel(&self) {
        self.memory.words()[2].store(1, Ordering::Release);
    }

    /// The phase in which the launch gave up and the index of its token; `None` while all is well.
    pub(super) fn failure(&self) -> Option<(u32, usize)> {
        let words = self.memory.words();
        let code = words[0].load(Ordering::Acquire);
        (code != 0).then(|| (code >> 24, words[1].load(Ordering::Acquire) as usize))
    }
}
