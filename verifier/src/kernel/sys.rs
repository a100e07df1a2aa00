//! The two system calls that have no safe form: a network namespace for this thread, and a TAP device.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;

use rustix::ioctl::{Updater, ioctl, opcode};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Moves the calling thread, and what it starts from now on, into a network namespace of its own. The
/// namespace ends with the last thread, process and file that is in it.
pub(super) fn enter_network_namespace() -> io::Result<()> {
    // SAFETY: the only flag that makes this call unsound is `FILES`, which takes file descriptors away from
    // under other code. A new network namespace changes no descriptor and no memory.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

/// The kernel's `struct ifreq`, as `TUNSETIFF` reads it: a name and two bytes of flags.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// The kernel reads and writes all of it, on every machine with 64-bit pointers.
const _: () = assert!(size_of::<InterfaceRequest>() == 40);

/// Frames with their Ethernet header.
const IFF_TAP: u16 = 2;
/// Packets without one.
const IFF_TUN: u16 = 1;
/// Frames are what they are, with nothing before them.
const IFF_NO_PI: u16 = 0x1000;

/// A device of that name in the namespace of the calling thread: what is written to the file comes in by the
/// device. It goes when the file is closed.
pub(super) fn device(name: &str, with_ethernet: bool) -> io::Result<File> {
    // Names of up to 15 bytes leave a zero at the end; a longer one is no name.
    let mut request = InterfaceRequest { name: [0; 16], flags: 0, rest: [0; 22] };
    let place = request.name[..15].get_mut(..name.len());
    place.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(name.as_bytes());
    request.flags = IFF_NO_PI | if with_ethernet { IFF_TAP } else { IFF_TUN };
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    rustix::io::ioctl_fionbio(&file, true)?;
    // SAFETY: TUNSETIFF is `_IOW('T', 202, int)` and takes a pointer to a `struct ifreq`, whatever its number
    // says of a size. It reads the name and the flags and writes the whole structure back, 40 bytes, which is
    // the size of `InterfaceRequest` (asserted above); any bytes are a valid value of each of its fields.
    unsafe {
        ioctl(&file, Updater::<{ opcode::write::<i32>(b'T', 202) }, _>::new(&mut request))?;
    }
    Ok(file)
}
