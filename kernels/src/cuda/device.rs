//! What a device is: memory, copies, launches, recorded sequences of launches. The arguments of a launch are packed as
//! `cuLaunchKernel` takes them, so that both implementations get the same bytes. No kernels, no model.

use crate::error::Error;
use std::ffi::c_void;

/// A place in a device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address(pub u64);

impl Address {
    /// No memory: what a kernel takes for "there is none".
    pub(crate) const NONE: Address = Address(0);

    /// So many bytes further.
    pub(crate) fn plus(self, bytes: usize) -> Address {
        Address(self.0 + bytes as u64)
    }
}

/// One launch of one kernel of `kernels.cu`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Launch {
    pub kernel: &'static str,
    /// Blocks in x, y, z.
    pub grid: [usize; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: usize,
    pub arguments: Arguments,
}

impl Launch {
    /// The grid as the driver takes it; a grid of no blocks, or too many for a GPU, is our own mistake.
    pub(crate) fn grid_u32(&self) -> [u32; 3] {
        assert!(self.grid.iter().all(|extent| *extent > 0), "{}: an empty grid {:?}", self.kernel, self.grid);
        assert!(self.grid[1] <= 65_535 && self.grid[2] <= 65_535, "{}: grid {:?}", self.kernel, self.grid);
        self.grid.map(|extent| u32::try_from(extent).expect("a grid is smaller than 2^32"))
    }
}

/// The parameters of a kernel, in order. Each starts on a multiple of eight bytes, the alignment of all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    words: Vec<u64>,
    starts: Vec<usize>,
}

impl Arguments {
    pub(crate) fn new() -> Arguments {
        Arguments::default()
    }

    /// A pointer.
    pub(crate) fn address(self, address: Address) -> Arguments {
        self.structure(&[address.0])
    }

    /// An `unsigned` or a non-negative `int`.
    pub(crate) fn integer(self, value: usize) -> Arguments {
        let value = u32::try_from(value).expect("extents are below 2^32");
        self.structure(&[u64::from(value)])
    }

    /// A `float`.
    pub(crate) fn float(self, value: f32) -> Arguments {
        self.structure(&[u64::from(value.to_bits())])
    }

    /// A structure by value; `words` are its bytes, little-endian.
    pub(crate) fn structure(mut self, words: &[u64]) -> Arguments {
        self.starts.push(self.words.len());
        self.words.extend_from_slice(words);
        self
    }

    /// One pointer a parameter. Valid as long as `self` is neither changed nor dropped; nobody writes through them.
    pub(crate) fn pointers(&self) -> Vec<*mut c_void> {
        self.starts.iter().map(|start| (&raw const self.words[*start]).cast_mut().cast()).collect()
    }
}

/// Two `unsigned` side by side in a structure.
pub(crate) fn two(low: usize, high: usize) -> u64 {
    let half = |value: usize| u64::from(u32::try_from(value).expect("extents are below 2^32"));
    half(low) | half(high) << 32
}

/// A recorded sequence of launches: number of a recording of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recording(pub usize);

/// A device. Everything happens in the order of the calls; a download waits for what came before it.
pub(crate) trait Device: Send {
    /// Memory of `bytes` bytes, aligned to at least 256, its content undefined.
    fn allocate(&self, bytes: usize) -> Result<Address, Error>;

    /// Gives memory back. `address` comes from `allocate`, and nothing that uses it runs or is replayed any more.
    fn free(&self, address: Address);

    /// Host to device.
    fn upload(&self, to: Address, bytes: &[u8]) -> Result<(), Error>;

    /// Device to host.
    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<(), Error>;

    /// Starts a kernel.
    fn launch(&self, launch: &Launch) -> Result<(), Error>;

    /// Records launches without running them.
    fn record(&self, launches: &[Launch]) -> Result<Recording, Error>;

    /// Runs what was recorded.
    fn replay(&self, recording: Recording) -> Result<(), Error>;

    /// Forgets all recordings.
    fn forget_recordings(&self);

    /// Bytes that can still be allocated, about.
    fn free_bytes(&self) -> Result<usize, Error>;
}

/// An error of a device, in its words.
pub(crate) fn failed(what: impl Into<String>) -> Error {
    Error::Device { what: what.into() }
}
