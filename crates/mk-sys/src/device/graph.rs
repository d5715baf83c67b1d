//! Launches that are recorded once and replayed.

use std::ptr::null_mut;

use super::{Device, Stream};
use crate::api::Opaque;
use crate::driver::DriverError;
use crate::library::check;

/// `CU_STREAM_CAPTURE_MODE_RELAXED`: other threads, and calls that do not touch the stream, go on as ever.
const RELAXED: u32 = 2;

/// Work that was recorded on a stream. What it uses has to live as long as it is launched.
pub struct Graph {
    device: Device,
    graph: Opaque,
}

// SAFETY: an executable graph may be launched and destroyed from any thread, one at a time, and launching takes `&mut`.
unsafe impl Send for Graph {}

impl Stream {
    /// Records what `queue` puts on this stream, instead of running it.
    ///
    /// # Errors
    /// [`DriverError`] of the driver or of `queue`.
    pub fn record(
        &self,
        queue: impl FnOnce() -> Result<(), DriverError>,
    ) -> Result<Graph, DriverError> {
        let api = self.device.0.enter()?;
        // SAFETY: the stream lives as long as `self`.
        let begun = unsafe { (api.capture_begin)(self.stream, RELAXED) };
        check("cuStreamBeginCapture", begun)?;
        let queued = queue();
        let mut recorded = null_mut();
        // SAFETY: as above; writes one pointer through a pointer to one. It is called whatever `queue` came to, so that the
        // stream is a stream again.
        let ended = unsafe { (api.capture_end)(self.stream, &mut recorded) };
        let whole = queued.and(check("cuStreamEndCapture", ended));
        let mut graph = null_mut();
        let whole = whole.and_then(|()| {
            // SAFETY: a graph that was just recorded; writes one pointer through a pointer to one.
            let code = unsafe { (api.graph_instantiate)(&mut graph, recorded, 0) };
            check("cuGraphInstantiate", code)
        });
        if !recorded.is_null() {
            // SAFETY: recorded above and not destroyed before; what was instantiated is a copy.
            unsafe { (api.graph_destroy)(recorded) };
        }
        whole?;
        Ok(Graph { device: self.device.clone(), graph })
    }

    /// Runs a recorded graph.
    ///
    /// # Errors
    /// [`DriverError`].
    ///
    /// # Safety
    /// What was said of each recorded launch still holds.
    pub unsafe fn replay(&self, graph: &mut Graph) -> Result<(), DriverError> {
        let api = self.device.0.enter()?;
        // SAFETY: both live; the rest is the caller's word.
        check("cuGraphLaunch", unsafe { (api.graph_launch)(graph.graph, self.stream) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if let Ok(api) = self.device.0.enter() {
            // SAFETY: instantiated in `Stream::record`; a replay that still runs keeps what it needs.
            unsafe { (api.graph_exec_destroy)(self.graph) };
        }
    }
}
