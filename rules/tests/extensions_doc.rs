//! `docs/extensions.md` says what the registry says.

use std::path::Path;

use hipac_rules::registry::{self, Kind, document};

fn path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/extensions.md")
}

#[test]
fn the_document_is_up_to_date() {
    let made = document();
    if std::env::var_os("HIPAC_WRITE_DOCS").is_some() {
        std::fs::write(path(), &made).expect("a writable folder");
    }
    let kept = std::fs::read_to_string(path()).unwrap_or_default();
    assert!(
        kept == made,
        "docs/extensions.md is old: HIPAC_WRITE_DOCS=1 cargo test -p hipac-rules --test extensions_doc"
    );
}

/// Names in the first column of the tables under a heading.
fn names_under<'t>(text: &'t str, heading: &str) -> Vec<&'t str> {
    let section = text.split("\n## ").find(|part| part.starts_with(heading)).unwrap_or("");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next());
    rows.filter(|name| !matches!(*name, "module" | "target" | "None" | "<user") && !name.starts_with('-'))
        .collect()
}

/// What real rulesets use is known.
#[test]
fn no_match_or_target_of_the_corpus_is_unknown() {
    let Some(corpus) = std::env::var_os("HIPAC_CORPUS") else {
        println!("skipped: HIPAC_CORPUS is not set");
        return;
    };
    let text = std::fs::read_to_string(Path::new(&corpus).join("frequency.md")).expect("a readable file");
    for (kind, heading) in [(Kind::Match, "Match modules"), (Kind::Target, "Targets")] {
        let names = names_under(&text, heading);
        assert!(names.len() > 9, "{names:?}");
        // `ROUTE` left the kernel long ago; the others are chains that their files do not declare.
        for name in names.into_iter().filter(|n| !matches!(*n, "ROUTE" | "LOGGING" | "ACC")) {
            assert!(registry::all().any(|s| s.kind == kind && s.is_named(name)), "{kind:?} {name}");
        }
    }
}

/// Each word of the dictionary is one that the parser knows: it came out of the same table.
#[test]
fn words_are_many_and_each_stands_once() {
    let words = registry::words();
    assert!(words.len() > 700, "{}", words.len());
    assert!(words.windows(2).all(|w| w[0] < w[1]));
    for word in ["--ctstate", "-m conntrack", "-j REJECT", "ESTABLISHED", "--hashlimit-upto"] {
        assert!(words.iter().any(|w| w == word), "{word}");
    }
}
