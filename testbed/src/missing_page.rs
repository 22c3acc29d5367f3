//! Memory that is not there yet: whoever reads it waits, in the kernel too (userfaultfd).

use std::{
    fs::File,
    io::{self, Read},
    num::NonZeroUsize,
    os::fd::{AsFd, AsRawFd, FromRawFd},
    ptr::NonNull,
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap},
};

use crate::machine::longer;

/// One page of zeros that is missing until it is [given](MissingPage::give).
#[derive(Debug)]
pub(crate) struct MissingPage {
    /// Mapped by this, and unmapped with it.
    bytes: &'static [u8],
    /// Tells of readers. The page is missing for as long as this is open.
    faults: Mutex<Option<File>>,
}

/// `struct uffdio_api` (include/uapi/linux/userfaultfd.h).
#[repr(C)]
#[derive(Default)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
#[derive(Default)]
struct Register {
    start: u64,
    length: u64,
    mode: u64,
    ioctls: u64,
}

nix::ioctl_readwrite!(agree, 0xaa, 0x3f, Api); // UFFDIO_API
nix::ioctl_readwrite!(register, 0xaa, 0x00, Register); // UFFDIO_REGISTER

impl MissingPage {
    const SIZE: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
    /// Far more than a thread needs to come to a page.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// # Errors
    /// Without root, and where the kernel has no userfaultfd.
    pub(crate) fn new() -> Result<Self> {
        let (protection, flags) = (ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE);
        // SAFETY: the kernel chooses the place, so nothing else is there.
        let memory = unsafe { mmap_anonymous(None, Self::SIZE, protection, flags) }?;
        // SAFETY: mapped for reading just now, with this length, and nobody writes to it; only
        // `drop` unmaps it, and `bytes` lends it no longer than that.
        let bytes = unsafe { NonNull::slice_from_raw_parts(memory.cast(), 4096).as_ref() };
        let page = Self { bytes, faults: Mutex::new(None) };
        let faults = open().context("no userfaultfd")?;
        let mut api = Api { api: 0xaa, ..Api::default() }; // UFFD_API
        let mut range = Register {
            start: memory.as_ptr() as u64,
            length: Self::SIZE.get() as u64,
            mode: 1, // UFFDIO_REGISTER_MODE_MISSING
            ..Register::default()
        };
        let descriptor = faults.as_raw_fd();
        // SAFETY: both structures are the kernel's own, and live beyond the calls.
        unsafe {
            agree(descriptor, &raw mut api).context("the kernel's userfaultfd is another")?;
            register(descriptor, &raw mut range).context("cannot keep a page missing")?;
        }
        *page.faults.lock().unwrap_or_else(|error| error.into_inner()) = Some(faults);
        Ok(page)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// Waits until somebody reads it.
    ///
    /// # Errors
    /// When nobody does.
    pub(crate) fn wait_for_reader(&self) -> Result<()> {
        let faults = self.faults.lock().unwrap_or_else(|error| error.into_inner());
        let Some(mut faults) = faults.as_ref() else { return Ok(()) };
        let mut readable = [PollFd::new(faults.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(longer(Self::PATIENCE))?;
        ensure!(poll(&mut readable, patience)? == 1, "nobody reads the page");
        // A `struct uffd_msg` has 32 bytes; all it can say is that there is a reader.
        faults.read_exact(&mut [0; 32]).context("cannot read what userfaultfd tells")
    }

    /// Lets readers go on.
    pub(crate) fn give(&self) {
        *self.faults.lock().unwrap_or_else(|error| error.into_inner()) = None;
    }
}

impl Drop for MissingPage {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; what `bytes` has lent is gone by now.
        let unmapped = unsafe { munmap(NonNull::from(self.bytes).cast(), self.bytes.len()) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}

fn open() -> io::Result<File> {
    // Not blocking: else it cannot be polled.
    // SAFETY: there is no pointer in it.
    let result =
        unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for us alone.
    Ok(unsafe { File::from_raw_fd(result as libc::c_int) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs root: cargo xtask test"]
    fn a_reader_waits_until_the_page_is_given() {
        let page = MissingPage::new().unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| page.bytes()[7]);
            page.wait_for_reader().unwrap();
            assert!(!reader.is_finished());
            page.give();
            assert_eq!(reader.join().unwrap(), 0);
        });
    }
}
