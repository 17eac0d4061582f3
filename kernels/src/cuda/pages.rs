//! Pages of keys and values on the device. The host's pages stay the truth: each pass writes its new positions to both, so a page
//! here is a copy that may be dropped and made again. A copy is known by the address of the host's page: whatever sequence has that
//! memory, all positions it has stored went through this device, or are uploaded with the page when the copy is made.

use super::device::{Address, Device, failed};
use crate::error::Error;
use std::collections::HashMap;

/// Copies of the host's pages.
pub(super) struct PageCopies {
    copies: HashMap<usize, Copy>,
    page_bytes: usize,
    pages_max: usize,
    /// Number of the current pass.
    pass: u64,
}

struct Copy {
    address: Address,
    /// The last pass that used it.
    pass: u64,
}

impl PageCopies {
    /// Up to `pages_max` copies of `page_bytes` bytes.
    pub(super) fn new(page_bytes: usize, pages_max: usize) -> PageCopies {
        PageCopies { copies: HashMap::new(), page_bytes, pages_max, pass: 0 }
    }

    /// From now on another pass: copies that only earlier ones used may be dropped.
    pub(super) fn begin_pass(&mut self) {
        self.pass += 1;
    }

    /// Holds at most `pages_max` from now on; there must be none yet.
    #[cfg(test)]
    pub(super) fn limit(&mut self, pages_max: usize) {
        assert!(self.copies.is_empty(), "the limit comes first");
        self.pages_max = pages_max;
    }

    /// Copies held.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.copies.len()
    }

    /// Where the copy of `page` is. `has_positions`: whether earlier passes have stored some in it.
    ///
    /// # Errors
    /// [`Error::Device`] where one pass needs more pages than fit, and of the device.
    pub(super) fn locate(
        &mut self,
        device: &dyn Device,
        page: &[u16],
        has_positions: HasPositions,
    ) -> Result<Address, Error> {
        assert_eq!(page.len() * 2, self.page_bytes, "a page of another shape");
        let name = page.as_ptr() as usize;
        if let Some(copy) = self.copies.get_mut(&name) {
            copy.pass = self.pass;
            return Ok(copy.address);
        }
        let address = self.place(device)?;
        if has_positions == HasPositions::Yes {
            let bytes: Vec<u8> = page.iter().flat_map(|half| half.to_le_bytes()).collect();
            if let Err(error) = device.upload(address, &bytes) {
                device.free(address);
                return Err(error);
            }
        }
        self.copies.insert(name, Copy { address, pass: self.pass });
        Ok(address)
    }

    /// Memory for one more copy: new, or that of the copy whose last use is longest ago.
    fn place(&mut self, device: &dyn Device) -> Result<Address, Error> {
        if self.copies.len() < self.pages_max {
            return device.allocate(self.page_bytes);
        }
        let oldest = self.copies.iter().filter(|(_, copy)| copy.pass < self.pass);
        let oldest = oldest.min_by_key(|(_, copy)| copy.pass).map(|(name, _)| *name);
        let freed = oldest.and_then(|name| self.copies.remove(&name));
        freed.map(|copy| copy.address).ok_or_else(|| {
            failed(format!(
                "one pass needs more than {} pages of keys and values; run fewer or shorter jobs at once",
                self.pages_max
            ))
        })
    }
}

/// Whether a page holds positions from before this pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HasPositions {
    Yes,
    No,
}
