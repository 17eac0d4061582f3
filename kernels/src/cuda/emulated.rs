//! The device that is this CPU: `kernels.cu` compiled as C++, run by the shim in `cuda/shim`. Memory it hands out holds NaN until
//! written and has guards on both sides that every launch checks.

use super::device::{Address, Device, Launch, Recording, failed};
use crate::error::Error;
use crate::pool::Pool;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::Mutex;

/// Threads of this machine that run blocks.
pub(super) const THREADS_MAX: usize = 16;
/// Blocks below which other threads are not worth waking.
const BLOCKS_INLINE: u64 = 4;
/// All bits set: NaN as f32 and f16.
const FRESH: u8 = 0xff;
/// On both sides of an allocation, in units of 16 bytes.
const GUARD: u128 = 0xa5a5_a5a5_a5a5_a5a5_a5a5_a5a5_a5a5_a5a5;
const GUARD_UNITS: usize = 16;
/// What `free_bytes` says: there is no real limit.
const FREE_BYTES: usize = 1 << 33;

/// How to emulate.
#[derive(Clone, Copy, Debug)]
pub(super) struct EmulatedOptions {
    /// Threads of this machine.
    pub threads: usize,
    /// Order of fibres; 0: ascending.
    pub seed: u64,
    /// Line of `kernels.cu` whose barriers do nothing; 0: none.
    pub skipped_line: u32,
}

impl Default for EmulatedOptions {
    fn default() -> EmulatedOptions {
        EmulatedOptions { threads: 1, seed: 1, skipped_line: 0 }
    }
}

/// The emulated device.
pub(super) struct Emulated {
    pool: Pool,
    seed: Cell<u64>,
    skipped_line: Cell<u32>,
    allocations: RefCell<BTreeMap<u64, Allocation>>,
    recordings: RefCell<Vec<Vec<Launch>>>,
}

struct Allocation {
    /// Guards included. Behind a raw pointer, because kernels write it while we hold it.
    memory: *mut [u128],
    bytes: usize,
}

// SAFETY: the pointer is owned by this value alone, as a box would be.
unsafe impl Send for Allocation {}

impl Allocation {
    fn new(bytes: usize) -> Allocation {
        let fresh = u128::from_ne_bytes([FRESH; 16]);
        let mut memory = vec![fresh; bytes.div_ceil(16) + 2 * GUARD_UNITS];
        let end = memory.len() - GUARD_UNITS;
        memory[..GUARD_UNITS].fill(GUARD);
        memory[end..].fill(GUARD);
        Allocation { memory: Box::into_raw(memory.into_boxed_slice()), bytes }
    }

    fn start(&self) -> *mut u8 {
        self.memory.cast::<u128>().wrapping_add(GUARD_UNITS).cast()
    }

    fn is_intact(&self) -> bool {
        let end = self.memory.len() - GUARD_UNITS;
        // SAFETY: the memory is alive and initialised; no kernel runs while the device's own thread is here.
        (0..GUARD_UNITS).chain(end..end + GUARD_UNITS).all(|at| unsafe { (&(*self.memory))[at] == GUARD })
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw` in `new`, dropped once.
        drop(unsafe { Box::from_raw(self.memory) });
    }
}

impl Emulated {
    pub(super) fn open(options: EmulatedOptions) -> Result<Emulated, Error> {
        if !cuda_shim::is_available() {
            return Err(Error::UnsupportedBackend {
                what: "the CUDA shim needs a processor with FMA".to_owned(),
            });
        }
        Ok(Emulated {
            pool: Pool::new(options.threads)?,
            seed: Cell::new(options.seed),
            skipped_line: Cell::new(options.skipped_line),
            allocations: RefCell::default(),
            recordings: RefCell::default(),
        })
    }

    /// The part of an allocation at `address`, as far as `bytes` lie inside it.
    fn place(&self, address: Address, bytes: usize) -> Result<*mut u8, Error> {
        let allocations = self.allocations.borrow();
        let found = allocations.range(..=address.0).next_back();
        found
            .map(|(start, allocation)| (address.0 - start, allocation))
            .filter(|(offset, allocation)| *offset as usize + bytes <= allocation.bytes)
            .map(|(offset, allocation)| allocation.start().wrapping_add(offset as usize))
            .ok_or_else(|| {
                failed(format!("a copy of {bytes} bytes at {:#x} is outside of all memory", address.0))
            })
    }
}

/// Pointers that several threads read.
struct Shared(Vec<*mut c_void>);

// SAFETY: the pointers lead to the words of an `Arguments` that nobody changes during a launch.
unsafe impl Sync for Shared {}

impl Device for Emulated {
    fn allocate(&self, bytes: usize) -> Result<Address, Error> {
        let allocation = Allocation::new(bytes);
        let address = allocation.start() as u64;
        self.allocations.borrow_mut().insert(address, allocation);
        Ok(Address(address))
    }

    fn free(&self, address: Address) {
        let freed = self.allocations.borrow_mut().remove(&address.0);
        assert!(freed.is_some(), "memory is freed that was not allocated");
    }

    fn upload(&self, to: Address, bytes: &[u8]) -> Result<(), Error> {
        let place = self.place(to, bytes.len())?;
        // SAFETY: `place` has room for them; host memory and device memory are different allocations.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
        Ok(())
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<(), Error> {
        let place = self.place(from, bytes.len())?;
        // SAFETY: as in `upload`; the memory was initialised when it was allocated.
        unsafe { std::ptr::copy_nonoverlapping(place, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn launch(&self, launch: &Launch) -> Result<(), Error> {
        let grid = launch.grid_u32();
        let blocks: u64 = grid.iter().map(|extent| u64::from(*extent)).product();
        let parts = if blocks < BLOCKS_INLINE { 1 } else { (self.pool.threads() * 4).min(blocks as usize) };
        let pointers = Shared(launch.arguments.pointers());
        let failure = Mutex::new(None);
        let (seed, skipped_line) = (self.seed.get(), self.skipped_line.get());
        self.pool.run(parts, |part| {
            let pointers = &pointers;
            let at = |part: usize| blocks * part as u64 / parts as u64;
            let own = cuda_shim::Launch {
                kernel: launch.kernel,
                grid,
                block: [launch.threads, 1, 1],
                shared_bytes: launch.shared_bytes as u32,
                seed,
                skipped_line,
                blocks: at(part)..at(part + 1),
            };
            // SAFETY: `plan.rs` packs the parameters of each kernel in order; addresses come from `allocate`, and the guards
            // below notice a kernel that goes a little too far.
            if let Err(error) = unsafe { cuda_shim::launch(&own, &pointers.0) }
                && let Ok(mut failure) = failure.lock()
            {
                failure.get_or_insert(error);
            }
        });
        if let Some(error) = failure.into_inner().unwrap_or_default() {
            return Err(failed(error));
        }
        match self.allocations.borrow().values().all(Allocation::is_intact) {
            true => Ok(()),
            false => Err(failed(format!("{} wrote beyond its memory", launch.kernel))),
        }
    }

    fn record(&self, launches: &[Launch]) -> Result<Recording, Error> {
        self.recordings.borrow_mut().push(launches.to_vec());
        Ok(Recording(self.recordings.borrow().len() - 1))
    }

    fn replay(&self, recording: Recording) -> Result<(), Error> {
        let recordings = self.recordings.borrow();
        recordings[recording.0].iter().try_for_each(|launch| self.launch(launch))
    }

    fn forget_recordings(&self) {
        self.recordings.borrow_mut().clear();
    }

    fn free_bytes(&self) -> Result<usize, Error> {
        Ok(FREE_BYTES)
    }
}
