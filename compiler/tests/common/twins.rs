//! A live table and its slow twin: plain vectors, changed by the same edits.

use super::exam::Exam;
use super::live_subject::LiveSubject;
use hipac_classifier::Image;
use hipac_compiler::{Counting, LiveError, LiveOptions, LiveTable};
use hipac_rules::ipset::Sets;
use hipac_rules::{Edit, PrintOptions, Ruleset, print};
use hipac_verifier::{Oracle, proof};

/// What a table and its slow twin are compared by.
pub(crate) struct Twins {
    pub(crate) live: LiveTable,
    pub(crate) plain: Ruleset,
    /// What the sets hold that rules name.
    pub(crate) sets: Sets,
    /// The last changes, for whoever has to find out.
    log: Vec<String>,
}

/// Rules with their counters.
pub(crate) fn counted(ruleset: &Ruleset) -> String {
    print(ruleset, &PrintOptions { counters: true, ..PrintOptions::default() })
}

impl Twins {
    pub(crate) fn new(ruleset: &Ruleset, options: &LiveOptions) -> Twins {
        let live = LiveTable::open(ruleset, options).expect("it fits");
        Twins { live, plain: ruleset.clone(), sets: Sets::default(), log: vec![] }
    }

    /// The same of rules that name IP sets.
    pub(crate) fn with_sets(ruleset: &Ruleset, sets: &Sets, options: &LiveOptions) -> Twins {
        let live = LiveTable::open_with_sets(ruleset, sets, options).expect("it fits");
        Twins { live, plain: ruleset.clone(), sets: sets.clone(), log: vec![] }
    }

    /// The plain rules, with the sets that they name.
    fn meant(&self) -> Ruleset {
        let mut meant = self.plain.clone();
        self.sets.bind(&mut meant);
        meant
    }

    /// One transaction of both, in which sets come to hold something else.
    #[track_caller]
    pub(crate) fn apply_with_sets(&mut self, edits: &[Edit], sets: &Sets) -> bool {
        let before = self.plain.clone();
        match (self.live.apply_with_sets(edits, sets), self.plain_after(edits)) {
            (Ok(_), Ok(())) => {
                self.sets = sets.clone();
                true
            }
            (Err(LiveError::Memory { .. }), _) => {
                self.plain = before;
                false
            }
            (Err(live), Err(plain)) => {
                assert_eq!(live.to_string(), plain);
                false
            }
            (live, plain) => panic!("live {live:?}, plain {plain:?}"),
        }
    }

    /// One transaction of both; whether it was made. The twin has no budget: what goes over it is the
    /// live table's affair, and changes neither.
    #[track_caller]
    pub(crate) fn apply(&mut self, edits: &[Edit]) -> bool {
        self.log.drain(..self.log.len().saturating_sub(20));
        for edit in edits {
            let mut text = String::new();
            hipac_rules::edit::print_edit(edit, self.plain.family, &mut text);
            self.log.push(text);
        }
        let live = self.live.apply(edits);
        if let Err(LiveError::Memory { needed, limit, .. }) = live {
            assert!(needed > limit, "{needed} bytes are refused where {limit} are allowed");
            return false;
        }
        match (live, self.plain_after(edits)) {
            (Ok(_), Ok(())) => true,
            (Err(live), Err(plain)) => {
                assert_eq!(live.to_string(), plain);
                false
            }
            (live, plain) => panic!("live {live:?}, plain {plain:?}: {}", self.log.join("")),
        }
    }

    /// The twin's part. A few edits of many rules are made in place: none of them is to fail then.
    fn plain_after(&mut self, edits: &[Edit]) -> Result<(), String> {
        if self.plain.rule_count() > 10_000 {
            let made = edits.iter().try_for_each(|e| hipac_rules::apply(&mut self.plain, e).map(drop));
            return made.map_err(|e| e.to_string());
        }
        self.plain = hipac_rules::apply_all(&self.plain, edits).map_err(|e| e.to_string())?;
        Ok(())
    }

    #[track_caller]
    pub(crate) fn have_the_same_rules(&self) {
        assert_eq!(counted(&self.live.ruleset()), counted(&self.plain), "last: {}", self.log.join(""));
    }

    /// The budget holds.
    #[track_caller]
    pub(crate) fn are_within_budget(&self) {
        let stats = self.live.stats();
        assert!(stats.structure_bytes <= stats.memory_bytes_max, "{stats:?}");
        assert!(stats.waiting_bytes <= stats.structure_bytes, "{stats:?}");
        assert_eq!(stats.rules, self.plain.rule_count());
    }

    /// The frozen table is proved equal to the rules.
    #[track_caller]
    pub(crate) fn prove(&self) {
        let image = Image::open(self.live.freeze().expect("it freezes")).expect("it opens");
        image.audit().unwrap_or_else(|e| panic!("{e}\n{}", self.shown()));
        let meant = self.meant();
        if let Err(refutation) = proof::prove(&meant, &image, &proof::Options::default()) {
            panic!("{}\n{}", refutation.show(&meant), self.shown());
        }
    }

    /// Readers see what the oracle says, on packets drawn from the bounds of the rules.
    #[track_caller]
    pub(crate) fn agree_on(&self, packets: u64) {
        let meant = self.meant();
        let oracle = Oracle::new(&meant).expect("rules that were taken have an oracle");
        let subject = LiveSubject::new(&self.live, &self.plain);
        if let Some(d) = Exam::drawn(&oracle, packets).first_difference(&subject, Counting::Exact) {
            let (expected, found) = (d.expected, &d.found);
            panic!("{}: {:?}\noracle {expected:?}\nlive {found:?}\n{}", d.what, d.case, self.shown());
        }
    }

    fn shown(&self) -> String {
        let rules = match self.plain.rule_count() {
            0..=100 => print(&self.plain, &PrintOptions::default()),
            many => format!("({many} rules)"),
        };
        format!("{rules}\nlast changes:\n{}", self.log.join(""))
    }
}
