//! Compiles `kernels/` with nvcc where the feature `cuda` is on and nvcc is found; see `kernels/README.md`.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "src/nvcc.rs"]
mod nvcc;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(mk_kernels)");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let kernels = root.join("kernels");
    println!("cargo::rerun-if-changed={}", kernels.display());
    println!("cargo::rerun-if-changed=src/nvcc.rs");
    for name in ["NVCC", "CUDA_HOME", "CUDA_PATH", "PATH", "MK_CUDA_ARCHS"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let Some(compiler) = nvcc::find(&root) else {
        println!(
            "cargo::warning=no nvcc in NVCC, CUDA_HOME, CUDA_PATH, PATH or {}: building without CUDA kernels \
             (`cargo xtask setup --cuda` installs nvcc)",
            nvcc::WHEELS
        );
        return;
    };
    let chips = env::var("MK_CUDA_ARCHS").unwrap_or_else(|_| nvcc::CHIPS.join(","));
    let portable = format!("arch=compute_{0},code=compute_{0}", nvcc::PORTABLE);
    let mut all: Vec<_> =
        chips.split(',').map(|chip| format!("arch=compute_{chip},code=sm_{chip}")).collect();
    all.push(portable.clone());
    println!("cargo::rustc-cfg=mk_kernels");
    for (name, targets) in [("MK_KERNELS", all), ("MK_PORTABLE_KERNELS", vec![portable])] {
        let folder = env::var_os("OUT_DIR").expect("cargo sets it");
        let image = PathBuf::from(folder).join(name).with_extension("fatbin");
        println!("cargo::rustc-env={name}={}", image.display());
        if let Err(reason) = compile(&compiler, &kernels.join("kernels.cu"), &image, &targets) {
            println!("cargo::error={}: {reason}", compiler.display());
        }
    }
}

fn compile(nvcc: &Path, source: &Path, image: &Path, targets: &[String]) -> Result<(), String> {
    let mut arguments: Vec<OsString> = nvcc::OPTIONS.map(Into::into).into();
    arguments.extend(["--fatbin", "-t", "0", "-Xfatbin", "-compress-all"].map(Into::into));
    for target in targets {
        arguments.extend(["-gencode".into(), target.into()]);
    }
    arguments.extend([source.into(), "-o".into(), image.into()]);
    let output = Command::new(nvcc).args(arguments).output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stderr);
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        println!("cargo::warning={line}");
    }
    if output.status.success() { Ok(()) } else { Err(format!("{}", output.status)) }
}
