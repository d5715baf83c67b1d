//! `config.json` and `generation_config.json`: any text gives a config that holds what it promises, or problems.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mk_model::{Config, GenerationConfig};

fuzz_target!(|text: &str| {
    match Config::from_json(text) {
        Ok(config) => {
            assert_eq!(config.group_size() * config.kv_size(), config.q_size());
            assert_eq!(config.head_dim % 2, 0);
            assert!(config.rms_norm_eps > 0.0 && config.rope_theta.is_finite());
            assert!(config.layer_weights() > 0);
        }
        Err(problems) => assert!(!problems.is_empty()),
    }
    match GenerationConfig::from_json(text) {
        Ok(config) => {
            assert!(config.temperature.is_none_or(f32::is_finite));
            assert!(config.top_p.is_none_or(f32::is_finite));
        }
        Err(problems) => assert!(!problems.is_empty()),
    }
});
