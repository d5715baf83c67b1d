//! The ONNX Runtime library that speech synthesis loads.

use std::path::PathBuf;

use mk_tts::runtime::find_library;

use super::machine::Machine;
use super::{Finding, Status};
use crate::setup;

pub fn library(machine: &Machine) -> Finding {
    let path = find(machine);
    let status = if path.is_some() { Status::Present } else { Status::Optional };
    let found = path.map_or_else(
        || "not in ORT_DYLIB_PATH, beside the binary or in .venv-onnx".to_owned(),
        |path| path.display().to_string(),
    );
    Finding::new("ONNX Runtime", status, found)
        .means("mk-tts", "runs the audio codec, faster than the engine that is built in")
        .install("cargo xtask setup --onnx")
}

fn find(machine: &Machine) -> Option<PathBuf> {
    if let Some(path) = machine.path("ORT_DYLIB_PATH").filter(|path| path.is_file()) {
        return Some(path);
    }
    let wheels = [setup::ONNX_CUDA, setup::ONNX]
        .map(|environment| Some(machine.packages(environment.folder)?.join("onnxruntime/capi")));
    let folders = [Some(machine.binaries.clone())].into_iter().chain(wheels);
    folders.flatten().find_map(|folder| find_library(&folder))
}

#[cfg(test)]
mod tests {
    use super::super::machine::tests::made_of;
    use super::*;

    #[test]
    fn the_first_library_of_the_search_order() {
        let root = tempfile::tempdir().unwrap();
        let wheel = "repository/.venv-onnx/lib/python3.11/site-packages/onnxruntime/capi/\
                     libonnxruntime.so.1.24.4";
        let machine = made_of(root.path(), &[wheel], &[("ORT_DYLIB_PATH", "gone")]);
        assert_eq!(find(&machine), Some(root.path().join(wheel)));
        let with_cuda = wheel.replace(".venv-onnx", ".venv-onnx-cuda");
        let machine = made_of(root.path(), &[wheel, &with_cuda], &[]);
        assert_eq!(find(&machine), Some(root.path().join(with_cuda)));
        let machine = made_of(root.path(), &["binaries/libonnxruntime.so"], &[]);
        assert_eq!(find(&machine), Some(root.path().join("binaries/libonnxruntime.so")));
        let machine = made_of(root.path(), &["own.so"], &[("ORT_DYLIB_PATH", "own.so")]);
        assert_eq!(find(&machine), Some(root.path().join("own.so")));
        assert_eq!(library(&machine).status, Status::Present);
    }
}
