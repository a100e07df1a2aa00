//! Looks for DPDK. With it the bench `peers` measures rte_acl; without it that bench says so.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(has_dpdk)");
    println!("cargo::rerun-if-changed=build.rs");
    // The declarations in `peers` are those of a 64-bit little-endian machine.
    let is_known = std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    let Ok(dpdk) = pkg_config::Config::new().cargo_metadata(false).probe("libdpdk") else { return };
    if !is_known {
        return;
    }
    println!("cargo::rustc-cfg=has_dpdk");
    // Two of DPDK's hundred libraries, and for benches only: none of the crates needs them.
    for folder in dpdk.link_paths {
        println!("cargo::rustc-link-arg-benches=-L{}", folder.display());
    }
    for arg in ["-Wl,--as-needed", "-lrte_acl", "-lrte_eal"] {
        println!("cargo::rustc-link-arg-benches={arg}");
    }
}
