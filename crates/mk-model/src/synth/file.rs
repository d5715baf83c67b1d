//! Files that appear under their name only when they are whole.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};

/// Writes `dir/name` through a temporary file beside it, which is renamed at the end, or removed on failure.
///
/// # Errors
/// Whatever `fill` or the system says.
pub fn write(
    dir: &Path,
    name: &str,
    fill: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<()> {
    let path = dir.join(name);
    let temporary = dir.join(format!(".{name}.{}", std::process::id()));
    let attempt = || {
        let mut out = BufWriter::new(File::create(&temporary)?);
        fill(&mut out)?;
        out.into_inner().map_err(|e| e.into_error())?;
        fs::rename(&temporary, &path)
    };
    attempt().map_err(|source| {
        // The first error is the one worth telling.
        let _ = fs::remove_file(&temporary);
        Error::Io { path, source }
    })
}

/// Writes a JSON file: two spaces of indentation, as Hugging Face's tools do.
///
/// # Errors
/// Failures to write.
pub fn write_json(dir: &Path, name: &str, value: &Value) -> Result<()> {
    write(dir, name, |out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        out.write_all(b"\n")
    })
}
