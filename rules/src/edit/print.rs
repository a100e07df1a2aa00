//! Edits as text: one line each, as `iptables-restore --noflush --counters` takes them.

use std::fmt::Write;

use crate::model::{Counters, Family, Rule};
use crate::print::{print_spec, write_name};

use super::{Change, Edit, Group};

/// Groups as text, each from `*TABLE` to `COMMIT`, so that reading it gives them back.
pub fn print_groups(groups: &[Group], family: Family) -> String {
    let mut out = String::new();
    for group in groups {
        let _ = writeln!(out, "*{}", group.table.name());
        for edit in &group.edits {
            print_edit(edit, family, &mut out);
        }
        out.push_str("COMMIT\n");
    }
    out
}

/// The lines of an edit, without its table: one for each of its rules, nearly always a single one.
pub fn print_edit(edit: &Edit, family: Family, out: &mut String) {
    let number = |at: usize| format!(" {}", at.saturating_add(1));
    match &edit.change {
        Change::Append { chain, rules } => print_rules("-A", chain, "", rules, family, out),
        Change::Insert { chain, at, rules } => print_rules("-I", chain, &number(*at), rules, family, out),
        Change::Replace { chain, at, rule } => {
            print_rules("-R", chain, &number(*at), std::slice::from_ref(rule), family, out);
        }
        Change::Delete { chain, at } => print_command("-D", Some(chain), &number(*at), out),
        Change::DeleteRules { chain, rules } => print_rules("-D", chain, "", rules, family, out),
        Change::Check { chain, rules } => print_rules("-C", chain, "", rules, family, out),
        Change::Flush { chain } => print_command("-F", chain.as_deref(), "", out),
        Change::Zero { chain, at } => {
            print_command("-Z", chain.as_deref(), &at.map(number).unwrap_or_default(), out);
        }
        Change::Declare { chain, policy, counters } => {
            out.push(':');
            write_name(chain, out);
            let _ = writeln!(out, " {} {counters}", policy.map_or("-", |p| p.name()));
        }
        Change::NewChain { chain } => print_command("-N", Some(chain), "", out),
        Change::DeleteChain { chain } => print_command("-X", chain.as_deref(), "", out),
        Change::RenameChain { chain, to } => {
            let mut name = String::from(" ");
            write_name(to, &mut name);
            print_command("-E", Some(chain), &name, out);
        }
        Change::SetPolicy { chain, policy, counters } => {
            if let Some(counters) = counters {
                let _ = write!(out, "{counters} ");
            }
            print_command("-P", Some(chain), &format!(" {}", policy.name()), out);
        }
    }
}

fn print_command(command: &str, chain: Option<&str>, rest: &str, out: &mut String) {
    out.push_str(command);
    if let Some(chain) = chain {
        out.push(' ');
        write_name(chain, out);
    }
    out.push_str(rest);
    out.push('\n');
}

fn print_rules(command: &str, chain: &str, number: &str, rules: &[Rule], family: Family, out: &mut String) {
    for rule in rules {
        // A rule that is looked for has none.
        if rule.counters != Counters::default() && !matches!(command, "-D" | "-C") {
            let _ = write!(out, "{} ", rule.counters);
        }
        out.push_str(command);
        out.push(' ');
        write_name(chain, out);
        out.push_str(number);
        print_spec(rule, family, out);
        out.push('\n');
    }
}
