//! Changing bytes of an image and making its checksums right again, so that nothing but the
//! meaning of the bytes is left to give the change away.

use std::ops::Range;

use hipac_classifier::image::Section;
use hipac_classifier::image::format::HEADER_BYTES;

/// Where a section's bytes lie: read from the section table, as the format says.
pub(crate) fn section(image: &[u8], section: Section) -> Range<usize> {
    let number = |at: usize| {
        let mut array = [0; 8];
        array.copy_from_slice(&image[at..at + 8]);
        u64::from_le_bytes(array) as usize
    };
    let at = HEADER_BYTES + 16 * section as usize;
    number(at)..number(at) + number(at + 8)
}

/// Computes both checksums anew.
pub(crate) fn seal(image: &mut [u8]) {
    let body = crc32fast::hash(&image[HEADER_BYTES..]);
    image[24..28].copy_from_slice(&body.to_le_bytes());
    let head = crc32fast::hash(&image[..28]);
    image[28..32].copy_from_slice(&head.to_le_bytes());
}

/// Makes the checksums of a certificate right again: of the image, and of its own steps.
pub(crate) fn certificate(certificate: &mut [u8], image: &[u8]) {
    let sum = |bytes: &[u8]| {
        let step = |sum: u64, &byte: &u8| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
    };
    let (of_image, of_steps) = (sum(image), sum(&certificate[40..]));
    certificate[24..32].copy_from_slice(&of_image.to_le_bytes());
    certificate[32..40].copy_from_slice(&of_steps.to_le_bytes());
}

/// The `u32` at `at`.
pub(crate) fn word(image: &[u8], at: usize) -> u32 {
    let mut array = [0; 4];
    array.copy_from_slice(&image[at..at + 4]);
    u32::from_le_bytes(array)
}

/// Gives two source rules each other's name, as if the compiler had swapped the rules: positions
/// that came from one say that they come from the other.
pub(crate) fn swap_origins(image: &mut [u8], one: u32, other: u32) {
    let flats = section(image, Section::Flats);
    for at in flats.step_by(Section::Flats.record_bytes()).map(|at| at + 4) {
        let origin = word(image, at);
        let swapped = match origin {
            o if o == one => other,
            o if o == other => one,
            o => o,
        };
        image[at..at + 4].copy_from_slice(&swapped.to_le_bytes());
    }
    seal(image);
}
