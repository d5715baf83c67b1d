//! Processor, memory, and the compiler that links.

use mk_model::Isa;

use super::machine::Machine;
use super::{Finding, Status};

pub fn processor(machine: &Machine) -> Finding {
    let model = field(&machine.read("proc/cpuinfo"), "model name")
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // The same list that the backend chooses from, best first.
    let isa = Isa::available().into_iter().next().unwrap_or(Isa::Plain);
    let found = format!("{model}, {cores} core(s); kernels for {isa}");
    Finding::new("processor", Status::Present, found).means(
        "mk-model",
        "computes here; decoding is as fast as memory is read, which wider instructions help with",
    )
}

pub fn memory(machine: &Machine) -> Finding {
    let text = machine.read("proc/meminfo");
    let size = |name| field(&text, name).as_deref().and_then(kibibytes);
    let (Some(total), Some(free)) = (size("MemTotal"), size("MemAvailable")) else {
        return Finding::new("memory", Status::Present, "size unknown: no /proc/meminfo");
    };
    let found = format!("{:.1} GiB, {:.1} GiB available", gibibytes(total), gibibytes(free));
    Finding::new("memory", Status::Present, found)
        .means("mk-model", "weights in bf16 take 2 bytes a parameter, so Qwen3-0.6B takes 1.2 GB")
}

pub fn compiler(machine: &Machine) -> Finding {
    let cc = machine.program("cc");
    let status = if cc.is_some() { Status::Present } else { Status::Missing };
    let found = cc.map_or("no cc on PATH".to_owned(), |path| path.display().to_string());
    Finding::new("C compiler", status, found)
        .means("all crates", "cargo links with it")
        .means("mk-sys", "its tests build stub drivers with it")
        .install("apt-get install gcc libc6-dev")
}

/// The first value of `name` in lines of `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

/// The number of `123 kB`; the kernel means KiB by it.
fn kibibytes(value: &str) -> Option<u64> {
    value.strip_suffix("kB")?.trim().parse().ok()
}

fn gibibytes(kibibytes: u64) -> f64 {
    kibibytes as f64 / (1 << 20) as f64
}

#[cfg(test)]
mod tests {
    use super::super::machine::tests::made_of;
    use super::*;

    #[test]
    fn the_kernels_files() {
        let text = "processor\t: 0\nmodel name\t: A: b\nprocessor\t: 1\nmodel name\t: C\n";
        assert_eq!(field(text, "model name").unwrap(), "A: b");
        assert_eq!(field(text, "flags"), None);
        assert_eq!(kibibytes("16310524 kB"), Some(16_310_524));
        assert_eq!(kibibytes("many"), None);
    }

    #[test]
    fn memory_is_told_in_gibibytes() {
        let root = tempfile::tempdir().unwrap();
        let machine = made_of(root.path(), &["system/proc/meminfo"], &[]);
        assert!(memory(&machine).found.starts_with("size unknown"));
        let text = "MemTotal: 8388608 kB\nMemAvailable:  1048576 kB\n";
        std::fs::write(root.path().join("system/proc/meminfo"), text).unwrap();
        assert_eq!(memory(&machine).found, "8.0 GiB, 1.0 GiB available");
    }

    #[test]
    fn a_missing_compiler_is_a_failure() {
        let root = tempfile::tempdir().unwrap();
        let machine = made_of(root.path(), &["bin/cc"], &[("PATH", "nowhere")]);
        assert_eq!(compiler(&machine).status, Status::Missing);
        assert!(compiler(&machine).install.is_some());
        let machine = made_of(root.path(), &["bin/cc"], &[("PATH", "bin")]);
        assert_eq!(compiler(&machine).install, None);
    }
}
