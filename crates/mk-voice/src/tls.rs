//! What TLS is made with.

use std::sync::Once;

/// Chooses ring for the whole process, where nothing has been chosen yet. To be called before anything connects: with no
/// choice made, or two providers in the build, rustls panics.
pub(crate) fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error says that the program has chosen already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_provider_is_chosen_once() {
        super::init();
        super::init();
        assert!(rustls::crypto::CryptoProvider::get_default().is_some());
    }
}
