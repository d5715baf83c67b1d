//! The GPU, its driver, and the compiler for its kernels.

use std::path::PathBuf;

use mk_sys::driver::{Driver, DriverError};

use super::machine::{Machine, output};
use super::{Finding, Status};

/// CUDA 13.0 as Python wheels, which need no root.
const INSTALL_NVCC: &str = "cargo xtask setup --cuda";

pub fn driver(probed: Result<Driver, DriverError>) -> Finding {
    let (status, found) = match &probed {
        Ok(driver) => (Status::Present, describe(driver)),
        Err(error) => (Status::NotNeededYet, error.to_string()),
    };
    Finding::new("GPU and driver", status, found)
        .means("mk-sys", "finds the driver when asked, and needs none to be built or tested")
        .means(
            "mk-model",
            "runs on it where it is built with the feature `cuda`, and on the CPU without",
        )
        .install("apt-get install nvidia-driver, on a machine with an NVIDIA GPU")
}

fn describe(driver: &Driver) -> String {
    let device = |d: &mk_sys::driver::Device| {
        let (major, minor) = d.compute_capability;
        format!(
            "{}, sm_{major}{minor}, {} SMs, {:.1} GiB, {:.0} MiB L2, {} KiB shared memory a block",
            d.name,
            d.multiprocessors,
            d.memory as f64 / (1_u64 << 30) as f64,
            f64::from(d.l2_cache) / f64::from(1 << 20),
            d.shared_memory_per_block >> 10,
        )
    };
    let devices: Vec<String> = driver.devices.iter().map(device).collect();
    format!("driver for CUDA {}; {}", driver.version, devices.join("; "))
}

pub fn nvcc(machine: &Machine) -> Finding {
    let compiler = find_nvcc(machine);
    let version = compiler.as_ref().and_then(|path| version_of(&output(path, &["--version"])?));
    let (status, found) = match (compiler, version) {
        (Some(path), Some(version)) => (Status::Present, format!("{version}, {}", path.display())),
        (Some(path), None) => (Status::NotNeededYet, format!("{} does not run", path.display())),
        _ => (
            Status::NotNeededYet,
            "not in NVCC, CUDA_HOME, CUDA_PATH, PATH or .venv-cuda".to_owned(),
        ),
    };
    Finding::new("nvcc", status, found)
        .means("mk-sys", "compiles the CUDA kernels with it, where the feature `cuda` is on")
        .install(INSTALL_NVCC)
}

/// In the order in which a build is going to look: what the user says, what is installed, what the repository has.
fn find_nvcc(machine: &Machine) -> Option<PathBuf> {
    let in_home = |variable| Some(machine.path(variable)?.join("bin/nvcc"));
    let in_wheels = || Some(machine.packages(".venv-cuda")?.join("nvidia/cu13/bin/nvcc"));
    let places = [
        machine.path("NVCC"),
        in_home("CUDA_HOME"),
        in_home("CUDA_PATH"),
        machine.program("nvcc"),
        in_wheels(),
    ];
    places.into_iter().flatten().find(|path| path.is_file())
}

/// 13.0.88 of `Cuda compilation tools, release 13.0, V13.0.88`.
fn version_of(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.contains("release"))?;
    Some(line.rsplit_once(", V")?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use mk_sys::driver::{Device, Version};

    use super::super::machine::tests::made_of;
    use super::*;

    #[test]
    fn the_first_nvcc_of_the_search_order() {
        let root = tempfile::tempdir().unwrap();
        let wheel = "repository/.venv-cuda/lib/python3.11/site-packages/nvidia/cu13/bin/nvcc";
        let files = ["home/bin/nvcc", "bin/nvcc", wheel];
        let all = [("NVCC", "gone"), ("CUDA_HOME", "home"), ("PATH", "bin")];
        for (skip, expected) in files.iter().enumerate() {
            let machine = made_of(root.path(), &files, &all[skip + 1..]);
            assert_eq!(find_nvcc(&machine), Some(root.path().join(expected)));
        }
        let machine = made_of(root.path(), &files, &all);
        assert_eq!(find_nvcc(&machine), Some(root.path().join("home/bin/nvcc")));
        // These files are not programs.
        assert!(nvcc(&machine).found.ends_with("does not run"));
    }

    #[test]
    fn nvcc_says_its_version() {
        let text = "nvcc: NVIDIA (R) Cuda compiler driver\n\
                    Cuda compilation tools, release 13.0, V13.0.88\nBuild cuda_13.0.r13.0/compiler\n";
        assert_eq!(version_of(text).unwrap(), "13.0.88");
        assert_eq!(version_of("gcc 12"), None);
    }

    #[test]
    fn a_driver_in_words() {
        let device = Device {
            name: "GPU".into(),
            compute_capability: (9, 0),
            multiprocessors: 132,
            memory: 141 << 30,
            l2_cache: 50 << 20,
            shared_memory_per_block: 227 << 10,
            clock_khz: 1_980_000,
            memory_clock_khz: 3_201_000,
            memory_bus_bits: 6144,
        };
        let found = Driver { version: Version { major: 13, minor: 0 }, devices: vec![device] };
        let words = "driver for CUDA 13.0; GPU, sm_90, 132 SMs, 141.0 GiB, 50 MiB L2, 227 KiB shared \
                     memory a block";
        assert_eq!(driver(Ok(found)).found, words);
        let none = driver(Err(DriverError::NotFound));
        assert_eq!(none.status, Status::NotNeededYet);
        assert!(none.install.is_some());
    }
}
