//! The door to the shim: one launch of one kernel of `kernels.cu` on this CPU. Knows no model, allocates nothing.

use std::ffi::{CString, c_char, c_int, c_void};
use std::ops::Range;

/// One launch, or a part of one: the blocks of `blocks`, counted x first. Parts may run on several threads at once.
#[derive(Clone, Debug)]
pub struct Launch<'a> {
    /// Name in `kernels.cu`.
    pub kernel: &'a str,
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Order in which fibres run; 0: ascending.
    pub seed: u64,
    /// A line of `kernels.cu` whose barriers do nothing; 0: none. For mutation tests.
    pub skipped_line: u32,
    /// Which blocks.
    pub blocks: Range<u64>,
}

#[repr(C)]
struct RawLaunch {
    kernel: *const c_char,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    skipped_line: u32,
    seed: u64,
    first_block: u64,
    end_block: u64,
}

unsafe extern "C" {
    fn counterfoil_shim_launch(
        launch: *const RawLaunch,
        arguments: *const *mut c_void,
        message: *mut c_char,
        message_bytes: usize,
    ) -> c_int;
}

/// Bytes of a message.
const MESSAGE_BYTES: usize = 512;

/// Whether this processor can run the shim: on x86-64 it needs FMA.
pub fn is_available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    return true;
}

/// Runs `launch`; `arguments` holds one pointer per parameter, as `cuLaunchKernel` takes them.
///
/// # Errors
/// What the shim noticed: a divergent barrier, a wrong mask, a deadlock, a write beyond shared memory, an unknown kernel.
///
/// # Safety
/// The arguments must be those of the kernel, and what they point to must hold what the kernel reads and writes.
pub unsafe fn launch(launch: &Launch<'_>, arguments: &[*mut c_void]) -> Result<(), String> {
    let kernel = CString::new(launch.kernel).map_err(|e| e.to_string())?;
    let raw = RawLaunch {
        kernel: kernel.as_ptr(),
        grid: launch.grid,
        block: launch.block,
        shared_bytes: launch.shared_bytes,
        skipped_line: launch.skipped_line,
        seed: launch.seed,
        first_block: launch.blocks.start,
        end_block: launch.blocks.end,
    };
    let mut message = [0u8; MESSAGE_BYTES];
    // SAFETY: `raw` and `message` live through the call, `message` ends with a zero whatever is written; the rest is the
    // caller's promise.
    let code = unsafe {
        counterfoil_shim_launch(&raw, arguments.as_ptr(), message.as_mut_ptr().cast(), MESSAGE_BYTES - 1)
    };
    if code == 0 {
        return Ok(());
    }
    let end = message.iter().position(|byte| *byte == 0).unwrap_or(MESSAGE_BYTES);
    Err(String::from_utf8_lossy(&message[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kernel: &str, seed: u64, pointers: &mut [*mut i32]) -> Result<(), String> {
        let one = Launch {
            kernel,
            grid: [1, 1, 1],
            block: [64, 1, 1],
            shared_bytes: 256,
            seed,
            skipped_line: 0,
            blocks: 0..1,
        };
        let arguments: Vec<*mut c_void> =
            pointers.iter_mut().map(|pointer| (pointer as *mut *mut i32).cast()).collect();
        // SAFETY: the kernels of this module take pointers to as many words as each test has.
        unsafe { launch(&one, &arguments) }
    }

    #[test]
    fn mistakes_are_named_whatever_the_order_of_threads() {
        for seed in 0..20 {
            for (kernel, expected) in [
                ("faulty::divergent_barrier", "divergent barrier"),
                ("faulty::lane_outside_its_mask", "outside its own mask 0000ffff"),
                ("faulty::divergent_warp", "divergent warp"),
                ("faulty::half_a_warp_waits", "deadlock"),
                ("faulty::ended_lanes", "lanes that have ended"),
                ("faulty::beyond_shared", "beyond the 256 bytes of dynamic shared memory"),
                ("no such kernel", "cannot launch no such kernel"),
            ] {
                let said = run(kernel, seed, &mut []).unwrap_err();
                // A lane that ends last is not noticed by those that came before: they wait for ever.
                let also = kernel == "faulty::ended_lanes" && said.contains("deadlock");
                assert!(said.contains(expected) || also, "{kernel} {seed}: {said}");
            }
            let mut word = 7;
            let said = run("faulty::copy_not_awaited", seed, &mut [&raw mut word]).unwrap_err();
            assert!(said.contains("copies nobody waited for"), "{said}");
        }
    }

    #[test]
    fn shared_memory_is_poisoned_and_copies_arrive_when_awaited() {
        let (mut from, mut out) = (7, [0; 3]);
        // Ascending order: what is seen is the last thread's, to whom the others have shown 7 already; so one by one.
        let one = Launch {
            kernel: "faulty::reads_poison",
            grid: [1, 1, 1],
            block: [1, 1, 1],
            shared_bytes: 0,
            seed: 0,
            skipped_line: 0,
            blocks: 0..1,
        };
        let (mut from_at, mut out_at) = (&raw mut from, (&raw mut out).cast::<i32>());
        let arguments = [(&raw mut from_at).cast(), (&raw mut out_at).cast()];
        // SAFETY: one word in, three out, as the kernel says.
        unsafe { launch(&one, &arguments) }.unwrap();
        let poison = i32::from_ne_bytes([0xCD; 4]);
        assert_eq!(out, [poison, poison, 7]);
    }

    #[test]
    fn seeds_are_orders_and_the_same_seed_the_same_order() {
        let order = |seed| {
            let (mut counter, mut out) = (0, [0; 64]);
            run("faulty::order", seed, &mut [&raw mut counter, (&raw mut out).cast()]).unwrap();
            out
        };
        assert_eq!(order(0), std::array::from_fn(|i| i as i32));
        assert_eq!(order(5), order(5));
        assert_ne!(order(5), order(6));
        assert_ne!(order(5), order(0));
    }
}
