//! Written graphs, kept as files for the next time.
//!
//! A file's name says what it was made of: a hash of the tensors, of the config, and of the code that writes it. Its last field is a hash of all the bytes before it, which ONNX takes for metadata. A file that was cut off
//! or has changed is thus known, and made anew. Files appear under their name only when they are whole; two processes
//! that write the same file at once write the same bytes.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use mk_model::checkpoint::TensorFiles;
use prost::Message;

use super::Model;
use super::proto::{ModelProto, StringStringEntryProto};
use crate::error::Result;
use crate::runtime::{Graph, Runtime, Source};

/// What a graph follows from, together with the tensors of a checkpoint.
pub struct Fingerprint<'a> {
    /// The source of the code that writes the graph, so that a change to it is a change of the graph.
    pub code: &'a [&'a str],
    /// All of the config that it depends on.
    pub config: &'a str,
    /// What the names of its tensors begin with.
    pub prefix: &'a str,
}

/// The name of the file for a graph called `what`.
pub fn name(what: &str, fingerprint: &Fingerprint<'_>, tensors: &TensorFiles) -> String {
    let mut hasher = blake3::Hasher::new();
    for code in fingerprint.code.iter().chain(&[include_str!("builder.rs")]) {
        hasher.update(code.as_bytes());
    }
    hasher.update(fingerprint.config.as_bytes());
    for tensor in tensors.iter().filter(|tensor| tensor.name().starts_with(fingerprint.prefix)) {
        let head = format!("\n{} {:?} {:?}\n", tensor.name(), tensor.dtype(), tensor.shape());
        hasher.update(head.as_bytes());
        hasher.update_rayon(tensor.bytes());
    }
    format!("mk-{what}-{}.onnx", &hasher.finalize().to_hex()[..32])
}

/// Loads the graph from the first of `folders` that has it, whole; otherwise builds it, keeps it in the first folder
/// that can be written to, and loads it from there, or from memory.
///
/// # Errors
/// Those of `build`, and what the engine says.
pub fn load(
    runtime: &Runtime,
    folders: &[&Path],
    name: &str,
    build: impl FnOnce() -> Result<Model>,
) -> Result<Box<dyn Graph>> {
    let mut paths = folders.iter().map(|folder| folder.join(name));
    if let Some(path) = paths.find(|path| is_whole(path).unwrap_or(false)) {
        return runtime.load(Source::File(&path));
    }
    let model = build()?;
    match folders.iter().find_map(|folder| write(folder, name, &model).ok()) {
        Some(path) => {
            drop(model);
            runtime.load(Source::File(&path))
        }
        None => runtime.load(Source::Bytes(&model.to_bytes())),
    }
}

/// The last field of a file with this hash of all before it. Of the same length for every hash.
fn seal(hash: &blake3::Hash) -> Vec<u8> {
    let entry = StringStringEntryProto {
        key: Some("blake3".into()),
        value: Some(hash.to_hex().to_string()),
    };
    ModelProto { metadata_props: vec![entry], ..ModelProto::default() }.encode_to_vec()
}

fn is_whole(path: &Path) -> io::Result<bool> {
    /// Enough at once for all cores to have some of it.
    const PIECE: usize = 1 << 24;
    let mut file = File::open(path)?;
    let seal_length = seal(&blake3::hash(b"")).len() as u64;
    let Some(mut left) = file.metadata()?.len().checked_sub(seal_length) else { return Ok(false) };
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE];
    while left > 0 {
        let size = left.min(PIECE as u64) as usize;
        file.read_exact(&mut piece[..size])?;
        hasher.update_rayon(&piece[..size]);
        left -= size as u64;
    }
    let mut found = Vec::new();
    file.read_to_end(&mut found)?;
    Ok(found == seal(&hasher.finalize()))
}

/// Writes `folder/name` through a temporary file beside it.
fn write(folder: &Path, name: &str, model: &Model) -> io::Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let temporary = folder.join(format!(".{name}.{}.{count}", std::process::id()));
    let path = folder.join(name);
    let attempt = || {
        let file = File::create_new(&temporary)?;
        let mut out = Hashing { out: BufWriter::new(file), hasher: blake3::Hasher::new() };
        model.write(&mut out)?;
        let seal = seal(&out.hasher.finalize());
        out.out.write_all(&seal)?;
        out.out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&temporary, &path)
    };
    attempt().inspect_err(|_| {
        // The first error is the one worth telling.
        let _ = fs::remove_file(&temporary);
    })?;
    Ok(path)
}

/// Hashes what goes through.
struct Hashing<W> {
    out: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update_rayon(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::{Dim, Element, GraphBuilder};
    use crate::runtime::{EngineChoice, RuntimeOptions, Value};

    fn model(factor: f32) -> Model {
        let mut g = GraphBuilder::new("g");
        let x = g.input("x", Element::F32, &[Dim::Fixed(1)]);
        let factor = g.scalar(factor);
        let y = g.mul(x, factor);
        g.output(y, "y", Element::F32, &[Dim::Fixed(1)]);
        g.finish()
    }

    fn runtime() -> Runtime {
        let options = RuntimeOptions { engine: EngineChoice::Rten, ..RuntimeOptions::default() };
        Runtime::open(&options).unwrap()
    }

    /// What the graph makes of 1, and whether it had to be built.
    fn factor(folders: &[&Path], name: &str, factor: f32) -> (f32, bool) {
        let mut built = false;
        let build = || {
            built = true;
            Ok(model(factor))
        };
        let graph = load(&runtime(), folders, name, build).unwrap();
        let x = Value::f32(&[1], vec![1.0]).unwrap();
        let y = graph.run(vec![("x", x)], &["y"], &[]).unwrap().remove(0).into_f32().unwrap();
        (y.1[0], built)
    }

    #[test]
    fn built_once_and_anew_where_the_file_is_not_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, path) = (dir.path(), dir.path().join("g.onnx"));
        assert_eq!(factor(&[folder], "g.onnx", 2.0), (2.0, true));
        // The file is taken as it is, whatever would be built now.
        assert_eq!(factor(&[folder], "g.onnx", 3.0), (2.0, false));

        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(factor(&[folder], "g.onnx", 4.0), (4.0, true));
        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut changed = fs::read(&path).unwrap();
            changed[at] ^= 1;
            fs::write(&path, changed).unwrap();
            assert!(factor(&[folder], "g.onnx", 4.0).1, "byte {at}");
        }
        fs::write(&path, "").unwrap();
        assert!(factor(&[folder], "g.onnx", 4.0).1);
        let files: Vec<_> = fs::read_dir(folder).unwrap().collect();
        assert_eq!(files.len(), 1, "no temporary file is left: {files:?}");
    }

    #[test]
    fn the_next_folder_and_then_memory() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        assert_eq!(factor(&[&gone, dir.path()], "g.onnx", 2.0), (2.0, true));
        assert_eq!(factor(&[&gone, dir.path()], "g.onnx", 3.0), (2.0, false));
        assert_eq!(factor(&[&gone], "g.onnx", 3.0), (3.0, true));
        assert_eq!(factor(&[&gone], "g.onnx", 5.0), (5.0, true));
    }

    #[test]
    fn many_at_once() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(factor(&[dir.path()], "g.onnx", 2.0).0, 2.0));
            }
        });
        assert!(is_whole(&dir.path().join("g.onnx")).unwrap());
    }
}
