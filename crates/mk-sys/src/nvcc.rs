//! NVIDIA's compiler for the kernels: where it is, and what it is to make. The build script takes this file too.

use std::env;
use std::path::{Path, PathBuf};

/// Chips that machine code is made for.
pub const CHIPS: [&str; 6] = ["80", "86", "89", "90a", "100a", "120a"];
/// The virtual chip of the code that a driver compiles for a chip that is not among [`CHIPS`].
pub const PORTABLE: &str = "80";
/// What every compilation is told.
pub const OPTIONS: [&str; 2] = ["-std=c++17", "-O3"];
/// What `cargo xtask setup --cuda` makes in the repository.
pub const WHEELS: &str = ".venv-cuda";

/// Where the user says (`NVCC`, `CUDA_HOME`, `CUDA_PATH`), where it is installed (`PATH`), where the repository has it.
pub fn find(root: &Path) -> Option<PathBuf> {
    let in_home = |name| Some(PathBuf::from(env::var_os(name)?).join("bin/nvcc"));
    let in_path = || {
        env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join("nvcc")).find(|p| p.is_file())
    };
    let in_wheels = || {
        let python = std::fs::read_dir(root.join(WHEELS).join("lib")).ok()?;
        python
            .flatten()
            .map(|dir| dir.path().join("site-packages/nvidia/cu13/bin/nvcc"))
            .find(|p| p.is_file())
    };
    let named =
        [env::var_os("NVCC").map(PathBuf::from), in_home("CUDA_HOME"), in_home("CUDA_PATH")];
    let named = named.into_iter().flatten().find(|path| path.is_file());
    named.or_else(in_path).or_else(in_wheels)
}
