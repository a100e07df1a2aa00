//! Changes as data: a ruleset, the text of changes, and what is left or which error at which place.

use hipac_rules::edit::{Change, Edit, ErrorKind, ExitClass};
use hipac_rules::{
    Family, ParseOptions, PrintOptions, Ruleset, TableKind, apply, apply_all, parse, parse_edits, print,
    render,
};

/// What the changes are made of.
const BASE: &str = "*filter\n:INPUT DROP [5:6]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
                    :log - [0:0]\n:web - [0:0]\n\
                    [1:2] -A INPUT -p tcp -j web\n[3:4] -A INPUT -i lo -j ACCEPT\n\
                    [7:8] -A web -s 10.0.0.0/8 -j ACCEPT\n[9:9] -A web -s 10.0.0.0/8 -j ACCEPT\n\
                    COMMIT\n";

fn base() -> Ruleset {
    parse(BASE, &ParseOptions::default()).into_result().unwrap()
}

fn print_all(ruleset: &Ruleset) -> String {
    print(ruleset, &PrintOptions { counters: true, header: false })
}

/// The lines that are gone from the base and those that are new, after these commands of the
/// filter table.
#[track_caller]
fn check(commands: &str, gone: &[&str], new: &[&str]) {
    let parsed = parse_edits(format!("*filter\n{commands}\nCOMMIT\n"), &ParseOptions::default());
    assert!(!parsed.has_errors(), "{:?}", parsed.faults);
    let (changed, _) = parsed.apply(&base(), &ParseOptions::default()).unwrap();
    let changed = print_all(&changed);
    let is_gone: Vec<&str> = BASE.lines().filter(|l| !changed.lines().any(|c| c == *l)).collect();
    let is_new: Vec<&str> = changed.lines().filter(|l| !BASE.lines().any(|b| b == *l)).collect();
    assert_eq!((is_gone, is_new), (gone.to_vec(), new.to_vec()), "{changed}");
}

/// The error of changes, as `line N: …`, and the exit class that iptables has for it.
#[track_caller]
fn check_error(text: &str, error: &str, class: ExitClass) {
    let parsed = parse_edits(text, &ParseOptions::default());
    assert!(!parsed.has_errors(), "{:?}", parsed.faults);
    let found = parsed.apply(&base(), &ParseOptions::default()).unwrap_err();
    assert_eq!((found.to_string().as_str(), found.kind.exit_class()), (error, class));
}

/// The error of a command, the last one of these.
#[track_caller]
fn refused(command: &str, error: &str, class: ExitClass) {
    let line = 1 + command.lines().count();
    check_error(&format!("*filter\n{command}\nCOMMIT\n"), &format!("line {line}: filter: {error}"), class);
}

#[test]
fn rules_are_put_taken_and_replaced_at_positions() {
    check("-A web -j DROP", &[], &["[0:0] -A web -j DROP"]);
    check("-I INPUT 2 -p udp -j web", &[], &["[0:0] -A INPUT -p udp -j web"]);
    check("-D INPUT 2", &["[3:4] -A INPUT -i lo -j ACCEPT"], &[]);
    check("-D INPUT -i lo -j ACCEPT", &["[3:4] -A INPUT -i lo -j ACCEPT"], &[]);
    check("-F web", &BASE.lines().filter(|l| l.contains("-A web")).collect::<Vec<_>>(), &[]);
    check("-I log -s 1.1.1.1,2.2.2.2", &[], &["[0:0] -A log -s 2.2.2.2/32", "[0:0] -A log -s 1.1.1.1/32"]);
}

#[test]
fn counters_come_with_rules_and_policies_and_are_zeroed_one_by_one() {
    check("[3:9] -A log -j DROP", &[], &["[3:9] -A log -j DROP"]);
    check("-R INPUT 2 -i lo -j DROP", &["[3:4] -A INPUT -i lo -j ACCEPT"], &["[0:0] -A INPUT -i lo -j DROP"]);
    check("[1:1] -R INPUT 2 -p udp", &["[3:4] -A INPUT -i lo -j ACCEPT"], &["[1:1] -A INPUT -p udp"]);
    check("-P INPUT DROP", &[":INPUT DROP [5:6]"], &[":INPUT DROP [0:0]"]);
    check("-P INPUT ACCEPT -c 3 4", &[":INPUT DROP [5:6]"], &[":INPUT ACCEPT [3:4]"]);
    check(":INPUT ACCEPT [7:7]", &[":INPUT DROP [5:6]"], &[":INPUT ACCEPT [7:7]"]);
    check(":INPUT - [7:7]", &[], &[]);
    check("-Z web 2", &["[9:9] -A web -s 10.0.0.0/8 -j ACCEPT"], &["[0:0] -A web -s 10.0.0.0/8 -j ACCEPT"]);
    check(
        "-Z INPUT",
        &[":INPUT DROP [5:6]", "[1:2] -A INPUT -p tcp -j web", "[3:4] -A INPUT -i lo -j ACCEPT"],
        &[":INPUT DROP [0:0]", "[0:0] -A INPUT -p tcp -j web", "[0:0] -A INPUT -i lo -j ACCEPT"],
    );
}

#[test]
fn the_first_equal_rule_is_deleted_whatever_its_counters() {
    check("-D web -s 10.1.2.3/8 -j ACCEPT", &["[7:8] -A web -s 10.0.0.0/8 -j ACCEPT"], &[]);
    check("-D INPUT -p tcp -i + -j web", &["[1:2] -A INPUT -p tcp -j web"], &[]);
    refused("-D web -s 10.0.0.0/8 -g log", "no rule of chain web equals this one", ExitClass::Other);
    refused("-C web -s 10.0.0.0/8", "no rule of chain web equals this one", ExitClass::Other);
    check("-C web -s 10.0.0.0/8 -j ACCEPT", &[], &[]);
}

#[test]
fn chains_are_made_emptied_renamed_and_deleted() {
    check("-N a\n-A a -j web", &[], &[":a - [0:0]", "[0:0] -A a -j web"]);
    check(":web - [0:0]", &BASE.lines().filter(|l| l.contains("-A web")).collect::<Vec<_>>(), &[]);
    check("-X log", &[":log - [0:0]"], &[]);
    check("-F\n-X", &BASE.lines().filter(|l| l.contains("-A") || l.contains(" - ")).collect::<Vec<_>>(), &[]);
    let old = BASE.lines().filter(|l| l.contains("web"));
    let new: Vec<String> = old.clone().map(|l| l.replace("web", "aaa")).collect();
    let new: Vec<&str> = new.iter().map(String::as_str).collect();
    check("-E web aaa", &old.collect::<Vec<_>>(), &new);
}

#[test]
fn what_iptables_refuses_is_refused_with_its_exit_code() {
    use ExitClass::{Other, Parameter};
    refused("-A nope -j DROP", "there is no chain nope in the table", Other);
    refused("-A INPUT -j nope", "`nope` is neither a target nor a chain of the table", Parameter);
    refused("-A INPUT -g nope", "`nope` is neither a target nor a chain of the table", Parameter);
    refused("-A log -j INPUT", "rules cannot lead to the built-in chain INPUT", Other);
    refused("-I INPUT 4 -j DROP", "4 is too big for the insertion: chain INPUT has 2 rules", Other);
    refused("-R INPUT 3 -j DROP", "3 is too big for the replacement: chain INPUT has 2 rules", Other);
    refused("-D log 1", "1 is too big for the deletion: chain log has 0 rules", Other);
    refused("-Z INPUT 9", "9 is too big for the counter: chain INPUT has 2 rules", Other);
    refused("-N web", "there is a chain web already", Other);
    refused("-N INPUT", "there is a chain INPUT already", Other);
    refused("-N LOG", "no chain can be called `LOG`: it is a target's name", Parameter);
    refused("-N abcdefghijklmnopqrstuvwxyz123", LONG_NAME, Parameter);
    refused("-N \"a b\"", "no chain can be called `a b`: it has a blank", Parameter);
    refused("-N !a", "no chain can be called `!a`: it begins as an option does", Parameter);
    refused("-X web", "chain web is in use: INPUT rule 1 leads to it", Other);
    refused("-F INPUT\n-X web", "chain web still has 2 rules", Other);
    refused("-F INPUT\n-X", "chain web still has 2 rules", Other);
    refused("-X INPUT", "the built-in chain INPUT cannot be deleted", Other);
    refused("-X nope", "there is no chain nope in the table", Other);
    refused("-E web log", "there is a chain log already", Other);
    refused("-E INPUT x", "the built-in chain INPUT cannot be renamed", Other);
    refused("-E nope x", "there is no chain nope in the table", Other);
    refused("-P web DROP", "`web` is no built-in chain and has no policy", Other);
    refused(":web DROP [0:0]", "`web` is no built-in chain and has no policy", Other);
    refused("-F nope", "there is no chain nope in the table", Other);
    check_error(
        "*filter\n-A INPUT -j web\n-F web\n-X web\nCOMMIT\n",
        "line 4: filter: chain web is in use: INPUT rule 1 leads to it, the first of 2",
        Other,
    );
}

const LONG_NAME: &str = "no chain can be called `abcdefghijklmnopqrstuvwxyz123`: it has more than 28 bytes";

#[test]
fn a_loop_is_refused_where_it_is_closed_and_only_if_packets_get_there() {
    check_error(
        "*filter\n-A web -j log\n-A log -g web\n-Z\nCOMMIT\n",
        "line 3: filter: rules lead in a loop: web → log → web, by log rule 1",
        ExitClass::Other,
    );
    check(
        "-N a\n-N b\n-A a -j b\n-A b -j a",
        &[],
        &[":a - [0:0]", ":b - [0:0]", "[0:0] -A a -j b", "[0:0] -A b -j a"],
    );
    // Undone before it is committed.
    check("-A web -j web\n-D web 3", &[], &[]);
    // A rule that ended the chain before is taken away: what closed the loop stands elsewhere.
    check_error(
        "*filter\n-I web -j DROP\n-A web -j web\nCOMMIT\n*filter\n-D web 1\nCOMMIT\n",
        "line 7: filter: rules lead in a loop: web → web, by web rule 3",
        ExitClass::Other,
    );
}

#[test]
fn a_failed_edit_changes_nothing_and_a_list_is_made_as_a_whole() {
    let parsed = parse_edits(
        "*filter\n-A INPUT -j DROP\n-F web\n-D web -s 10.0.0.0/8,192.0.2.1 -j ACCEPT\nCOMMIT\n",
        &ParseOptions::default(),
    );
    assert!(apply_all(&base(), parsed.edits()).is_err());
    let mut ruleset = base();
    let last = parsed.edits().last().unwrap();
    assert!(apply(&mut ruleset, last).is_err());
    assert!(ruleset == base(), "one of two rules was deleted");
    // The third is not there: the two that went from other places are back, each in its own.
    let text = "*filter\n-A log -s 1.1.1.1\n-A log -j ACCEPT\n-A log -s 2.2.2.2\n-A log -s 3.3.3.3\nCOMMIT\n";
    let mut longer = apply_all(&base(), parse_edits(text, &ParseOptions::default()).edits()).unwrap();
    let before = longer.clone();
    let text = "*filter\n-D log -s 3.3.3.3,1.1.1.1,4.4.4.4\nCOMMIT\n";
    let deleting = parse_edits(text, &ParseOptions::default());
    assert!(apply(&mut longer, deleting.edits().last().unwrap()).is_err());
    assert!(longer == before, "{}", print_all(&longer));
    let chain = |name: &str| Change::NewChain { chain: name.into() };
    assert!(apply(&mut ruleset, &Edit::new(TableKind::Nat, chain("DNAT"))).is_err());
    assert!(ruleset.table(TableKind::Nat).is_none());
    assert!(apply(&mut ruleset, &Edit::new(TableKind::Nat, chain("dnat"))).is_ok());
    assert_eq!(ruleset.table(TableKind::Nat).map(|t| t.chains.len()), Some(5));
}

#[test]
fn commands_of_a_shell_name_their_table() {
    let text = "iptables -I INPUT 2 -m comment --comment 'a \"b\"' -j DROP # why\n\
                /sbin/iptables -w -t nat -A POSTROUTING -o \"eth0\" -j MASQUERADE\n\n\
                *filter\n-D INPUT 1\nCOMMIT\n";
    let parsed = parse_edits(text, &ParseOptions::default());
    assert_eq!(parsed.faults, []);
    let tables: Vec<(&str, u32)> = parsed.groups.iter().map(|g| (g.table.name(), g.commit.line)).collect();
    assert_eq!(tables, [("filter", 1), ("nat", 2), ("filter", 6)]);
    let (changed, done) = parsed.apply(&base(), &ParseOptions::default()).unwrap();
    assert_eq!((done.rules_added, done.rules_removed), (2, 1));
    let text = print_all(&changed);
    assert!(text.contains("-A INPUT -m comment --comment \"a \\\"b\\\"\" -j DROP\n"), "{text}");
    assert!(text.contains("*nat\n") && text.contains("-A POSTROUTING -o eth0 -j MASQUERADE\n"), "{text}");
}

/// The faults of changes, one a line.
#[track_caller]
fn check_faults(text: &str, expected: &[&str]) {
    let parsed = parse_edits(text, &ParseOptions { family: Some(Family::V4), ..ParseOptions::default() });
    let faults: Vec<String> = parsed.faults.iter().map(|f| f.to_string()).collect();
    assert_eq!(faults, expected);
}

#[test]
fn faults_of_the_text_are_all_found() {
    check_faults(
        "-F\n*filter\n-I INPUT 0 -j DROP\n-P INPUT NOPE\n-R INPUT -j DROP\n-E web\n-F web -j DROP\n[1:2] -D web 1\n-D\n",
        &[
            "1:1: error: it stands in no table (put a line such as *filter before it; filter is assumed)",
            "2:1: error: a table begins before the one above is committed (put COMMIT before it)",
            "2:1: error: table filter is never committed (end it with a line COMMIT)",
            "3:10: error: `0` is no number of a rule, which count from 1",
            "4:4: error: -P needs a policy (one of ACCEPT, DROP)",
            "5:1: error: -R needs the number of a rule",
            "6:4: error: -E needs the old and the new name",
            "7:1: error: -F here takes no rule",
            "8:1: error: -D takes no counters",
            "9:1: error: -D needs a value",
            "9:1: error: the line has no command (begin a rule with -A CHAIN)",
        ],
    );
    check_faults(
        "iptables -t filtre -F\nip6tables -F\niptables -A INPUT -s $LAN\niptables\n\
         iptables -A INPUT -m comment --comment 'x\n*nat\niptables -F\n-t nat -F\n-P PREROUTING DROP\nCOMMIT\n",
        &[
            "1:13: error: `filtre` is no table (one of raw, mangle, nat, filter, security)",
            "2:1: error: a command for IPv6 changes rules for IPv4",
            "3:22: error: `$` stands for what only a shell knows",
            "4:1: error: the line has no command",
            "5:40: error: a quote that nothing closes",
            "7:1: error: a command of a shell stands within table nat (put COMMIT before it)",
            "8:1: error: -t cannot stand in a file (the line *TABLE above says it)",
            "9:15: error: the nat table sees first packets only and cannot DROP (drop packets in the filter table)",
        ],
    );
}

#[test]
fn an_error_is_underlined_in_the_text_of_changes() {
    let text = "*filter\n-I INPUT 9 -j DROP\nCOMMIT\n";
    let error =
        parse_edits(text, &ParseOptions::default()).apply(&base(), &ParseOptions::default()).unwrap_err();
    assert_eq!(error.kind.iptables_message(), Some("Index of insertion too big"));
    let shown = render(&error.fault(text.as_bytes()), "changes", text.as_bytes());
    assert!(shown.contains("changes:2:10") && shown.contains("|          ^"), "{shown}");
}

#[test]
fn growth_and_work_are_limited() {
    let limited = |text: &str, options: ParseOptions| {
        let parsed = parse_edits(text, &ParseOptions::default());
        parsed.apply(&base(), &options).unwrap_err()
    };
    let error = limited(
        "*filter\n-A web\n-A web\nCOMMIT\n",
        ParseOptions { rule_count_max: 5, ..ParseOptions::default() },
    );
    assert_eq!(error.to_string(), "line 3: filter: the changes need more than 5 rules");
    let error =
        limited("*filter\n-N a\nCOMMIT\n", ParseOptions { chain_count_max: 2, ..ParseOptions::default() });
    assert_eq!(error.to_string(), "line 2: filter: the changes need more than 2 chains");
    let error = limited(
        "*filter\n-C INPUT -i lo -j ACCEPT\n-C INPUT -i lo -j ACCEPT\nCOMMIT\n",
        ParseOptions { edit_steps_max: 1, ..ParseOptions::default() },
    );
    assert!(matches!(error.kind, ErrorKind::Limit { of: "steps", .. }) && error.line == 3, "{error}");
    // Groups that do next to nothing, each of which costs a walk over its table.
    let many = parse(
        format!("*filter\n:FORWARD ACCEPT\n{}COMMIT\n", "-A FORWARD -j ACCEPT\n".repeat(2000)),
        &ParseOptions::default(),
    );
    for commands in ["-N x\nCOMMIT\n*filter\n-X x\n", "-Z\n"] {
        let text = format!("*filter\n{commands}COMMIT\n").repeat(100);
        let options = ParseOptions { edit_steps_max: 5_000, ..ParseOptions::default() };
        let error = parse_edits(text, &options).apply(&many.ruleset, &options).unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Limit { of: "steps", .. }), "{commands}: {error}");
    }
    let parsed = parse_edits(
        "*filter\n-F\n-F\n-F\nCOMMIT\n",
        &ParseOptions { rule_count_max: 2, ..ParseOptions::default() },
    );
    assert_eq!(parsed.faults[0].message, "the text is above the limit of 2 changes and rules");
}
