//! Why bytes are no packet that a rule could see.

use std::fmt;

use etherparse::err::{ipv4, ipv6};

/// Why bytes are no packet that a rule could see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WireError {
    /// There is no byte.
    Empty,
    /// The version is neither 4 nor 6.
    Version(u8),
    /// The base header is not all there.
    HeaderCut {
        /// Bytes the header has, as far as they tell.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// The IPv4 header says that it is shorter than an IPv4 header.
    HeaderLength(u8),
    /// The packet says that it is shorter than its own header.
    LengthInsideHeader {
        /// Bytes the packet says it has.
        total: usize,
        /// Bytes of its header.
        header: usize,
    },
    /// The packet says that it is longer than the bytes given.
    LengthBeyondBytes {
        /// Bytes the packet says it has.
        total: usize,
        /// Bytes given.
        given: usize,
    },
    /// More bytes than a packet's length can count.
    TooLong {
        /// Bytes given.
        given: usize,
    },
    /// An IPv6 extension header begins where the packet has already ended.
    ExtensionCut {
        /// The extension header's number.
        header: u8,
        /// Where it begins.
        offset: usize,
    },
    /// An IPv6 extension header whose fields rules can test is not all there.
    ExtensionShort {
        /// The extension header's number.
        header: u8,
        /// Where it begins.
        offset: usize,
    },
    /// A later IPv6 fragment begins in the middle of extension headers.
    ExtensionInFragment {
        /// The extension header's number, as the fragment header names it.
        header: u8,
    },
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            WireError::Empty => write!(f, "no bytes: an IP packet begins with its version"),
            WireError::Version(version) => {
                write!(
                    f,
                    "IP version {version}: wanted 4 or 6 (is there a link-layer header before the packet?)"
                )
            }
            WireError::HeaderCut { needed, given } => {
                write!(f, "the IP header has {needed} bytes, but {given} are given")
            }
            WireError::HeaderLength(words) => {
                write!(f, "the IPv4 header length is {words} words: it is 5 at least")
            }
            WireError::LengthInsideHeader { total, header } => {
                write!(f, "the packet's length is {total} bytes, but its header alone has {header}")
            }
            WireError::LengthBeyondBytes { total, given } => {
                write!(f, "the packet's length is {total} bytes, but {given} are given: was its capture cut?")
            }
            WireError::TooLong { given } => {
                write!(f, "{given} bytes are given: more than a packet's 32-bit length counts")
            }
            WireError::ExtensionCut { header, offset } => write!(
                f,
                "extension header {header} should begin at byte {offset}, where the packet has ended: the \
                 kernel drops such a packet at the first rule that tests a protocol"
            ),
            WireError::ExtensionShort { header, offset } => write!(
                f,
                "the packet ends within extension header {header}, which begins at byte {offset}: the kernel \
                 drops such a packet at the first rule that tests a field of it"
            ),
            WireError::ExtensionInFragment { header } => write!(
                f,
                "a later fragment goes on inside extension header {header}: the kernel drops such a packet \
                 at the first rule that tests a protocol"
            ),
        }
    }
}

impl std::error::Error for WireError {}

pub(super) fn ipv4_fault(error: ipv4::HeaderSliceError) -> WireError {
    match error {
        ipv4::HeaderSliceError::Len(error) => {
            WireError::HeaderCut { needed: error.required_len, given: error.len }
        }
        ipv4::HeaderSliceError::Content(error) => match error {
            ipv4::HeaderError::UnexpectedVersion { version_number } => WireError::Version(version_number),
            ipv4::HeaderError::HeaderLengthSmallerThanHeader { ihl } => WireError::HeaderLength(ihl),
        },
    }
}

pub(super) fn ipv6_fault(error: ipv6::HeaderSliceError) -> WireError {
    match error {
        ipv6::HeaderSliceError::Len(error) => {
            WireError::HeaderCut { needed: error.required_len, given: error.len }
        }
        ipv6::HeaderSliceError::Content(ipv6::HeaderError::UnexpectedVersion { version_number }) => {
            WireError::Version(version_number)
        }
    }
}
