//! What probes look at: files under two roots, variables, programs. Tests hand them a machine of their own.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The places that probes look in.
pub struct Machine {
    /// `/`, below which the system's files are.
    pub system: PathBuf,
    /// The repository.
    pub repository: PathBuf,
    /// The folder of the running program.
    pub binaries: PathBuf,
    /// Environment variables; those with an empty value are left out.
    pub variables: HashMap<String, OsString>,
}

impl Machine {
    /// The one this runs on.
    pub fn this() -> Self {
        let named = |(key, value): (OsString, OsString)| Some((key.into_string().ok()?, value));
        let binary = std::env::current_exe().unwrap_or_default();
        Self {
            system: PathBuf::from("/"),
            repository: mk_examples::repo_root().unwrap_or_default(),
            binaries: binary.parent().map(Path::to_owned).unwrap_or_default(),
            variables: std::env::vars_os()
                .filter_map(named)
                .filter(|(_, value)| !value.is_empty())
                .collect(),
        }
    }

    /// A variable that holds a path.
    pub fn path(&self, variable: &str) -> Option<PathBuf> {
        self.variables.get(variable).map(PathBuf::from)
    }

    /// A program, by the search of `PATH`.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let path = self.variables.get("PATH")?;
        std::env::split_paths(path).map(|folder| folder.join(name)).find(|file| file.is_file())
    }

    /// The text of a file of the system; empty where there is none.
    pub fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.system.join(file)).unwrap_or_default()
    }

    /// The packages of a Python environment in the repository, `lib/python3.x/site-packages`.
    pub fn packages(&self, environment: &str) -> Option<PathBuf> {
        let library = self.repository.join(environment).join("lib");
        let pythons = entries(&library, |name| name.starts_with("python3"));
        pythons.into_iter().map(|python| python.join("site-packages")).find(|path| path.is_dir())
    }
}

/// What is in a folder under a name that `accept` takes, sorted; nothing where there is no folder.
pub fn entries(folder: &Path, accept: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let Ok(listing) = std::fs::read_dir(folder) else { return Vec::new() };
    let named = listing.flatten().filter(|entry| entry.file_name().to_str().is_some_and(&accept));
    let mut paths: Vec<PathBuf> = named.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// What a program prints, where it runs and succeeds.
pub fn output(program: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A machine that is the folder `root`, with nothing in it but `files`.
    pub fn made_of(root: &Path, files: &[&str], variables: &[(&str, &str)]) -> Machine {
        for file in files {
            let file = root.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        }
        Machine {
            system: root.join("system"),
            repository: root.join("repository"),
            binaries: root.join("binaries"),
            variables: variables
                .iter()
                .map(|(key, value)| ((*key).to_owned(), root.join(value).into()))
                .collect(),
        }
    }

    #[test]
    fn programs_are_found_in_the_order_of_the_path() {
        let root = tempfile::tempdir().unwrap();
        let machine = made_of(root.path(), &["b/tool", "a/other"], &[("PATH", "b")]);
        assert_eq!(machine.program("tool"), Some(root.path().join("b/tool")));
        assert_eq!(machine.program("other"), None);
        assert_eq!(output(&root.path().join("b/tool"), &[]), None);
    }
}
