//! Launches that are recorded once and replayed, and launches that overlap.

use std::ffi::c_void;
use std::ptr::null_mut;

use cudarc::driver::sys::{
    CUlaunchAttribute, CUlaunchAttributeID as Attribute, CUlaunchAttributeValue, CUlaunchConfig,
};

use super::{Device, Grid, Kernel, Stream};
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

    /// As [`Stream::launch`] for a kernel that may begin before the one ahead of it has ended, where that allows it: it waits
    /// itself, by `griddepcontrol`, before it touches what the other writes. Needs compute capability 9.0.
    ///
    /// # Errors
    /// [`DriverError`].
    ///
    /// # Safety
    /// As of [`Stream::launch`], and the kernel waits.
    pub unsafe fn launch_overlapping<P: Copy>(
        &self,
        kernel: &Kernel,
        grid: Grid,
        parameter: &P,
    ) -> Result<(), DriverError> {
        let api = self.device.0.enter()?;
        let mut parameters = [(&raw const *parameter).cast_mut().cast::<c_void>()];
        let mut attribute = CUlaunchAttribute {
            id: Attribute::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        };
        let [x, y, z] = grid.blocks;
        let config = CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: grid.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: grid.shared,
            hStream: self.stream.cast(),
            attrs: &mut attribute,
            numAttrs: 1,
        };
        // SAFETY: configuration and parameter are copied before the call returns; the rest is the caller's word.
        let code = unsafe {
            (api.launch_ex)(&config, kernel.function, parameters.as_mut_ptr(), null_mut())
        };
        check("cuLaunchKernelEx", code)
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
