//! Damaged images: opening, auditing and asking them never panics and never runs on. What passes
//! the audit answers without damage, and alike on every machine.
//!
//! ```text
//!   input   0          1 …
//!           kind       the whole file                           kind 0
//!                      image, then changes of 4 bytes each      else
//!                        place u16 (in 1/65536 of the image), how u8, value u8
//! ```
#![no_main]

use hipac_classifier::evaluate::EvaluateError;
use hipac_classifier::forest::lookup::Machine;
use hipac_classifier::image::format::HEADER_BYTES;
use hipac_classifier::{EntryId, Image, L4, NoHost, Packet};
use hipac_fuzz::real_images;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&kind, rest)) = input.split_first() else { return };
    if kind == 0 {
        examine(rest);
    } else {
        let images = real_images();
        let mut image = images[usize::from(kind) % images.len()].clone();
        rest.chunks_exact(4).for_each(|change| apply(change, &mut image));
        examine(&image);
        seal(&mut image);
        examine(&image);
    }
});

fn apply(change: &[u8], image: &mut [u8]) {
    let at = usize::from(u16::from_le_bytes([change[0], change[1]])) * image.len() >> 16;
    // Neighbours of a place are reached by the upper bits of how.
    let at = (at + usize::from(change[2] >> 3)) % image.len();
    let byte = &mut image[at];
    *byte = match change[2] & 7 {
        0 => change[3],
        1 => *byte ^ change[3],
        2 => byte.wrapping_add(1),
        3 => byte.wrapping_sub(1),
        4 => 0xff,
        5 => 0,
        6 => byte.wrapping_add(change[3]),
        _ => *byte ^ 1 << (change[3] & 7),
    };
}

/// Makes the checksums right, as somebody with intent would.
fn seal(image: &mut [u8]) {
    let body = crc32fast::hash(&image[HEADER_BYTES..]);
    image[24..28].copy_from_slice(&body.to_le_bytes());
    let head = crc32fast::hash(&image[..28]);
    image[28..32].copy_from_slice(&head.to_le_bytes());
}

fn examine(bytes: &[u8]) {
    let Ok(image) = Image::open(bytes) else { return };
    let is_sound = image.audit().is_ok();
    let scalar = image.clone().with_machine(Machine::SCALAR);
    for id in (0..image.entry_count().min(4)).map(|id| EntryId(id as u32)) {
        for packet in packets(image.is_v6()) {
            let ask = |image: &Image<&[u8]>| image.evaluate(id, &mut packet.clone(), &mut NoHost);
            let found = ask(&image);
            if is_sound {
                assert!(
                    !matches!(found, Err(EvaluateError::Damaged { .. })),
                    "audited, and damaged: {found:?}"
                );
                assert_eq!(found, ask(&scalar), "machines differ");
            }
        }
    }
}

fn packets(is_v6: bool) -> [Packet; 3] {
    let base = Packet { is_v6, ..Packet::default() };
    [
        base,
        Packet { protocol: 6, source: u128::MAX >> if is_v6 { 0 } else { 96 }, destination_port: 80, ..base },
        Packet { protocol: 17, l4: L4::Under4, ttl: 255, mark: u32::MAX, ..base },
    ]
}
