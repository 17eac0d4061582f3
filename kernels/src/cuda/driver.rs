//! The device that is an NVIDIA GPU, by the driver's own interface. libcuda is looked for at run time; without it everything here
//! answers [`Error::NoCuda`]. The kernels come as PTX, which the driver compiles for the GPU at hand.

use super::device::{Address, Device, Launch, Recording, failed};
use crate::error::Error;
use cudarc::driver::{DriverError, result, sys};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;

/// What NVRTC made of `kernels.cu`; `cargo xtask ptx --check` compares.
const PTX: &str = include_str!("../../cuda/kernels.ptx");

/// The first GPU, its primary context, one stream.
pub(super) struct Driver {
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    module: sys::CUmodule,
    functions: RefCell<HashMap<&'static str, sys::CUfunction>>,
    graphs: RefCell<Vec<sys::CUgraphExec>>,
}

// SAFETY: handles of the driver may be used on any thread that makes the context current, which every method does first; the
// owner holds a lock while it calls.
unsafe impl Send for Driver {}

fn told(what: &str) -> impl Fn(DriverError) -> Error + '_ {
    move |error| failed(format!("{what}: {error:?}"))
}

impl Driver {
    /// Opens GPU 0.
    ///
    /// # Errors
    /// [`Error::NoCuda`] without libcuda or a GPU; [`Error::Device`] where the GPU or the PTX will not do.
    pub(super) fn open() -> Result<Driver, Error> {
        // SAFETY: only looks for the library; everything else in `cudarc` panics where it is missing.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::NoCuda { what: "the library libcuda is not there".to_owned() });
        }
        let missing = |error: DriverError| Error::NoCuda { what: format!("{error:?}") };
        result::init().map_err(missing)?;
        let device = result::device::get(0).map_err(missing)?;
        // SAFETY: the device was just given to us; every handle below is made from the one before it.
        unsafe {
            let context = result::primary_ctx::retain(device).map_err(missing)?;
            result::ctx::set_current(context).map_err(missing)?;
            let stream =
                result::stream::create(result::stream::StreamKind::NonBlocking).map_err(told("no stream"))?;
            let image = CString::new(PTX).map_err(|e| failed(e.to_string()))?;
            let module = result::module::load_data(image.as_ptr().cast()).map_err(told(
                "the driver refuses kernels.ptx; it needs CUDA 13.0 and compute capability 8.0",
            ))?;
            let (functions, graphs) = (RefCell::default(), RefCell::default());
            Ok(Driver { device, context, stream, module, functions, graphs })
        }
    }

    fn enter(&self) -> Result<(), Error> {
        // SAFETY: the context lives as long as `self`.
        unsafe { result::ctx::set_current(self.context) }.map_err(told("the context is gone"))
    }

    fn wait(&self) -> Result<(), Error> {
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::synchronize(self.stream) }.map_err(told("a kernel failed"))
    }

    fn function(&self, name: &'static str) -> Result<sys::CUfunction, Error> {
        if let Some(function) = self.functions.borrow().get(name) {
            return Ok(*function);
        }
        let text = CString::new(name).map_err(|e| failed(e.to_string()))?;
        // SAFETY: the module lives as long as `self`.
        let function = unsafe { result::module::get_function(self.module, text) }.map_err(told(name))?;
        self.functions.borrow_mut().insert(name, function);
        Ok(function)
    }

    fn start(&self, launch: &Launch) -> Result<(), Error> {
        let [x, y, z] = launch.grid_u32();
        let function = self.function(launch.kernel)?;
        let mut pointers = launch.arguments.pointers();
        // SAFETY: `plan.rs` packs the parameters of each kernel in order; the addresses are those of live allocations, because
        // `free` waits for the stream.
        unsafe {
            result::launch_kernel(
                function,
                (x, y, z),
                (launch.threads, 1, 1),
                launch.shared_bytes as u32,
                self.stream,
                &mut pointers,
            )
        }
        .map_err(told(launch.kernel))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Errors here have nobody to tell: the process's end frees the same things.
        let _ = self.enter().and_then(|()| self.wait());
        self.forget_recordings();
        // SAFETY: nothing runs on the stream any more, and nobody has the handles but us.
        unsafe {
            let _ = result::module::unload(self.module);
            let _ = result::stream::destroy(self.stream);
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

impl Device for Driver {
    fn allocate(&self, bytes: usize) -> Result<Address, Error> {
        self.enter()?;
        // SAFETY: content is undefined by the trait's contract.
        let address = unsafe { result::malloc_sync(bytes.max(1)) };
        address.map(Address).map_err(told(&format!("no {bytes} bytes of device memory")))
    }

    fn free(&self, address: Address) {
        // An error means that the context is gone, and the memory with it.
        let _ = self.enter().and_then(|()| self.wait());
        // SAFETY: by the trait's contract nobody uses it any more; what ran on the stream has ended.
        let _ = unsafe { result::free_sync(address.0) };
    }

    fn upload(&self, to: Address, bytes: &[u8]) -> Result<(), Error> {
        self.enter()?;
        // SAFETY: the caller's memory has room; `bytes` live until the stream has taken them, for which we wait.
        unsafe { result::memcpy_htod_async(to.0, bytes, self.stream) }.map_err(told("upload"))?;
        self.wait()
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<(), Error> {
        self.enter()?;
        // SAFETY: as in `upload`.
        unsafe { result::memcpy_dtoh_async(bytes, from.0, self.stream) }.map_err(told("download"))?;
        self.wait()
    }

    fn launch(&self, launch: &Launch) -> Result<(), Error> {
        self.enter()?;
        self.start(launch)
    }

    fn record(&self, launches: &[Launch]) -> Result<Recording, Error> {
        self.enter()?;
        // Looked up before: loading a function is not allowed while the stream records.
        launches.iter().try_for_each(|launch| self.function(launch.kernel).map(drop))?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives as long as `self`; the graph is destroyed after its executable form was made.
        unsafe {
            result::stream::begin_capture(self.stream, mode).map_err(told("no recording"))?;
            let started = launches.iter().try_for_each(|launch| self.start(launch));
            // Ended in any case: a stream that records can do nothing else.
            let graph = result::stream::end_capture(self.stream).map_err(told("no recording"));
            started?;
            let graph = graph?;
            let executable = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            result::graph::destroy(graph).map_err(told("a recording stays"))?;
            self.graphs.borrow_mut().push(executable.map_err(told("no executable recording"))?);
        }
        Ok(Recording(self.graphs.borrow().len() - 1))
    }

    fn replay(&self, recording: Recording) -> Result<(), Error> {
        self.enter()?;
        // SAFETY: the graph is alive until `forget_recordings`, which takes all of them away.
        unsafe { result::graph::launch(self.graphs.borrow()[recording.0], self.stream) }
            .map_err(told("replay"))
    }

    fn forget_recordings(&self) {
        // An error means that the context is gone, and the graphs with it.
        let _ = self.enter().and_then(|()| self.wait());
        for graph in self.graphs.borrow_mut().drain(..) {
            // SAFETY: made by `record`, destroyed once, not running.
            let _ = unsafe { result::graph::exec_destroy(graph) };
        }
    }

    fn free_bytes(&self) -> Result<usize, Error> {
        self.enter()?;
        result::mem_get_info().map(|(free, _)| free).map_err(told("memory"))
    }
}
