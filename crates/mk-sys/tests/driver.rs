//! The probe against drivers of every kind: none, broken, without a device, failing, and whole.
//!
//! The drivers are stubs in C, built here; each is probed in a child process of this same test binary, because a
//! process keeps the library it has loaded and `LD_LIBRARY_PATH` is read when it starts.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::Command;

use mk_sys::driver;

const CHILD: &str = "MK_SYS_PROBE_CHILD";

/// Not a test of its own: what the children run.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_some() {
        println!("probe: {:?}", driver::probe());
    }
}

/// What a child prints that finds libcuda, if at all, in `libraries`.
fn probe(libraries: &Path) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, "1")
        .env("LD_LIBRARY_PATH", libraries)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find_map(|line| line.split_once("probe: "));
    line.unwrap_or_else(|| panic!("no answer in {text}")).1.to_owned()
}

/// Probes a stub of libcuda made of this C source.
fn probe_stub(source: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let c_file = directory.path().join("stub.c");
    std::fs::write(&c_file, source).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([directory.path().join("libcuda.so"), c_file])
        .status();
    match compiled {
        Ok(status) => assert!(status.success(), "cc failed on the stub driver"),
        Err(error) => panic!("a C compiler is needed to build this workspace; cc: {error}"),
    }
    probe(directory.path())
}

/// A whole driver, `init` and `count` being what it answers at first.
fn stub(init: i32, count: i32) -> String {
    format!(
        r#"
        #include <stddef.h>
        #include <string.h>
        int cuInit(unsigned flags) {{ return flags ? 1 : {init}; }}
        int cuDriverGetVersion(int *v) {{ *v = 12080; return 0; }}
        int cuDeviceGetCount(int *n) {{ *n = {count}; return 0; }}
        int cuDeviceGet(int *d, int i) {{ *d = 40 + i; return 0; }}
        int cuDeviceGetName(char *s, int n, int d) {{ memset(s, 'A', n); if (d == 40) strcpy(s, "Stub"); return 0; }}
        int cuDeviceTotalMem_v2(size_t *b, int d) {{ *b = (size_t)80 << 30; return d < 40; }}
        int cuDeviceGetAttribute(int *v, int a, int d) {{ *v = a; return a == 97 && d == 42 ? 9999 : 0; }}
        "#
    )
}

#[test]
fn a_machine_without_a_driver() {
    let installed = Command::new("ldconfig")
        .arg("-p")
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("libcuda.so"));
    if installed {
        println!("not tested: this machine has a CUDA driver");
        return;
    }
    assert_eq!(driver::probe(), Err(driver::DriverError::NotFound));
}

#[test]
fn a_library_that_lacks_functions() {
    assert_eq!(probe_stub("int nothing;"), r#"Err(Broken { symbol: "cuInit" })"#);
    let old = stub(0, 1).replace("cuDeviceTotalMem_v2", "cuDeviceTotalMem");
    assert_eq!(probe_stub(&old), r#"Err(Broken { symbol: "cuDeviceTotalMem_v2" })"#);
}

#[test]
fn a_driver_without_a_device() {
    assert_eq!(probe_stub(&stub(100, 0)), "Err(NoDevice)");
    assert_eq!(probe_stub(&stub(0, 0)), "Err(NoDevice)");
}

#[test]
fn a_driver_that_fails() {
    let failed = r#"Err(Failed { call: "cuInit", code: 803 })"#;
    assert_eq!(probe_stub(&stub(803, 1)), failed);
    // A code that no CUDA header knows.
    let failed = r#"Err(Failed { call: "cuDeviceGetAttribute", code: 9999 })"#;
    assert_eq!(probe_stub(&stub(0, 3)), failed);
}

/// The stub answers each attribute with the attribute's own number in the driver API.
#[test]
fn a_driver_with_devices() {
    let answer = probe_stub(&stub(0, 1));
    let device = "Device { name: \"Stub\", compute_capability: (75, 76), multiprocessors: 16, \
                  memory: 85899345920, l2_cache: 38, shared_memory_per_block: 97, clock_khz: 13, \
                  memory_clock_khz: 36, memory_bus_bits: 37 }";
    assert_eq!(
        answer,
        format!("Ok(Driver {{ version: Version {{ major: 12, minor: 8 }}, devices: [{device}] }})")
    );
    // The second device's name fills its buffer, with no zero at the end.
    assert!(probe_stub(&stub(0, 2)).contains(&"A".repeat(256)));
}
