//! The extension headers of IPv6, walked as the kernel walks them.

use super::error::WireError;
use super::{IPV6_HEADER_BYTES, protocol};
use crate::packet::{Fact, Facts};

/// What stands behind the extension headers.
pub(super) struct Upper {
    pub(super) protocol: u8,
    /// Where it begins in the packet; may lie beyond its end.
    pub(super) offset: usize,
    /// 0: the packet is whole or a first fragment.
    pub(super) fragment_offset_bytes: u16,
}

/// Walks the extension headers of the IPv6 packet `whole`. Each step goes on by 8 bytes at
/// least, so the packet's length bounds it.
pub(super) fn walk_extensions(
    whole: &[u8],
    mut next_header: u8,
    facts: &mut Facts,
) -> Result<Upper, WireError> {
    let mut offset = IPV6_HEADER_BYTES;
    let mut seen = 0;
    while is_extension(next_header) {
        let cut = WireError::ExtensionCut { header: next_header, offset };
        let rest = whole.get(offset..).unwrap_or_default();
        // Like the kernel, this wants the two bytes that lead on, of two kinds the next two as well, and not
        // the whole header.
        let &[following, length, ..] = rest else { return Err(cut) };
        if matches!(next_header, protocol::ROUTING | protocol::FRAGMENT) && rest.len() < 4 {
            return Err(cut);
        }
        // What rules say of a kind of header, they say of the first.
        if seen & kind(next_header) == 0 {
            let short = WireError::ExtensionShort { header: next_header, offset };
            read_extension(next_header, rest, facts).ok_or(short)?;
        }
        seen |= kind(next_header);
        let header_bytes = match next_header {
            protocol::FRAGMENT => {
                let &[_, _, high, low, ..] = rest else { return Err(cut) };
                // The low three bits are flags; what is left counts bytes already.
                let fragment_offset_bytes = u16::from_be_bytes([high, low]) & !7;
                if fragment_offset_bytes != 0 {
                    facts.set(Fact::ExtHeaders, headers_seen(seen, following, whole.len(), offset + 8));
                    return later_fragment(following, offset, fragment_offset_bytes);
                }
                8
            }
            protocol::AH => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        next_header = following;
        offset += header_bytes;
    }
    facts.set(Fact::ExtHeaders, headers_seen(seen, next_header, whole.len(), offset));
    Ok(Upper { protocol: next_header, offset, fragment_offset_bytes: 0 })
}

/// The bit of an extension header among those of [`Fact::ExtHeaders`].
fn kind(header: u8) -> u32 {
    match header {
        protocol::HOP_BY_HOP => 128,
        protocol::DESTINATION => 64,
        protocol::ROUTING => 32,
        protocol::FRAGMENT => 16,
        protocol::AH => 8,
        protocol::ESP => 4,
        protocol::NO_NEXT => 2,
        _ => 1,
    }
}

/// [`Fact::ExtHeaders`], when `next` follows behind those seen, at `offset` of `total` bytes.
fn headers_seen(seen: u32, next: u8, total: usize, offset: usize) -> u32 {
    match (next, total.checked_sub(offset)) {
        // The last header claims more than there is: the kernel looks no further.
        (protocol::ESP | protocol::NO_NEXT, None) => seen,
        // Of ESP two bytes are wanted.
        (protocol::ESP, Some(0..2)) => 0,
        _ => seen | kind(next),
    }
}

/// The fields that rules test of an extension header, which `rest` begins with; `None` when not all of it is
/// there.
fn read_extension(header: u8, rest: &[u8], facts: &mut Facts) -> Option<()> {
    let word = |at: usize| rest.get(at..)?.first_chunk::<4>().map(|b| u32::from_be_bytes(*b));
    let length = u32::from(*rest.get(1)?);
    let bytes = (length + 1) * 8;
    let whole = |bytes: u32| (bytes as usize <= rest.len()).then_some(bytes);
    match header {
        protocol::AH => {
            let (spi, _sequence_number) = (word(4)?, word(8)?);
            facts.set(Fact::AhLength, whole((length + 2) * 4)?);
            facts.set(Fact::AhReserved, u32::from(rest[2..4] != [0, 0]));
            facts.set(Fact::AhSpi, spi);
        }
        protocol::FRAGMENT => {
            let (head, id) = (word(0)?, word(4)?);
            let (is_reserved, is_later) = (head & 0x00ff_0006 != 0, head & 0xfff8 != 0);
            let flags = 8 | u32::from(is_later) << 2 | (head & 1) << 1 | u32::from(is_reserved);
            facts.set(Fact::FragFlags, flags);
            facts.set(Fact::FragId, id);
        }
        protocol::ROUTING => {
            facts.set(Fact::RtLength, whole(bytes)?);
            facts.set(Fact::RtType, rest[2].into());
            facts.set(Fact::RtSegments, rest[3].into());
        }
        protocol::DESTINATION => facts.set(Fact::DstLength, whole(bytes)?),
        protocol::HOP_BY_HOP => facts.set(Fact::HbhLength, whole(bytes)?),
        _ => {}
    }
    Some(())
}

fn later_fragment(protocol: u8, offset: usize, fragment_offset_bytes: u16) -> Result<Upper, WireError> {
    if is_extension(protocol) {
        return Err(WireError::ExtensionInFragment { header: protocol });
    }
    Ok(Upper { protocol, offset, fragment_offset_bytes })
}

/// The headers that the kernel walks over in search of a protocol.
pub(super) fn is_extension(header: u8) -> bool {
    matches!(
        header,
        protocol::HOP_BY_HOP | protocol::ROUTING | protocol::FRAGMENT | protocol::AH | protocol::DESTINATION
    )
}
