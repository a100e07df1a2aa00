//! tmp
use hipac_classifier::{Image, Key, Keys};
fn main() {
    let f = std::env::args().nth(1).unwrap();
    let nn: usize = std::env::args().nth(2).unwrap().parse().unwrap();
    let img = std::fs::read(format!("{f}.img")).unwrap();
    let raw = std::fs::read(format!("{f}.keys")).unwrap();
    let mut keys = Keys::new(16);
    for k in raw.chunks_exact(16).take(100000) {
        let mut key = Key::ZERO;
        key.0[..16].copy_from_slice(k);
        keys.push(&key);
    }
    let image = Image::open(&img[..]).unwrap();
    let entry = image.entry(image.find_entry("filter/FORWARD").unwrap()).unwrap();
    let forest = image.forest(&entry, true);
    let mut out = vec![0; nn];
    let t = std::time::Instant::now();
    let single = std::env::var("SINGLE").is_ok();
    let rounds = 40_000_000 / nn;
    let mut s = 0u64;
    for _ in 0..rounds {
        if single {
            for i in 0..nn {
                s += forest.first_match(keys.get(i), 0) as u64;
            }
        } else {
            forest.first_match_batch(&keys, 0..nn, &mut out);
        }
    }
    std::hint::black_box(s);
    println!("{:.2} ns", t.elapsed().as_nanos() as f64 / (rounds * nn) as f64);
}
