//! Compiles `kernels/` with nvcc where the feature `cuda` is on and nvcc is found; see `kernels/README.md`.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Chips that machine code is made for, unless `MK_CUDA_ARCHS` names others.
const ARCHS: &str = "80,86,89,90a,100a,120a";
/// What `cargo xtask setup --cuda` makes in the repository.
const WHEELS: &str = ".venv-cuda";

fn main() {
    println!("cargo::rustc-check-cfg=cfg(mk_kernels)");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let kernels = root.join("kernels");
    println!("cargo::rerun-if-changed={}", kernels.display());
    for name in ["NVCC", "CUDA_HOME", "CUDA_PATH", "PATH", "MK_CUDA_ARCHS"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let Some(nvcc) = find_nvcc(&root) else {
        println!(
            "cargo::warning=no nvcc in NVCC, CUDA_HOME, CUDA_PATH, PATH or {WHEELS}: building without CUDA kernels \
             (`cargo xtask setup --cuda` installs nvcc)"
        );
        return;
    };
    let image =
        PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("kernels.fatbin");
    match compile(&nvcc, &kernels.join("kernels.cu"), &image) {
        Ok(()) => {
            println!("cargo::rustc-cfg=mk_kernels");
            println!("cargo::rustc-env=MK_KERNELS_IMAGE={}", image.display());
        }
        Err(reason) => println!("cargo::error={}: {reason}", nvcc.display()),
    }
}

/// Where the user says, where it is installed, where the repository has it.
fn find_nvcc(root: &Path) -> Option<PathBuf> {
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

fn compile(nvcc: &Path, source: &Path, image: &Path) -> Result<(), String> {
    let archs = env::var("MK_CUDA_ARCHS").unwrap_or_else(|_| ARCHS.to_owned());
    let mut arguments: Vec<OsString> = [
        "-std=c++17",
        "-O3",
        "--fatbin",
        "-t",
        "0",
        "-Xfatbin",
        "-compress-all",
        "-Xptxas",
        "-warn-spills",
    ]
    .map(Into::into)
    .into();
    for arch in archs.split(',') {
        arguments.extend(["-gencode".into(), format!("arch=compute_{arch},code=sm_{arch}").into()]);
    }
    arguments.extend([source.into(), "-o".into(), image.into()]);
    let output = Command::new(nvcc).args(arguments).output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stderr);
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        println!("cargo::warning={line}");
    }
    if output.status.success() { Ok(()) } else { Err(format!("{}", output.status)) }
}
