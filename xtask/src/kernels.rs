//! `cargo xtask kernels`: what the CUDA kernels take of each chip, without one.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use mk_sys::nvcc;

/// Where PTX and machine code go, from the repository's root.
const FOLDER: &str = ".mk/kernels";
/// Bytes that a kernel may write to the stack and read again, for want of registers, on the chips with a decode kernel of
/// their own. Nothing else may; what the portable decode kernel spills is only shown.
const ACCEPTED_SPILLS: [(&str, u32); 1] = [("mk_decode_2048_6144", 200)];

/// Compile the CUDA kernels for every chip, show registers, shared memory and spills, and check that they fit
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command in the repository at `root`.
pub fn run(_: &Args, root: &Path) -> Result<()> {
    let compiler = nvcc::find(root).context("no nvcc: `cargo xtask setup --cuda` installs it")?;
    let folder = root.join(FOLDER);
    std::fs::create_dir_all(&folder)?;
    let source = root.join("kernels/kernels.cu");
    let mut wrong = Vec::new();
    for chip in nvcc::CHIPS {
        let ptx = folder.join(format!("sm_{chip}.ptx"));
        let to_ptx = Command::new(&compiler)
            .args(nvcc::OPTIONS)
            .args(["--ptx", &format!("-arch=compute_{chip}")])
            .arg(&source)
            .arg("-o")
            .arg(&ptx)
            .output();
        succeeded(to_ptx, &compiler)?;
        let assembler = compiler.with_file_name("ptxas");
        let to_machine_code = Command::new(&assembler)
            .args(["-v", &format!("-arch=sm_{chip}")])
            .arg(&ptx)
            .arg("-o")
            .arg(ptx.with_extension("cubin"))
            .output();
        let report = succeeded(to_machine_code, &assembler)?;
        let text = std::fs::read_to_string(&ptx)?;
        let mut usage = parse_report(&report)?;
        add_dynamic(&mut usage, &text)?;
        let limit = shared_memory(chip)?;
        println!("\nsm_{chip}, {} KiB of shared memory a block", limit >> 10);
        println!(
            "{:<24}{:>10}{:>8}{:>8}{:>10}",
            "kernel", "registers", "spills", "static", "dynamic"
        );
        for (name, used) in &usage {
            println!(
                "{name:<24}{:>10}{:>8}{:>8}{:>10}",
                used.registers, used.spills, used.shared, used.dynamic
            );
        }
        println!("slots of the ring, where no block has two shares: {}", rings(&text, limit)?);
        wrong.extend(problems(chip, limit, &usage));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// What a kernel takes, by the assembler's report; bytes but for the registers.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Usage {
    registers: u32,
    /// Stored or loaded, whichever is more.
    spills: u32,
    /// Shared memory that the kernel declares, and that it is launched with at least.
    shared: u32,
    dynamic: u32,
}

/// Most shared memory of a block, in bytes (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability").
fn shared_memory(chip: &str) -> Result<u32> {
    let kib = match chip {
        "80" => 163,
        "86" | "89" | "120a" => 99,
        "90a" | "100a" => 227,
        _ => bail!("how much shared memory has sm_{chip}?"),
    };
    Ok(kib << 10)
}

/// What is not as it should be.
fn problems(chip: &str, limit: u32, usage: &BTreeMap<String, Usage>) -> Vec<String> {
    let own_decode = matches!(chip, "90a" | "100a");
    let mut wrong = Vec::new();
    for (name, used) in usage {
        let shared = used.shared + used.dynamic;
        if shared > limit {
            wrong.push(format!("sm_{chip}: {name} takes {shared} bytes of shared memory"));
        }
        let accepted = ACCEPTED_SPILLS.iter().find(|(accepted, _)| accepted == name);
        let accepted = accepted.map_or(0, |(_, bytes)| *bytes);
        if used.spills > accepted && (own_decode || !name.starts_with("mk_decode")) {
            wrong.push(format!("sm_{chip}: {name} spills {} bytes", used.spills));
        }
    }
    wrong
}

/// The lines of `ptxas -v`, a kernel's name before its figures.
fn parse_report(report: &str) -> Result<BTreeMap<String, Usage>> {
    let mut usage = BTreeMap::<String, Usage>::new();
    let mut entry = None;
    for line in report.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let name = rest.split('\'').next().unwrap_or_default();
            entry = Some(name.to_owned());
            usage.insert(name.to_owned(), Usage::default());
        } else if line.contains("Function properties for ") {
            // Those of functions that are not inlined come after the kernel that calls them, and count as its own.
        } else if let Some(used) = entry.as_ref().and_then(|name| usage.get_mut(name)) {
            let spills = ["bytes spill stores", "bytes spill loads"].map(|what| before(line, what));
            used.spills += spills.into_iter().flatten().max().unwrap_or(0);
            used.registers = used.registers.max(before(line, "registers").unwrap_or(0));
            used.shared = used.shared.max(before(line, "bytes smem").unwrap_or(0));
        }
    }
    ensure!(
        usage.values().any(|used| used.registers > 0),
        "no kernel in what ptxas says:\n{report}"
    );
    Ok(usage)
}

/// 96 of `Used 96 registers, used 2 barriers`, before `registers`.
fn before(line: &str, what: &str) -> Option<u32> {
    line.split_once(what)?.0.trim_end().rsplit([' ', ',']).next()?.parse().ok()
}

/// The least dynamic shared memory that each kernel is launched with, of the variables in which the kernels tell the host.
fn add_dynamic(usage: &mut BTreeMap<String, Usage>, ptx: &str) -> Result<()> {
    for (name, used) in usage.iter_mut() {
        used.dynamic = if let Some(shape) = name.strip_prefix("mk_decode_") {
            let shape = Shape::of(ptx, shape)?;
            shape.beside_ring + shape.min_slots * shape.slot
        } else if let Some(config) = gemm_config(name) {
            words(ptx, "mk_gemm_configs")?[config * 4 + 3]
        } else {
            0
        };
    }
    Ok(())
}

/// Which of `mk_gemm_configs` a kernel of the prefill is launched by.
fn gemm_config(name: &str) -> Option<usize> {
    if name == "mk_attention" {
        return Some(4);
    }
    let (epilogue, tiles) = name.strip_prefix("mk_gemm_")?.rsplit_once('_')?;
    Some(usize::from(epilogue == "gate") * 2 + usize::from(tiles == "small"))
}

/// Of `MkShape` in `kernels/abi.h`, what the decode kernel's shared memory follows from.
struct Shape {
    beside_ring: u32,
    slot: u32,
    min_slots: u32,
    max_slots: u32,
}

impl Shape {
    fn of(ptx: &str, shape: &str) -> Result<Self> {
        let words = words(ptx, &format!("mk_shape_{shape}"))?;
        // The fields that are words come first, in this order.
        let [beside_ring, _, slot, min_slots, max_slots] = words[8..13] else {
            bail!("mk_shape_{shape} is too short");
        };
        Ok(Self { beside_ring, slot, min_slots, max_slots })
    }
}

/// How many slots of each shape's ring fit a chip.
fn rings(ptx: &str, limit: u32) -> Result<String> {
    let mut text = Vec::new();
    for line in ptx.lines() {
        let Some((_, rest)) = line.split_once(" mk_shape_") else { continue };
        let name = rest.split('[').next().unwrap_or_default();
        let Shape { beside_ring, slot, max_slots, .. } = Shape::of(ptx, name)?;
        let slots = (limit.saturating_sub(beside_ring) / slot).min(max_slots);
        text.push(format!("{name}: {slots} of {} KiB", slot >> 10));
    }
    Ok(text.join(", "))
}

/// A variable's initial value, as little-endian words; `.b8 name[8] = {1, 0, 0, 0, 2};` leaves zeros at the end out.
fn words(ptx: &str, name: &str) -> Result<Vec<u32>> {
    let of_name = |line: &&str| line.contains(&format!(" {name}["));
    let line = ptx.lines().find(of_name).with_context(|| format!("{name} is not in the PTX"))?;
    let (declared, value) = line.split_once('=').with_context(|| format!("{name} has no value"))?;
    let length = declared.split(['[', ']']).nth(1).and_then(|n| n.trim().parse::<usize>().ok());
    let length = length.with_context(|| format!("how long is {name}? {declared}"))?;
    let numbers = value.trim().trim_start_matches('{').trim_end_matches([';', '}']).split(',');
    let mut bytes: Vec<u8> =
        numbers.map(|n| n.trim().parse()).collect::<Result<_, _>>().context(name.to_owned())?;
    bytes.resize(length, 0);
    Ok(bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect())
}

/// What a program that was started wrote to standard error.
fn succeeded(output: std::io::Result<std::process::Output>, program: &Path) -> Result<String> {
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{}: {}\n{text}", program.display(), output.status);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
ptxas info    : Compiling entry function 'mk_decode_1024_3072' for 'sm_80'
ptxas info    : Function properties for mk_decode_1024_3072
    224 bytes stack frame, 376 bytes spill stores, 412 bytes spill loads
ptxas info    : Used 96 registers, used 2 barriers, 224 bytes cumulative stack size
ptxas info    : Compiling entry function 'mk_norm' for 'sm_80'
ptxas info    : Function properties for mk_norm
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 32 bytes smem
";

    const PTX: &str = "\
.global .align 8 .b8 mk_shape_1024_3072[56] = {0, 4, 0, 0, 0, 12, 0, 0, 16, 0, 0, 0, 8, 0, 0, 0, 128, 0, 0, 0, 128, 0, 0, \
0, 1, 0, 0, 0, 32, 2, 0, 0, 128, 127, 0, 0, 176, 20, 0, 0, 0, 64, 0, 0, 2, 0, 0, 0, 11};
";

    #[test]
    fn reports_are_read_kernel_by_kernel() {
        let mut usage = parse_report(REPORT).unwrap();
        add_dynamic(&mut usage, PTX).unwrap();
        let decode = Usage { registers: 96, spills: 412, shared: 0, dynamic: 32640 + 2 * 16384 };
        assert_eq!(usage["mk_decode_1024_3072"], decode);
        assert_eq!(usage["mk_norm"], Usage { registers: 32, shared: 32, ..Usage::default() });
        assert_eq!(rings(PTX, 99 << 10).unwrap(), "1024_3072: 4 of 16 KiB");
        assert!(parse_report("ptxas info : nothing").is_err());
        assert!(words(PTX, "mk_shape_1_1").is_err());
    }

    #[test]
    fn kernels_that_do_not_fit_are_named() {
        let usage = parse_report(REPORT).unwrap();
        assert_eq!(problems("80", 163 << 10, &usage), Vec::<String>::new());
        assert_eq!(
            problems("90a", 227 << 10, &usage),
            ["sm_90a: mk_decode_1024_3072 spills 412 bytes"]
        );
        let large = Usage { shared: 1, dynamic: 99 << 10, ..Usage::default() };
        let usage = BTreeMap::from([("mk_norm".to_owned(), large)]);
        assert_eq!(problems("86", 99 << 10, &usage).len(), 1);
        assert_eq!(problems("80", 163 << 10, &usage).len(), 0);
    }
}
