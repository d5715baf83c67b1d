//! Where programs find ONNX Runtime: libraries of this project read no environment.

use std::env;
use std::path::{Path, PathBuf};

use mk_tts::runtime::RuntimeOptions;

use crate::repo_root;

/// The Python environment, in the repository, that `cargo xtask setup --onnx` puts the library into.
pub const ENVIRONMENT: &str = ".venv-onnx";
/// The same of `cargo xtask setup --onnx-cuda`, for a library that can compute on a GPU.
pub const CUDA_ENVIRONMENT: &str = ".venv-onnx-cuda";

/// Options by which a runtime finds the library: `library` where it is given, otherwise the file that `ORT_DYLIB_PATH`
/// names, otherwise what is beside the program or in the repository's [`CUDA_ENVIRONMENT`] or [`ENVIRONMENT`].
pub fn search(library: Option<PathBuf>) -> RuntimeOptions {
    let named = || env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from);
    let beside = env::current_exe().ok().and_then(|program| Some(program.parent()?.to_path_buf()));
    let installed = repo_root().into_iter().flat_map(|root| {
        [CUDA_ENVIRONMENT, ENVIRONMENT]
            .into_iter()
            .filter_map(move |name| in_environment(&root.join(name)))
    });
    RuntimeOptions {
        library: library.or_else(named),
        search: beside.into_iter().chain(installed).collect(),
        ..RuntimeOptions::default()
    }
}

/// The folder of the library in a Python environment, where that is installed.
fn in_environment(environment: &Path) -> Option<PathBuf> {
    let library = environment.join("lib");
    let pythons = library.read_dir().ok()?.filter_map(Result::ok).map(|entry| entry.path());
    pythons.map(|python| python.join("site-packages/onnxruntime/capi")).find(|path| path.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_named_goes_first() {
        let library = Some(PathBuf::from("here.so"));
        assert_eq!(search(library.clone()).library, library);
        assert!(!search(library).search.is_empty());
    }

    #[test]
    fn the_environment_of_a_repository() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(in_environment(root.path()), None);
        let capi = root.path().join("lib/python3.11/site-packages/onnxruntime/capi");
        std::fs::create_dir_all(&capi).unwrap();
        assert_eq!(in_environment(root.path()), Some(capi));
    }
}
