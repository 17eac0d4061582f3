//! Running a model on a CUDA device: the weights' layout there, the order of launches, pages of keys and values, graphs. The
//! kernels stand in `cuda/kernels.cu`. A device is behind one trait with two implementations: an NVIDIA GPU (`driver.rs`, cargo
//! feature `cuda`) and this CPU (`emulated.rs`, cargo feature `cuda-shim` and every test), which runs the very same kernels.
//! Same bits as every other backend. No sampling parameters, no jobs, no threads of its own here.

#[cfg_attr(
    not(any(test, feature = "cuda", feature = "cuda-shim")),
    allow(
        dead_code,
        reason = "a build without a device compiles the way to one, and has nothing that takes it"
    )
)]
mod device;
#[cfg(feature = "cuda")]
mod driver;
#[cfg(any(test, feature = "cuda-shim"))]
mod emulated;
mod forward;
mod matrix;
mod pages;
mod plan;

pub(crate) use forward::{DeviceModel, Outcome};

use crate::error::Error;
use crate::model::{Shape, Weights};
use crate::numerics::Backend;
use device::Device;

/// The device that `backend` names.
fn open(backend: Backend) -> Result<Box<dyn Device>, Error> {
    #[cfg(feature = "cuda")]
    if backend == Backend::Cuda {
        return Ok(Box::new(driver::Driver::open()?));
    }
    #[cfg(any(test, feature = "cuda-shim"))]
    if backend == Backend::Emulated {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        return Ok(Box::new(emulated::Emulated::open(emulated::EmulatedOptions {
            threads: threads.min(emulated::THREADS_MAX),
            ..emulated::EmulatedOptions::default()
        })?));
    }
    Err(Error::UnsupportedBackend {
        what: format!(
            "this build has no {}; build with the cargo feature cuda (a GPU) or cuda-shim (kernels.cu on the CPU)",
            backend.name()
        ),
    })
}

/// Whether this build and this machine can run `backend`. Opens the device for a moment.
pub(crate) fn is_available(backend: Backend) -> bool {
    open(backend).is_ok()
}

/// Puts a model's weights on the device that `backend` names; None where `backend` is a processor.
pub(crate) fn load(backend: Backend, shape: &Shape, weights: &Weights) -> Result<Option<DeviceModel>, Error> {
    if !backend.is_device() {
        return Ok(None);
    }
    DeviceModel::new(open(backend)?, shape, weights).map(Some)
}

#[cfg(test)]
mod tests;
