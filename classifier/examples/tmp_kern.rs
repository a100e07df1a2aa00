#![allow(unsafe_code)]
//! tmp
use hipac_classifier::forest::lookup::Machine;
use hipac_classifier::{Image, Key, Keys};
use std::time::Instant;
fn main() {
    let passes: usize = std::env::var("P").ok().and_then(|v| v.parse().ok()).unwrap_or(15);
    for f in std::env::args().skip(1) {
        let img0 = std::fs::read(format!("{f}.img")).unwrap();
        unsafe extern "C" {
            fn madvise(a: *mut u8, l: usize, x: i32) -> i32;
        }
        let lay = std::alloc::Layout::from_size_align((img0.len() + (4 << 20)) & !((2 << 20) - 1), 2 << 20)
            .unwrap();
        let img: &[u8] = unsafe {
            let p = std::alloc::alloc(lay);
            if std::env::var("HUGE").is_ok() {
                assert_eq!(madvise(p, lay.size(), 14), 0);
            }
            std::ptr::copy_nonoverlapping(img0.as_ptr(), p, img0.len());
            std::slice::from_raw_parts(p, img0.len())
        };
        let raw = std::fs::read(format!("{f}.keys")).unwrap();
        let stride: usize = std::fs::read_to_string(format!("{f}.stride")).unwrap().trim().parse().unwrap();
        let mut keys = Keys::new(stride);
        for k in raw.chunks_exact(stride) {
            let mut key = Key::ZERO;
            key.0[..stride].copy_from_slice(k);
            keys.push(&key);
        }
        let mut line = format!("{:<16}", f.rsplit('/').next().unwrap());
        let mut reference: Option<Vec<u32>> = None;
        for m in Machine::available() {
            if m == Machine::SCALAR && std::env::var("S").is_err() {
                continue;
            }
            if std::env::var("M").is_ok_and(|v| v != m.name()) {
                continue;
            }
            let image = Image::open(&img[..]).unwrap().with_machine(m);
            let entry = image.entry(image.find_entry("filter/FORWARD").unwrap()).unwrap();
            let forest = image.forest(&entry, true);
            let nk = keys.len();
            let mut out = vec![0; nk];
            let (mut a, mut b, mut c) = (vec![], vec![], vec![]);
            let slice = nk / 5;
            for p in 0..passes {
                let r = (p % 5) * slice..(p % 5 + 1) * slice;
                let t = Instant::now();
                let mut s = 0u64;
                for i in r.clone() {
                    s = s.wrapping_add(forest.first_match(keys.get(i), 0) as u64);
                }
                std::hint::black_box(s);
                a.push(t.elapsed().as_nanos() as f64 / slice as f64);
                let t = Instant::now();
                let mut i = r.start;
                let mut n = 0;
                while n < slice {
                    let x = forest.first_match(keys.get(i), 0);
                    i += 1 + (x & 1) as usize;
                    if i >= r.end {
                        i = r.start + 1;
                    }
                    n += 1;
                }
                std::hint::black_box(i);
                b.push(t.elapsed().as_nanos() as f64 / slice as f64);
                let t = Instant::now();
                for i in (r.start..r.end).step_by(256) {
                    let e = (i + 256).min(r.end);
                    forest.first_match_batch(&keys, i..e, &mut out[i..e]);
                }
                c.push(t.elapsed().as_nanos() as f64 / slice as f64);
            }
            for nn in [256usize; 0] {
                let mut h = vec![];
                for _ in 0..9 {
                    let t = Instant::now();
                    for _ in 0..200 {
                        forest.first_match_batch(&keys, 0..nn, &mut out[..nn]);
                    }
                    h.push(t.elapsed().as_nanos() as f64 / (200 * nn) as f64);
                }
                h.sort_by(f64::total_cmp);
                let mut hs = vec![];
                for _ in 0..9 {
                    let t = Instant::now();
                    let mut s = 0;
                    for _ in 0..200 {
                        for i in 0..nn {
                            s += forest.first_match(keys.get(i), 0) as u64;
                        }
                    }
                    std::hint::black_box(s);
                    hs.push(t.elapsed().as_nanos() as f64 / (200 * nn) as f64);
                }
                hs.sort_by(f64::total_cmp);
                line += &format!(" hot{nn} s {:.1} b {:.1}", hs[0], h[0]);
            }
            let t = Instant::now();
            let mut x = 1u64;
            for i in 0..10_000_000u64 {
                x = std::hint::black_box(x.wrapping_mul(3));
                let _ = i;
            }
            std::hint::black_box(x);
            let _ = t;
            let mut bad = 0;
            for i in 0..nk / 5 * 5 {
                if i % 7 == 0 && forest.first_match(keys.get(i), 0) != out[i] {
                    bad += 1;
                }
            }
            if let Some(r) = &reference {
                bad += r.iter().zip(&out).filter(|(a, b)| a != b).count();
            }
            reference = Some(out);
            for v in [&mut a, &mut b, &mut c] {
                v.sort_by(f64::total_cmp);
            }
            line += &format!(
                " {} single {:.1}/{:.1} dep {:.1}/{:.1} batch {:.1}/{:.1} bad {bad};",
                m.name(),
                a[0],
                a[a.len() / 2],
                b[0],
                b[b.len() / 2],
                c[0],
                c[c.len() / 2]
            );
        }
        let image = Image::open(&img[..]).unwrap();
        let entry = image.entry(image.find_entry("filter/FORWARD").unwrap()).unwrap();
        let forest = image.forest(&entry, true);
        let (mut t, mut n, mut l) = (0u64, 0u64, 0u64);
        for i in 0..100000 {
            let (_, v) = forest.first_match_counted(keys.get(i * 7 % keys.len()), 0);
            t += v.trees as u64;
            n += v.nodes as u64;
            l += v.leaves as u64;
        }
        println!(
            "{line} trees {:.2} nodes {:.2} leaves {:.2}",
            t as f64 / 1e5,
            n as f64 / 1e5,
            l as f64 / 1e5
        );
    }
}
