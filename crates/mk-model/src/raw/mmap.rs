//! Read-only memory maps of weight files.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// A whole file, mapped.
#[derive(Debug)]
pub(crate) struct Map(memmap2::Mmap);

impl Map {
    /// Maps the file at `path`; nothing is read until it is used.
    ///
    /// The file must not be truncated while the map lives: reading a page that is gone ends the process with SIGBUS.
    /// Checkpoints are replaced by renaming, which leaves the mapped file whole.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the map is read-only and never handed out as anything but bytes and plain numbers, for which every
        // bit pattern is valid. What remains is another process changing the file under us: values may then change
        // between reads, which no code here relies on, or the process ends with SIGBUS, as said above.
        let map = unsafe { memmap2::Mmap::map(&file) }?;
        Ok(Self(map))
    }
}

impl Deref for Map {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}
