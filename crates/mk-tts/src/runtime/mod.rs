//! What runs an ONNX graph: ONNX Runtime where its library is found, the pure-Rust rten everywhere.
//!
//! [`Runtime::open`] chooses the engine, [`Runtime::load`] gives graphs, and a [`Graph`] takes and gives [`Value`]s. A
//! value that came out of one run may go into the next as it is: with the CUDA execution provider it then never leaves
//! the device.

mod library;
mod onnxruntime;
mod rten;
mod value;

use std::path::{Path, PathBuf};

pub use library::{find_library, is_library};
pub use value::Value;

use crate::error::{Error, Result};

/// Which engine to take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// ONNX Runtime where its library is found, otherwise rten.
    #[default]
    Auto,
    /// ONNX Runtime, or an error.
    OnnxRuntime,
    /// The pure-Rust engine, which is always there.
    Rten,
}

/// How to open a [`Runtime`].
#[derive(Debug, Clone, Default)]
pub struct RuntimeOptions {
    /// Which engine to take.
    pub engine: EngineChoice,
    /// The ONNX Runtime library itself. Where it is given, it must load, whichever way the engine is chosen (but for
    /// [`EngineChoice::Rten`], which needs none).
    pub library: Option<PathBuf>,
    /// Folders to look for the library in, in this order, where `library` is not given.
    pub search: Vec<PathBuf>,
    /// Threads for one run; all that the machine has where it is `None`.
    pub threads: Option<usize>,
    /// Ordinal of the CUDA device to run on. Only ONNX Runtime can: with [`EngineChoice::OnnxRuntime`] it is an error
    /// where the device cannot be had, with [`EngineChoice::Auto`] the CPU is taken. NVIDIA's libraries are those of the Python
    /// wheels beside the library's own, where there are any, else those that the system's loader knows.
    pub cuda: Option<usize>,
}

/// An engine, ready to load graphs. Cloning it opens nothing anew.
#[derive(Debug, Clone)]
pub struct Runtime {
    engine: Engine,
}

#[derive(Debug, Clone)]
enum Engine {
    OnnxRuntime(onnxruntime::OnnxRuntime),
    Rten(rten::Rten),
}

/// Where the bytes of a model are.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// An `.onnx` file.
    File(&'a Path),
    /// The bytes of one.
    Bytes(&'a [u8]),
}

/// A loaded graph. May be shared between threads; runs of one graph happen one after another.
pub trait Graph: Send + Sync {
    /// Runs the graph on `inputs`, which are all its inputs by name, and returns the values called `outputs`, followed
    /// by those called `kept`, in this order.
    ///
    /// Values in `outputs` are meant to be read. Those in `kept` are meant to go into a later run of a graph of the
    /// same runtime, and stay on the device; reading them works too, and copies them.
    ///
    /// # Errors
    /// Names that the graph does not have, types and shapes that it does not take, and whatever the engine reports.
    fn run(
        &self,
        inputs: Vec<(&str, Value)>,
        outputs: &[&str],
        kept: &[&str],
    ) -> Result<Vec<Value>>;

    /// Whether a run on other shapes than the last one's takes much longer, since the engine then has to choose anew by what it
    /// computes.
    fn keeps_to_shapes(&self) -> bool;
}

impl Runtime {
    /// Finds and opens an engine.
    ///
    /// ONNX Runtime can be loaded once in a process, from one file: what was loaded first stays.
    ///
    /// # Errors
    /// A library that was named, or is demanded, and is not there, is none of ONNX Runtime, is too old, or is another than
    /// the process has already; a CUDA device that is demanded and cannot be had.
    pub fn open(options: &RuntimeOptions) -> Result<Self> {
        let threads = options.threads.unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
        });
        let rten = || Ok(Self { engine: Engine::Rten(rten::Rten::new(threads)) });
        if options.engine == EngineChoice::Rten {
            return rten();
        }
        let found = match &options.library {
            Some(library) => Some(library.clone()),
            None => options.search.iter().find_map(|folder| find_library(folder)),
        };
        let demanded = options.engine == EngineChoice::OnnxRuntime;
        let Some(library) = found else {
            return if demanded { Err(not_found(&options.search)) } else { rten() };
        };
        match onnxruntime::OnnxRuntime::open(&library, threads) {
            Ok(engine) => Self::on_device(engine, options.cuda, demanded),
            // What was merely come across need not be good.
            Err(_) if !demanded && options.library.is_none() => rten(),
            Err(error) => Err(error),
        }
    }

    fn on_device(
        engine: onnxruntime::OnnxRuntime,
        cuda: Option<usize>,
        demanded: bool,
    ) -> Result<Self> {
        let Some(ordinal) = cuda else { return Ok(Self { engine: Engine::OnnxRuntime(engine) }) };
        let engine = match engine.with_cuda(ordinal) {
            Ok(with_cuda) => with_cuda,
            Err(error) if demanded => return Err(error),
            Err(_) => engine,
        };
        Ok(Self { engine: Engine::OnnxRuntime(engine) })
    }

    /// Engine, library, device and threads, for people to read.
    pub fn describe(&self) -> String {
        match &self.engine {
            Engine::OnnxRuntime(engine) => engine.describe(),
            Engine::Rten(engine) => engine.describe(),
        }
    }

    /// Loads a graph.
    ///
    /// # Errors
    /// A file that cannot be read, is no ONNX model, or holds what the engine does not know.
    pub fn load(&self, source: Source<'_>) -> Result<Box<dyn Graph>> {
        match &self.engine {
            Engine::OnnxRuntime(engine) => Ok(Box::new(engine.load(source)?)),
            Engine::Rten(engine) => Ok(Box::new(engine.load(source)?)),
        }
    }
}

impl Source<'_> {
    /// What to call it in an error.
    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Bytes(_) => "a graph in memory".into(),
        }
    }
}

fn not_found(search: &[PathBuf]) -> Error {
    let folders: Vec<String> = search.iter().map(|folder| folder.display().to_string()).collect();
    Error::NoOnnxRuntime {
        searched: if folders.is_empty() { "no folder".into() } else { folders.join(", ") },
    }
}

#[cfg(test)]
mod tests;
