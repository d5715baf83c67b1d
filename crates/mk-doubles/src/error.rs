//! What can go wrong before a double answers.

use std::net::SocketAddr;
use std::time::Duration;

/// Result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every failure of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A script that cannot be played.
    #[error("{what} script: {reason}")]
    Script {
        /// Which script.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// An option out of its range.
    #[error("{name} cannot be {value}")]
    Option {
        /// The option.
        name: &'static str,
        /// What was given.
        value: String,
    },
    /// What was waited for has not happened.
    #[error("it did not happen within {limit:?}")]
    Waited {
        /// How long was waited.
        limit: Duration,
    },
}
