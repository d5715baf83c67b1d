//! ONNX Runtime, loaded from its library while the program runs.

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::ep::{self, ExecutionProvider};
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{DynTensor, PrimitiveTensorElementType, Tensor};

use super::value::{Inner, wrong_type};
use super::{Graph as _, Source, Value};
use crate::error::{Error, Result};
use crate::onnx::{Dim, Element, GraphBuilder};

const ENGINE: &str = "ONNX Runtime";

/// The library of this process, which holds one at most, and its environment, of which there is never a second one:
/// hence it is kept until the process ends.
static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

#[derive(Clone)]
struct Loaded {
    library: PathBuf,
    environment: Environment,
}

/// ONNX Runtime on one device.
#[derive(Debug, Clone)]
pub struct OnnxRuntime {
    library: PathBuf,
    environment: Environment,
    threads: usize,
    cuda: Option<usize>,
}

impl OnnxRuntime {
    /// Loads `library`, unless the process has it already.
    pub fn open(library: &Path, threads: usize) -> Result<Self> {
        let refused = |reason: String| Error::OnnxRuntime { path: library.to_path_buf(), reason };
        // A relative path is searched for beside the program by `ort`, but means the working directory to everyone else.
        let library = library.canonicalize().map_err(|error| refused(error.to_string()))?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let Loaded { library, environment } = match &*loaded {
            Some(first) if first.library == library => first.clone(),
            Some(first) => {
                let reason = format!("this process has already loaded {}", first.library.display());
                return Err(refused(reason));
            }
            None => {
                let environment = load(&library).map_err(refused)?;
                loaded.insert(Loaded { library, environment }).clone()
            }
        };
        Ok(Self { library, environment, threads, cuda: None })
    }

    /// The same on a CUDA device, which is tried out.
    pub fn with_cuda(&self, ordinal: usize) -> Result<Self> {
        let unavailable = |reason: String| Error::Cuda { ordinal, reason };
        if !ep::CUDA::is_available().unwrap_or(false) {
            let library = self.library.display();
            return Err(unavailable(format!("{library} is built without CUDA")));
        }
        for file in neighbours(&self.library) {
            // What is missed because one does not load, the provider says.
            let _ = ort::util::preload_dylib(file);
        }
        let on_device = Self { cuda: Some(ordinal), ..self.clone() };
        let try_out = || {
            let mut g = GraphBuilder::new("doubles");
            let x = g.input("x", Element::F32, &[Dim::Fixed(2)]);
            let y = g.add(x, x);
            g.output(y, "y", Element::F32, &[Dim::Fixed(2)]);
            let graph = on_device.load(Source::Bytes(&g.finish().to_bytes()))?;
            let x = Value::f32(&[2], vec![1.0, 2.0])?;
            graph.run(vec![("x", x)], &[], &["y"])?.remove(0).into_f32()
        };
        match try_out() {
            Ok((_, y)) if y == [2.0, 4.0] => Ok(on_device),
            Ok((_, y)) => Err(unavailable(format!("twice [1, 2] gave {y:?}"))),
            Err(error) => Err(unavailable(error.to_string())),
        }
    }

    pub fn describe(&self) -> String {
        let device = match self.cuda {
            Some(ordinal) => format!("CUDA device {ordinal}"),
            None => "CPU".into(),
        };
        format!("{ENGINE} ({}), {device}, {} thread(s)", self.library.display(), self.threads)
    }

    pub fn load(&self, source: Source<'_>) -> Result<Graph> {
        let name = source.name();
        let session = self.session(source).map_err(|error| failed(&name, &error))?;
        let has_inputs = session.inputs().iter().map(|input| input.name().to_owned()).collect();
        let has_outputs = session.outputs().iter().map(|output| output.name().to_owned()).collect();
        let session = Mutex::new(session);
        Ok(Graph { name, session, has_inputs, has_outputs, cuda: self.cuda })
    }

    fn session(&self, source: Source<'_>) -> ort::Result<Session> {
        let mut builder = self.session_builder()?;
        match source {
            Source::File(path) => builder.commit_from_file(path),
            Source::Bytes(bytes) => builder.commit_from_memory(bytes),
        }
    }

    fn session_builder(&self) -> ort::Result<SessionBuilder> {
        let mut builder = Session::builder(&self.environment)?
            .with_optimization_level(GraphOptimizationLevel::Level3)?
            .with_intra_threads(self.threads)?
            // Threads that spin between calls take the cores from the talker, which runs then.
            .with_intra_op_spinning(false)?
            // Patterns are kept for every shape, and calls may be of any length.
            .with_memory_pattern(false)?;
        if let Some(ordinal) = self.cuda {
            let cuda = ep::CUDA::default()
                .with_device_id(i32::try_from(ordinal).unwrap_or(i32::MAX))
                // An exhaustive search would hold up the first call of every length.
                .with_conv_algorithm_search(ep::cuda::ConvAlgorithmSearch::Heuristic)
                .with_tf32(false);
            builder = builder.with_execution_providers([cuda.build().error_on_failure()])?;
        }
        Ok(builder)
    }
}

/// Loads the library and makes its environment.
fn load(library: &Path) -> std::result::Result<Environment, String> {
    // A library may call itself ONNX Runtime and then not behave as one, which `ort` asserts.
    let builder = catch_unwind(|| ort::init_from(library))
        .map_err(|_| "it answers with nonsense".to_owned())?
        .map_err(|error| error.to_string())?;
    // A library prints nothing: what matters comes back as an error.
    let logger = Arc::new(|_: ort::logging::LogLevel, _: &str, _: &str, _: &str, _: &str| {});
    builder
        .with_name("mk-tts")
        .with_telemetry(false)
        .with_logger(logger)
        .build()
        .map_err(|error| error.to_string())
}

/// NVIDIA's libraries in the wheels beside ONNX Runtime's own, in an order in which they can be loaded. The CUDA provider does not
/// look there, and does not have to where they are loaded already. Elsewhere the system's loader has to know them.
fn neighbours(library: &Path) -> Vec<PathBuf> {
    const BEGINNINGS: [&str; 8] = [
        "libcudart.so",
        "libnvrtc.so",
        "libnvJitLink.so",
        "libcublasLt.so",
        "libcublas.so",
        "libcurand.so",
        "libcufft.so",
        "libcudnn",
    ];
    let entries = |folder: PathBuf| {
        folder.read_dir().into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
    };
    // site-packages/onnxruntime/capi/libonnxruntime.so, site-packages/nvidia/cu13/lib/libcublas.so
    let wheels = library.ancestors().nth(3).map(|packages| packages.join("nvidia"));
    let folders = wheels.into_iter().flat_map(entries).map(|wheel| wheel.join("lib"));
    let rank = |file: &PathBuf| {
        let name = file.file_name()?.to_str()?;
        BEGINNINGS.iter().position(|beginning| name.starts_with(beginning))
    };
    let mut files: Vec<(usize, PathBuf)> =
        folders.flat_map(entries).filter_map(|file| Some((rank(&file)?, file))).collect();
    files.sort();
    files.into_iter().map(|(_, file)| file).collect()
}

/// A loaded session.
pub struct Graph {
    name: String,
    session: Mutex<Session>,
    has_inputs: Vec<String>,
    has_outputs: Vec<String>,
    cuda: Option<usize>,
}

impl super::Graph for Graph {
    fn run(
        &self,
        inputs: Vec<(&str, Value)>,
        outputs: &[&str],
        kept: &[&str],
    ) -> Result<Vec<Value>> {
        self.check_names(&inputs, outputs, kept)?;
        let inputs: Vec<(&str, Arc<DynTensor>)> = inputs
            .into_iter()
            .map(|(name, value)| Ok((name, self.native(value)?)))
            .collect::<Result<_>>()?;
        let values = self.run_bound(&inputs, outputs, kept);
        let values = values.map_err(|error| failed(&self.name, &error))?;
        Ok(values.into_iter().map(|value| Value(Inner::OnnxRuntime(Arc::new(value)))).collect())
    }

    fn keeps_to_shapes(&self) -> bool {
        // cuDNN's convolutions: the codec's took 50 ms more on an H200.
        self.cuda.is_some()
    }
}

impl Graph {
    /// What the engine would answer only with an index, or not at all.
    fn check_names(&self, inputs: &[(&str, Value)], outputs: &[&str], kept: &[&str]) -> Result<()> {
        let no_such = |what: &str, name: &str| Error::Graph {
            engine: ENGINE,
            graph: self.name.clone(),
            reason: format!("{what} {name:?}"),
        };
        let is_given = |name: &String| inputs.iter().any(|(given, _)| given == name);
        if let Some(missing) = self.has_inputs.iter().find(|name| !is_given(name)) {
            return Err(no_such("no value for the input", missing));
        }
        let known = |all: &[String], name: &str| all.iter().any(|n| n == name);
        if let Some((unknown, _)) = inputs.iter().find(|(name, _)| !known(&self.has_inputs, name)) {
            return Err(no_such("it has no input", unknown));
        }
        match outputs.iter().chain(kept).find(|name| !known(&self.has_outputs, name)) {
            Some(unknown) => Err(no_such("it has no output", unknown)),
            None => Ok(()),
        }
    }

    fn native(&self, value: Value) -> Result<Arc<DynTensor>> {
        let native = match value.0 {
            Inner::F32 { shape, data } => from_host(&shape, &data),
            Inner::I64 { shape, data } => from_host(&shape, &data),
            Inner::OnnxRuntime(value) => return Ok(value),
            Inner::Rten(_) => return Err(Error::Value { reason: "it belongs to rten".into() }),
        };
        Ok(Arc::new(native.map_err(|error| failed(&self.name, &error))?))
    }

    /// Runs with every output bound to the memory that it is wanted in.
    fn run_bound(
        &self,
        inputs: &[(&str, Arc<DynTensor>)],
        outputs: &[&str],
        kept: &[&str],
    ) -> ort::Result<Vec<DynTensor>> {
        let host = MemoryInfo::new(
            AllocationDevice::CPU,
            0,
            AllocatorType::Device,
            MemoryType::CPUOutput,
        )?;
        let device = match self.cuda {
            Some(ordinal) => MemoryInfo::new(
                AllocationDevice::CUDA,
                i32::try_from(ordinal).unwrap_or(i32::MAX),
                AllocatorType::Device,
                MemoryType::Default,
            )?,
            None => host.clone(),
        };
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let mut binding = session.create_binding()?;
        for (name, value) in inputs {
            binding.bind_input(*name, value)?;
        }
        for name in outputs {
            binding.bind_output_to_device(*name, &host)?;
        }
        for name in kept {
            binding.bind_output_to_device(*name, &device)?;
        }
        let mut values = session.run_binding(&binding)?;
        outputs
            .iter()
            .chain(kept)
            .map(|name| {
                let value = values.remove(name);
                let missing = || ort::Error::new(format!("no value for the output {name:?}"));
                value.ok_or_else(missing)?.downcast()
            })
            .collect()
    }
}

/// A copy in the engine's own memory.
fn from_host<T>(shape: &[usize], data: &[T]) -> ort::Result<DynTensor>
where
    T: PrimitiveTensorElementType + Copy + std::fmt::Debug + 'static,
{
    let mut tensor = Tensor::<T>::new(&Allocator::default(), shape)?;
    tensor.extract_tensor_mut().1.copy_from_slice(data);
    Ok(tensor.upcast())
}

/// Shape and elements of a value that the engine gave, wherever it is.
pub fn to_host<T>(tensor: &DynTensor) -> Result<(Vec<usize>, Vec<T>)>
where
    T: PrimitiveTensorElementType + Copy + std::fmt::Debug + 'static,
{
    let copy = |tensor: &DynTensor| {
        let (shape, data) =
            tensor.try_extract_tensor::<T>().map_err(|_| wrong_type("that type"))?;
        Ok((shape.iter().map(|&n| n as usize).collect(), data.to_vec()))
    };
    if tensor.memory_info().is_cpu_accessible() {
        return copy(tensor);
    }
    copy(&tensor.to(AllocationDevice::CPU, 0).map_err(|error| failed("a tensor", &error))?)
}

fn failed(graph: &str, error: &ort::Error) -> Error {
    Error::Graph { engine: ENGINE, graph: graph.into(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_of_neighbouring_wheels() {
        let root = tempfile::tempdir().unwrap();
        let library = root.path().join("onnxruntime/capi/libonnxruntime.so.1.31.1");
        assert_eq!(neighbours(&library), Vec::<PathBuf>::new());
        assert_eq!(neighbours(Path::new("libonnxruntime.so")), Vec::<PathBuf>::new());
        let files = [
            "nvidia/cu13/lib/libcudart.so.13",
            "nvidia/cu13/lib/libcublasLt.so.13",
            "nvidia/cu13/lib/libcublas.so.13",
            "nvidia/cudnn/lib/libcudnn.so.9",
            "nvidia/cudnn/lib/libcudnn_ops.so.9",
        ];
        for file in files.iter().rev().chain(&["nvidia/cu13/lib/libother.so", "nvidia/readme"]) {
            let file = root.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        }
        assert_eq!(neighbours(&library), files.map(|file| root.path().join(file)));
    }
}
