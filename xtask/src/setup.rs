//! `cargo xtask setup`: what tasks need beyond Rust, kept inside the repository's folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// A Python environment inside the repository.
pub struct Environment {
    /// Its folder.
    pub folder: &'static str,
    /// The file with what goes into it, where that is more than `alone`.
    requirements: Option<&'static str>,
    /// What goes into it without its own requirements.
    alone: Option<&'static str>,
}

/// What `parity` runs for a Qwen3.
pub const REFERENCE: Environment = Environment {
    folder: ".venv-reference",
    requirements: Some("xtask/reference/requirements.txt"),
    alone: None,
};

/// What `parity` runs for a Qwen3-TTS: another version of transformers. qwen-tts' other requirements are a web
/// interface's.
pub const REFERENCE_TTS: Environment = Environment {
    folder: ".venv-reference-tts",
    requirements: Some("xtask/reference/requirements-tts.txt"),
    alone: Some("qwen-tts==0.1.1"),
};

/// What compiles the CUDA kernels: nvcc and what it needs.
pub const CUDA: Environment = Environment {
    folder: ".venv-cuda",
    requirements: Some("kernels/requirements.txt"),
    alone: None,
};

/// ONNX Runtime, of which only the library is wanted, not the Python module.
pub const ONNX: Environment = Environment {
    folder: mk_examples::onnx::ENVIRONMENT,
    requirements: None,
    alone: Some("onnxruntime==1.32.0"),
};

/// ONNX Runtime with CUDA, likewise, and NVIDIA's libraries that it loads.
pub const ONNX_CUDA: Environment = Environment {
    folder: mk_examples::onnx::CUDA_ENVIRONMENT,
    requirements: Some("crates/mk-tts/onnx-cuda.txt"),
    alone: Some("onnxruntime-gpu==1.31.1"),
};

/// The SDKs of Deepgram and OpenAI, which `doubles` runs.
pub const SDK: Environment = Environment {
    folder: ".venv-sdk",
    requirements: Some("crates/mk-doubles/sdk/requirements.txt"),
    alone: None,
};

/// What drives a browser for the checks of the voice demo.
pub const BROWSER: Environment = Environment {
    folder: ".venv-browser",
    requirements: Some("xtask/browser/requirements.txt"),
    alone: None,
};

/// A copy of the requirements that were installed last, inside the environment.
const INSTALLED: &str = "requirements.installed";

/// Installs, into the repository's folder, what a task needs beyond Rust.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub struct Args {
    /// The Python reference: torch and transformers, in .venv-reference (several GB).
    #[arg(long)]
    reference: bool,
    /// The Python reference of speech: torch and qwen-tts, in .venv-reference-tts (several GB).
    #[arg(long)]
    reference_tts: bool,
    /// nvcc, for the feature `cuda`, in .venv-cuda (NVIDIA's wheels under NVIDIA's licence; 270 MB).
    #[arg(long)]
    cuda: bool,
    /// ONNX Runtime, which runs the codec, in .venv-onnx (100 MB).
    #[arg(long)]
    onnx: bool,
    /// ONNX Runtime with CUDA, which runs the codec on an NVIDIA GPU, in .venv-onnx-cuda (with NVIDIA's libraries under NVIDIA's
    /// licence; 2 GB).
    #[arg(long)]
    onnx_cuda: bool,
    /// Playwright, which drives a browser for the checks of the voice demo, in .venv-browser (140 MB).
    #[arg(long)]
    browser: bool,
}

/// Sets up what `args` names in the repository at `root`.
pub fn run(args: &Args, root: &Path) -> Result<()> {
    if args.reference {
        install(root, &REFERENCE)?;
    }
    if args.reference_tts {
        install(root, &REFERENCE_TTS)?;
    }
    if args.cuda {
        install(root, &CUDA)?;
    }
    if args.onnx {
        install(root, &ONNX)?;
    }
    if args.onnx_cuda {
        install(root, &ONNX_CUDA)?;
    }
    if args.browser {
        install(root, &BROWSER)?;
    }
    Ok(())
}

/// Creates the environment, or brings it up to its requirements; does nothing where they have not changed.
pub fn install(root: &Path, what: &Environment) -> Result<()> {
    let Environment { folder, requirements: file_name, alone } = what;
    let mut requirements = String::new();
    if let Some(file_name) = file_name {
        let file = root.join(file_name);
        requirements = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}", file.display()))?;
    }
    requirements.extend(*alone);
    let environment = root.join(folder);
    let python = python_of(&environment);
    if is_installed(&environment, &requirements) {
        println!("{folder} is up to date");
        return Ok(());
    }

    if !python.is_file() {
        call(Command::new("python3").args(["-m", "venv"]).arg(&environment)).context(
            "cannot create a Python environment: python3 and its venv module are needed \
             (apt-get install python3-venv)",
        )?;
    }
    let pip = ["-m", "pip", "install", "--disable-pip-version-check"];
    if let Some(file_name) = file_name {
        let file = root.join(file_name);
        call(Command::new(&python).args(pip).arg("--requirement").arg(&file)).with_context(
            || format!("cannot install {file_name}; to start afresh, delete {folder}"),
        )?;
    }
    if let Some(package) = alone {
        call(Command::new(&python).args(pip).args(["--no-deps", package])).with_context(|| {
            format!("cannot install {package}; to start afresh, delete {folder}")
        })?;
    }
    let stamp = environment.join(INSTALLED);
    std::fs::write(&stamp, requirements)
        .with_context(|| format!("cannot write {}", stamp.display()))?;
    println!("{folder} is ready");
    Ok(())
}

/// Installs packages of Debian's.
pub fn install_debian(packages: &[&str]) -> Result<()> {
    let names = packages.join(" and ");
    println!("installing {names}");
    let apt = || -> Result<()> {
        call(Command::new("apt-get").args(["update", "--quiet"]))?;
        let install = ["install", "--yes", "--quiet", "--no-install-recommends"];
        let mut missing = Command::new("apt-get");
        call(missing.args(install).args(packages).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    apt().with_context(|| format!("{names} not found, and could not be installed"))
}

/// Makes sure that `programs`, each with its package of Debian's, and the packages `libraries` are there.
pub fn install_programs(programs: &[(&str, &str)], libraries: &[&str]) -> Result<()> {
    let missing = programs.iter().filter(|(program, _)| !runs(program));
    let mut packages: Vec<&str> = missing.map(|&(_, package)| package).collect();
    packages.extend(libraries.iter().filter(|library| !has_package(library)));
    if packages.is_empty() {
        return Ok(());
    }
    install_debian(&packages)
}

/// Elsewhere than on Debian nothing is known of libraries: they are taken to be there.
fn has_package(package: &str) -> bool {
    let quiet = std::process::Stdio::null;
    let mut status = Command::new("dpkg");
    status.args(["--status", package]).stdout(quiet()).stderr(quiet());
    status.status().is_ok_and(|status| status.success()) || !runs("dpkg")
}

fn runs(program: &str) -> bool {
    let quiet = std::process::Stdio::null;
    let version = Command::new(program).arg("--version").stdout(quiet()).stderr(quiet()).status();
    version.is_ok_and(|status| status.success())
}

/// Whether nothing may be left out.
pub fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// The interpreter of a Python environment.
pub fn python_of(environment: &Path) -> PathBuf {
    environment.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" })
}

fn is_installed(environment: &Path, requirements: &str) -> bool {
    python_of(environment).is_file()
        && std::fs::read_to_string(environment.join(INSTALLED))
            .is_ok_and(|installed| installed == requirements)
}

/// Runs a command with its output shown.
pub fn call(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = match command.status() {
        Ok(status) => status,
        Err(error) => bail!("cannot run {program}: {error}"),
    };
    ensure!(status.success(), "{program} failed: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_is_installed_once() {
        let root = tempfile::tempdir().unwrap();
        let environment = root.path().join(REFERENCE.folder);
        assert!(!is_installed(&environment, "numpy\n"));
        std::fs::create_dir_all(python_of(&environment).parent().unwrap()).unwrap();
        std::fs::write(python_of(&environment), "").unwrap();
        assert!(!is_installed(&environment, "numpy\n"));
        std::fs::write(environment.join(INSTALLED), "numpy\n").unwrap();
        assert!(is_installed(&environment, "numpy\n"));
        assert!(!is_installed(&environment, "numpy\ntorch\n"));
    }

    #[test]
    fn missing_requirements_are_named() {
        let root = tempfile::tempdir().unwrap();
        for (environment, file) in [
            (REFERENCE, "requirements.txt"),
            (REFERENCE_TTS, "requirements-tts.txt"),
            (BROWSER, "xtask/browser/requirements.txt"),
        ] {
            let error = install(root.path(), &environment).unwrap_err().to_string();
            assert!(error.contains(file), "{error}");
        }
        let missing = call(&mut Command::new("no-such-program")).unwrap_err().to_string();
        assert!(missing.starts_with("cannot run no-such-program"), "{missing}");
    }
}
