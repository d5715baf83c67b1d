//! The Python reference, and the files of the Hugging Face hub.

use std::path::{Path, PathBuf};

use super::machine::{Machine, entries, output};
use super::{Finding, Status};
use crate::setup;

/// Asks for versions without importing the packages, which takes seconds.
const VERSIONS: &str = "
from importlib.metadata import PackageNotFoundError, version
for package in 'torch', 'transformers':
    try:
        print(package, version(package))
    except PackageNotFoundError:
        print(package)
";

pub fn reference(machine: &Machine) -> Finding {
    let own = setup::python_of(&machine.repository.join(setup::REFERENCE.folder));
    let python = if own.is_file() { Some(own) } else { machine.program("python3") };
    let (status, found) = match &python {
        None => (Status::Optional, "no .venv-reference, and no python3 on PATH".to_owned()),
        Some(python) => {
            let versions = output(python, &["-c", VERSIONS]).unwrap_or_default();
            let (complete, packages) = packages(&versions);
            let status = if complete { Status::Present } else { Status::Optional };
            (status, format!("{}: {packages}", python.display()))
        }
    };
    Finding::new("Python reference", status, found)
        .means(
            "xtask parity",
            "--regenerate runs transformers; comparing with stored goldens does not",
        )
        .install("cargo xtask setup --reference")
}

/// Whether all packages are there, and what is said of them.
fn packages(versions: &str) -> (bool, String) {
    let lines: Vec<&str> = versions.lines().map(str::trim).collect();
    if lines.is_empty() {
        return (false, "does not run".to_owned());
    }
    let missing = |line: &&&str| !line.contains(' ');
    let complete = !lines.iter().any(|line| missing(&line));
    let tell = |line: &&str| if missing(&line) { format!("no {line}") } else { (*line).to_owned() };
    (complete, lines.iter().map(tell).collect::<Vec<_>>().join(", "))
}

pub fn hub(machine: &Machine) -> Finding {
    let Some(home) = hub_home(machine) else {
        return Finding::new(
            "hub cache",
            Status::Optional,
            "no HF_HOME, and no HOME to keep it in",
        );
    };
    let models = entries(&home.join("hub"), |name| name.starts_with("models--")).len();
    let token = if has_token(machine, &home) { "a token" } else { "no token" };
    let found = format!("{}: {models} model(s), {token}", home.display());
    Finding::new("hub cache", Status::Present, found)
        .means("mk-model", "downloads go here; a token is for gated models, and Qwen3 is not one")
}

/// Where the hub's clients keep files: `HF_HOME`, else `.cache/huggingface` in the home folder.
fn hub_home(machine: &Machine) -> Option<PathBuf> {
    machine.path("HF_HOME").or_else(|| Some(machine.path("HOME")?.join(".cache/huggingface")))
}

/// Whether there is a token; what it is, is not looked at.
fn has_token(machine: &Machine, home: &Path) -> bool {
    machine.variables.contains_key("HF_TOKEN") || home.join("token").is_file()
}

#[cfg(test)]
mod tests {
    use super::super::machine::tests::made_of;
    use super::*;

    #[test]
    fn packages_are_named_whether_there_or_not() {
        let all = (true, "torch 2.9.0, transformers 5.0.0".to_owned());
        assert_eq!(packages("torch 2.9.0\ntransformers 5.0.0\n"), all);
        let one = (false, "no torch, transformers 5.0.0".to_owned());
        assert_eq!(packages("torch\ntransformers 5.0.0\n"), one);
        assert_eq!(packages("").1, "does not run");
    }

    #[test]
    fn the_repositorys_python_goes_first() {
        let root = tempfile::tempdir().unwrap();
        let files = ["repository/.venv-reference/bin/python", "bin/python3"];
        let machine = made_of(root.path(), &files, &[("PATH", "bin")]);
        // Neither is a program: only the place is told.
        assert!(reference(&machine).found.contains(".venv-reference"));
        assert_eq!(reference(&machine).install.unwrap(), "cargo xtask setup --reference");
    }

    #[test]
    fn the_hub_cache_and_its_token() {
        let root = tempfile::tempdir().unwrap();
        let files = ["home/.cache/huggingface/hub/models--a--b/x", "hf/token"];
        let machine = made_of(root.path(), &files, &[("HOME", "home")]);
        assert!(hub(&machine).found.ends_with("huggingface: 1 model(s), no token"));
        let machine = made_of(root.path(), &files, &[("HOME", "home"), ("HF_HOME", "hf")]);
        assert!(hub(&machine).found.ends_with("hf: 0 model(s), a token"));
        let machine = made_of(root.path(), &files, &[("HOME", "home"), ("HF_TOKEN", "secret")]);
        let found = hub(&machine).found;
        assert!(found.ends_with(", a token") && !found.contains("secret"));
        assert_eq!(hub(&made_of(root.path(), &[], &[])).status, Status::Optional);
    }
}
