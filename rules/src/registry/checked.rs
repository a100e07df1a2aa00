//! Which matches and targets the kernel itself was asked about, packet by packet: the list that
//! `docs/extensions.md` shows. Whoever adds a case to the kernel's checks adds a line here.

use super::spec::{ExtensionSpec, Kind};

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelCheck {
    /// A case that matches and one that does not were compared with the kernel.
    Checked,
    /// Not, and why not.
    Not(&'static str),
}

/// Those that were checked, and those that cannot be.
static CHECKED: &[(Kind, &str, KernelCheck)] = &[];

/// What is known of an extension; `None`: nobody has asked.
pub fn kernel_check(spec: &ExtensionSpec) -> Option<KernelCheck> {
    CHECKED.iter().find(|(kind, name, _)| (*kind, *name) == (spec.kind, spec.name)).map(|(.., check)| *check)
}
