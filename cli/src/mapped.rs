//! Files in place: an image is mapped, not read, so that opening one costs the same whatever
//! its size, and pages that no lookup touches are never fetched.
//!
//! What cannot be mapped (standard input, a pipe, a file without a size) is read instead.
#![allow(unsafe_code)] // one call, stated and argued at it

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

use crate::exit::Failure;
use crate::file;

/// The bytes of a file, mapped or read.
#[derive(Debug)]
pub(crate) enum Bytes {
    Mapped(Mmap),
    Read(Vec<u8>),
}

impl Bytes {
    /// The bytes as a vector; copies those that are mapped.
    pub(crate) fn into_vec(self) -> Vec<u8> {
        match self {
            Bytes::Mapped(map) => map.to_vec(),
            Bytes::Read(bytes) => bytes,
        }
    }

    /// They are mapped: nothing has been read yet.
    #[cfg(test)]
    pub(crate) fn is_mapped(&self) -> bool {
        matches!(self, Bytes::Mapped(_))
    }
}

impl AsRef<[u8]> for Bytes {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Read(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        Bytes::Read(bytes)
    }
}

/// Maps a file, or reads it where that cannot be; `-` is standard input.
pub(crate) fn open(path: &Path) -> Result<Bytes, Failure> {
    if path == Path::new("-") {
        return file::read(path).map(Bytes::Read);
    }
    let failed = |error: io::Error| Failure::at(&file::name(path), error);
    let file = File::open(path).map_err(failed)?;
    match map(&file) {
        Some(map) => Ok(Bytes::Mapped(map)),
        None => {
            // From the file that is open: a pipe gives its bytes only once.
            let mut bytes = Vec::new();
            file::read_limited(file, &mut bytes).map_err(failed)?;
            file::within_limit(path, bytes).map(Bytes::Read)
        }
    }
}

/// The whole file, mapped for reading; `None` when it cannot be. Files of the kernel say that
/// they are empty and are not: they are left to be read.
fn map(file: &File) -> Option<Mmap> {
    let data = file.metadata().ok()?;
    if !data.is_file() || data.len() == 0 {
        return None;
    }
    // SAFETY: a mapping is sound as long as nobody changes the file under it, and no program can
    // enforce that. hipac keeps its side: it writes images by renaming a finished file over the
    // old one, so a mapped image is never written to. Who overwrites one in place gets wrong
    // answers, since lookups trust no byte: every offset read from an image is checked against
    // its length where it is used, so they stay inside and end. Who truncates one ends the
    // process with SIGBUS, as with any mapped file.
    unsafe { Mmap::map(file).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_is_mapped_and_what_has_no_size_is_read() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        assert!(!open(file.path()).unwrap().is_mapped(), "nothing to map");
        file.write_all(b"rules").unwrap();
        let bytes = open(file.path()).unwrap();
        assert!(bytes.is_mapped());
        assert_eq!((bytes.as_ref(), bytes.as_ref().len()), (&b"rules"[..], 5));
        assert_eq!(bytes.into_vec(), b"rules");
        if let Ok(bytes) = open(Path::new("/proc/self/status")) {
            assert!(!bytes.is_mapped() && bytes.as_ref().starts_with(b"Name:"));
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let Err(Failure::Message(message)) = open(Path::new("no/such/image")) else { panic!("opened") };
        assert!(message.starts_with("no/such/image: "), "{message}");
    }
}
