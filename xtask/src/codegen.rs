//! `cargo xtask codegen`: the Rust side of the kernels' header.
//!
//! The result is committed, so that a build needs neither libclang nor bindgen. It names the header it was made from by
//! a hash, which a test of `mk-sys` compares with the header that is there.

use std::path::Path;

use anyhow::{Context, Result};

/// Where the header is, from the repository's root.
const HEADER: &str = "kernels/abi.h";
/// Where its bindings go.
const BINDINGS: &str = "crates/mk-sys/src/abi.rs";

/// Make the bindings of kernels/abi.h anew (needs libclang: LIBCLANG_PATH, or `pip install libclang`)
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command in the repository at `root`.
pub fn run(_: &Args, root: &Path) -> Result<()> {
    let header = root.join(HEADER);
    let text =
        std::fs::read(&header).with_context(|| format!("cannot read {}", header.display()))?;
    let bindings = bindgen::Builder::default()
        .header(header.to_string_lossy())
        // The wheel's libclang brings no headers of its own.
        .clang_args(builtin_headers())
        .allowlist_item("Mk.*|MK_.*|mk_.*")
        .rust_target(bindgen::RustTarget::stable(85, 0).map_err(|e| anyhow::anyhow!("{e}"))?)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .default_enum_style(bindgen::EnumVariation::ModuleConsts)
        .generate()
        .context("bindgen")?;
    let path = root.join(BINDINGS);
    let text = format!(
        "//! What the host and the kernels agree on: `kernels/abi.h`, by bindgen. `cargo xtask codegen` makes it anew.\n\
         // Header {:016x}\n\n\
         #![allow(missing_docs, non_camel_case_types, non_snake_case, non_upper_case_globals)]\n\n{bindings}",
        mk_sys::header_hash(&text)
    );
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

/// Where gcc keeps stddef.h and its like.
fn builtin_headers() -> Vec<String> {
    let output = std::process::Command::new("gcc").arg("-print-file-name=include").output();
    let path = output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    path.map(|path| vec!["-I".to_owned(), path]).unwrap_or_default()
}
