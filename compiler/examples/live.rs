//! Rules that change while packets are classified by them.
//!
//! ```text
//! cargo run --release --example live -- 20000 10000     # rules, changes
//! ```

use std::error::Error;
use std::time::Instant;

use hipac_bench_data::{FilterFamily, classbench_gen, ruleset_of};
use hipac_compiler::{LiveOptions, LiveTable};
use hipac_rules::TableKind;
use hipac_rules::edit::{Change, Edit};

fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().skip(1).map(|arg| arg.parse::<u32>());
    let rules = numbers.next().transpose()?.unwrap_or(20_000);
    let changes = numbers.next().transpose()?.unwrap_or(10_000);

    let options = classbench_gen::Options::new(rules, 1);
    let filters = classbench_gen::generate(&FilterFamily::Firewall.parameters(), &options)?;
    let live = LiveTable::open(&ruleset_of(&filters)?, &LiveOptions::default())?;

    // A reader has a thread of its own as a rule; it pins once for each batch of packets.
    let mut reader = live.reader();
    let forward = "FORWARD".into();
    let mut at = 7usize;
    let begin = Instant::now();
    for _ in 0..changes / 2 {
        let count = live.rule_count(TableKind::Filter, &forward);
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let from = (at >> 33) % count;
        let Some(rule) = live.rule(TableKind::Filter, &forward, from) else { break };
        let delete = Change::Delete { chain: forward.clone(), at: from };
        live.apply(&[Edit::new(TableKind::Filter, delete)])?;
        let to = (at >> 20) % count;
        let insert = Change::Insert { chain: forward.clone(), at: to, rules: vec![(*rule).clone()] };
        live.apply(&[Edit::new(TableKind::Filter, insert)])?;
    }
    let seconds = begin.elapsed().as_secs_f64();

    // Commands as iptables-restore reads them are a transaction, too.
    live.apply_text("*filter\n-I FORWARD 1 -s 192.0.2.7/32 -j DROP\n-P FORWARD ACCEPT\nCOMMIT\n")?;

    let pinned = reader.pin();
    let entry = pinned.find_entry("filter/FORWARD").ok_or("no such chain")?;
    let mut packet =
        hipac_classifier::Packet { source: 0xc000_0207, protocol: 17, ..hipac_classifier::Packet::default() };
    let decision = pinned.evaluate(entry, &mut packet, &mut hipac_classifier::NoHost)?;
    println!("{:.2} µs a change; 192.0.2.7: {decision:?}", seconds * 1e6 / f64::from(changes.max(1)));
    println!("{:?}", live.stats());
    Ok(())
}
