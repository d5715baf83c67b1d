//! Files that hold ONNX Runtime.

use std::path::{Path, PathBuf};

/// Whether a file of this name is the ONNX Runtime library: `libonnxruntime.so`, with or without a version behind it, or
/// its name on other systems. The libraries of its execution providers are not.
pub fn is_library(name: &str) -> bool {
    let name = name.strip_prefix("lib").unwrap_or(name);
    name.strip_prefix("onnxruntime.").is_some_and(|rest| {
        rest == "dll" || rest == "so" || rest.starts_with("so.") || rest.ends_with("dylib")
    })
}

/// The ONNX Runtime library in `folder`, the first by name if there are several.
pub fn find_library(folder: &Path) -> Option<PathBuf> {
    let entries = folder.read_dir().ok()?.filter_map(Result::ok);
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_library))
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .min()
}
