//! `model.safetensors` beside a fixed config: any bytes make a checkpoint that passes its audit, or an error.

#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mk_model::Checkpoint;

/// A checkpoint of this process alone, whose weights it may overwrite; `cargo xtask fuzz` makes and removes it.
static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
    std::env::var_os("MK_FUZZ_CHECKPOINT").expect("run this with `cargo xtask fuzz`").into()
});

fuzz_target!(|bytes: &[u8]| {
    // The last run's map is gone, so that the file may shrink.
    std::fs::write(DIR.join("model.safetensors"), bytes).expect("room for a small file");
    if let Ok(checkpoint) = Checkpoint::open(&*DIR) {
        let all = checkpoint.tensors().iter().map(|tensor| tensor.bytes().len()).sum::<usize>();
        assert!(all < bytes.len());
        if let Err(error) = checkpoint.audit(&mut |_| {}) {
            assert!(!error.to_string().is_empty());
        }
    }
});
