//! `hipac`: compile, classify, verify and test iptables rulesets offline.

mod args;
mod commands;
mod exit;
mod file;
mod input;
mod interrupt;
mod mapped;
mod measure;
mod output;
mod packets;
mod pcap;
mod progress;
mod replay;
mod sarif;
mod traffic;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = args::Args::parse();
    interrupt::install();
    match commands::run(&args) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report(),
    }
}
