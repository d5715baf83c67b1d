//! Audio files in: any container, rate and channel count, to 24 kHz mono.
