//! `config.json` of a Qwen3-TTS checkpoint.
