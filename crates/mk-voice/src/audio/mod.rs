//! Sound on its way in: brought to one rate, measured, searched for speech, kept for a while.
//!
//! All of it is mono PCM of 16 bits.

mod level;
mod resample;
mod ring;
mod vad;

pub use level::{SILENCE_DB, rms_db};
pub use resample::{RATES, RateError, Resampler};
pub use ring::{AudioRing, Replay};
pub use vad::{FRAME, VAD_RATE, Vad, VadEvent, VadOptions};
