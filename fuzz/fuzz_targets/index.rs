//! `model.safetensors.index.json`: any text gives names of files in one directory, or says what is wrong.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mk_model::checkpoint::parse_index;

fuzz_target!(|text: &str| {
    if let Ok(weight_map) = parse_index(text) {
        let dir = Path::new("/checkpoint");
        assert!(weight_map.values().all(|file| dir.join(file).parent() == Some(dir)));
    }
});
