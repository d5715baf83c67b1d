//! Tokens as an iterator, made on a thread of their own.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use crate::error::{Error, Result};
use crate::sampling::Sampling;
use crate::sequence::{DecodeOptions, Finish, Sequence};

/// Tokens that may be made ahead of the consumer.
const AHEAD: usize = 64;

/// A running decode. Iterating yields its tokens; dropping it ends the run.
pub struct TokenStream {
    tokens: Option<Receiver<u32>>,
    worker: Option<JoinHandle<(Sequence, Result<Finish>)>>,
}

impl Sequence {
    /// [`Sequence::decode`] on a thread of its own, as an iterator over the tokens.
    ///
    /// # Errors
    /// [`Error::Threads`] if there can be no thread. Errors of the decode come from [`TokenStream::finish`].
    pub fn stream(mut self, sampling: Sampling, options: DecodeOptions) -> Result<TokenStream> {
        let (sender, tokens) = sync_channel(AHEAD);
        let worker = std::thread::Builder::new()
            .name("mk-decode".into())
            .spawn(move || {
                let result = self.decode(&sampling, &options, |step| {
                    // A consumer that is gone wants no more tokens.
                    match sender.send(step.token) {
                        Ok(()) => ControlFlow::Continue(()),
                        Err(_) => ControlFlow::Break(()),
                    }
                });
                (self, result)
            })
            .map_err(|e| Error::Threads(e.to_string()))?;
        Ok(TokenStream { tokens: Some(tokens), worker: Some(worker) })
    }
}

impl TokenStream {
    /// Ends the run if it is not over, and gives back the sequence, to go on with, and why the run ended.
    ///
    /// # Errors
    /// What went wrong in the run; the sequence is lost with it only if its thread panicked.
    pub fn finish(mut self) -> (Option<Sequence>, Result<Finish>) {
        self.tokens = None;
        match self.worker.take().map(JoinHandle::join) {
            Some(Ok((sequence, result))) => (Some(sequence), result),
            _ => (None, Err(Error::Threads("the decode thread panicked".into()))),
        }
    }
}

impl Iterator for TokenStream {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.tokens.as_ref()?.recv().ok()
    }
}

impl Drop for TokenStream {
    fn drop(&mut self) {
        self.tokens = None;
        if let Some(worker) = self.worker.take() {
            // A panic has already been reported on the worker's own thread.
            let _ = worker.join();
        }
    }
}
