//! hipac beside DPDK's `rte_acl`: the same rules, the same packets, the same core, in turns.
//!
//! ```text
//! HIPAC_CORPUS=… cargo bench -p hipac-benches --bench peers [-- PART] [-- --full]
//! ```
//!
//! Sets are those of the corpus up to 10k rules, or three families of our own without one;
//! `--full` adds 100k, where rte_acl may take 15 seconds and 10 GB to build. `PART` picks sets by
//! a part of their name. rte_acl is measured with each of its methods that this processor has,
//! and its best one counts; in batches of 256 and with one packet a call. Both sides look packets
//! up that lie prepared in memory: keys there, headers in network byte order here. All answers
//! are compared.

#[cfg(has_dpdk)]
mod compare;
#[cfg(has_dpdk)]
mod rte_acl;

#[cfg(has_dpdk)]
fn main() {
    compare::run();
}

#[cfg(not(has_dpdk))]
fn main() {
    println!("skipped: DPDK not found (libdpdk-dev)");
}
