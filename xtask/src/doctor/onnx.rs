//! The ONNX Runtime library that speech synthesis is going to load.

use std::path::PathBuf;

use super::machine::{Machine, entries};
use super::{Finding, Status};

pub fn library(machine: &Machine) -> Finding {
    let path = find(machine);
    let status = if path.is_some() { Status::Present } else { Status::NotNeededYet };
    let found = path.map_or_else(
        || "not in ORT_DYLIB_PATH, beside the binary or in .venv-onnx".to_owned(),
        |path| path.display().to_string(),
    );
    Finding::new("ONNX Runtime", status, found)
        .means("mk-tts", "not needed yet: it will run the audio codec, which does not exist")
        .install("python3 -m venv .venv-onnx && .venv-onnx/bin/pip install onnxruntime==1.32.0")
}

fn find(machine: &Machine) -> Option<PathBuf> {
    if let Some(path) = machine.path("ORT_DYLIB_PATH").filter(|path| path.is_file()) {
        return Some(path);
    }
    let wheel = machine.packages(".venv-onnx").map(|path| path.join("onnxruntime/capi"));
    let folders = [Some(machine.binaries.clone()), wheel];
    folders.into_iter().flatten().find_map(|folder| entries(&folder, is_library).into_iter().next())
}

/// `libonnxruntime.so`, with or without a version behind it, or its name on other systems; not the libraries of its
/// execution providers.
fn is_library(name: &str) -> bool {
    let name = name.strip_prefix("lib").unwrap_or(name);
    name.strip_prefix("onnxruntime.").is_some_and(|rest| {
        rest == "dll" || rest == "so" || rest.starts_with("so.") || rest.ends_with("dylib")
    })
}

#[cfg(test)]
mod tests {
    use super::super::machine::tests::made_of;
    use super::*;

    #[test]
    fn names_of_the_library() {
        for name in ["libonnxruntime.so", "libonnxruntime.so.1.24.4", "onnxruntime.dll"] {
            assert!(is_library(name), "{name}");
        }
        assert!(is_library("libonnxruntime.1.24.4.dylib"));
        assert!(!is_library("libonnxruntime_providers_shared.so"));
        assert!(!is_library("onnxruntime.lib"));
    }

    #[test]
    fn the_first_library_of_the_search_order() {
        let root = tempfile::tempdir().unwrap();
        let wheel = "repository/.venv-onnx/lib/python3.11/site-packages/onnxruntime/capi/\
                     libonnxruntime.so.1.24.4";
        let machine = made_of(root.path(), &[wheel], &[("ORT_DYLIB_PATH", "gone")]);
        assert_eq!(find(&machine), Some(root.path().join(wheel)));
        let machine = made_of(root.path(), &["binaries/libonnxruntime.so"], &[]);
        assert_eq!(find(&machine), Some(root.path().join("binaries/libonnxruntime.so")));
        let machine = made_of(root.path(), &["own.so"], &[("ORT_DYLIB_PATH", "own.so")]);
        assert_eq!(find(&machine), Some(root.path().join("own.so")));
        assert_eq!(library(&machine).status, Status::Present);
    }
}
