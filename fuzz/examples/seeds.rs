//! Writes what fuzzing begins from: `corpus/TARGET/…`, made by our own generators, and
//! `rules.dict`, the words of the registry.
//!
//! ```text
//! cargo run --release --example seeds
//! ```

use std::fs;
use std::io;
use std::path::Path;

use hipac_bench_data::edits::{EditMaker, Options as EditOptions};
use hipac_bench_data::iptables_gen::{Options, generate};
use hipac_fuzz::{nasty_text, real_images};
use hipac_rules::edit::print_edit;
use hipac_rules::{Family, Hook, TableKind, parse, registry};

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let write = |target: &str, name: String, bytes: &[u8]| {
        let folder = root.join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)
    };
    for (seed, family) in (0..40).flat_map(|seed| [(seed, Family::V4), (seed, Family::V6)]) {
        let options = Options { counters: seed % 3 == 0, ..Options::new(family, 3 + seed as u32, seed) };
        let text = generate(&options).map_err(io::Error::other)?;
        for target in ["parse", "text"] {
            write(target, format!("generated-{family:?}-{seed}"), text.as_bytes())?;
        }
    }
    for seed in 0..60u8 {
        // Any bytes choose a ruleset: these are spread by a product with an odd number.
        let spread =
            |i: u32| ((i + 1).wrapping_mul((u32::from(seed) * 2 + 1).wrapping_mul(0x9e37_79b1)) >> 13) as u8;
        let bytes: Vec<u8> = (0..300).map(spread).collect();
        write("agree", format!("choices-{seed}"), &bytes)?;
        let (text, _) = nasty_text(&bytes[1..]);
        write("text", format!("nasty-{seed}"), text.as_bytes())?;
        write("parse", format!("nasty-{seed}"), text.as_bytes())?;
    }
    for seed in 0..40u64 {
        write("live", format!("edits-{seed}"), &edits(seed)?)?;
    }
    for (i, image) in real_images().iter().enumerate().take(2) {
        write("image", format!("whole-{i}"), &[&[0], image.as_slice()].concat())?;
    }
    for kind in 1..8u8 {
        write("image", format!("changed-{kind}"), &[kind, 0, 0x80, 2, 0, 0, 0xc0, 7, 3])?;
    }
    for (i, packet) in packets().iter().enumerate() {
        write("wire", format!("packet-{i}"), packet)?;
    }
    fs::write(root.join("rules.dict"), dictionary())
}

/// Rules, and transactions of them.
fn edits(seed: u64) -> io::Result<Vec<u8>> {
    let family = if seed % 2 == 0 { Family::V4 } else { Family::V6 };
    let text = generate(&Options::new(family, 2 + seed as u32 / 4, seed)).map_err(io::Error::other)?;
    let mut maker = EditMaker::new(&parse(&text, &Default::default()).ruleset, &EditOptions::new(seed));
    let mut out = vec![seed as u8 * 3];
    out.extend_from_slice(text.as_bytes());
    for _ in 0..4 {
        out.extend_from_slice(b"---\n");
        for _ in 0..3 {
            let (edit, _) = maker.next_edit();
            let mut line = format!("*{}\n", edit.table.name());
            print_edit(&edit, family, &mut line);
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"COMMIT\n");
        }
    }
    Ok(out)
}

/// Headers of TCP, UDP and ICMP over both families, whole and cut off.
fn packets() -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for (protocol, header) in [(6u8, 20usize), (17, 8), (1, 8), (132, 12)] {
        for cut in [0, 1, header - 2] {
            let payload = vec![0x50; header - cut];
            let mut v4 = vec![0x45, 0, 0, (20 + payload.len()) as u8, 0, 0, 0, 0, 64, protocol, 0, 0];
            v4.extend([10, 0, 0, 1, 10, 0, 0, 2]);
            let mut v6 = vec![0x60, 0, 0, 0, 0, (8 + payload.len()) as u8, 0, 64];
            v6.extend([0x20; 32]);
            // A hop-by-hop header before the payload.
            v6.extend([protocol, 0, 1, 4, 0, 0, 0, 0]);
            out.extend([[v4, payload.clone()].concat(), [v6, payload].concat()]);
        }
    }
    out
}

/// A libFuzzer dictionary: names of tables, chains, extensions and options.
fn dictionary() -> String {
    let mut words: Vec<String> =
        ["-A ", "-I ", "-D ", "-P ", "-N ", "-j ", "-g ", "! ", "-f ", "-s ", "-d ", "-i ", "-o "]
            .map(String::from)
            .to_vec();
    words.extend(["COMMIT", ":u1 - [0:0]", "-p tcp ", "-p udp ", "-p icmp ", "-p icmpv6 "].map(String::from));
    words.extend(TableKind::ALL.map(|t| format!("*{}", t.name())));
    words.extend(Hook::ALL.map(|h| h.name().to_owned()));
    words.extend(registry::words().into_iter().map(|word| format!("{word} ")));
    words.extend(
        ["create ", "add ", " nomatch", "hash:ip,port", "family inet6", "192.0.2.0/24,tcp:80"]
            .map(String::from),
    );
    words.sort();
    words.dedup();
    words.iter().map(|w| format!("\"{}\"\n", w.replace('\\', "\\\\").replace('"', "\\\""))).collect()
}
