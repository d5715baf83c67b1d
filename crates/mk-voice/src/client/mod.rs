//! Clients that are no page: a file ([`mod@file`]) and, with the feature `local-audio`, this machine's microphone and speaker
//! (`local`). [`Player`] is what they play with.

pub mod file;
#[cfg(feature = "local-audio")]
pub mod local;
mod player;

pub use player::Player;
