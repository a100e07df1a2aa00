//! Progress on standard error, when a person is watching.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::interrupt;

/// A bar of `all` steps; invisible when standard error is no terminal.
pub(crate) fn bar(all: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(all), target());
    bar.set_style(style);
    bar.set_message(what);
    interrupt::works_on(what, &bar);
    bar
}

/// A sign of life for work without steps.
pub(crate) fn spinner(what: &'static str) -> ProgressBar {
    let spinner = ProgressBar::with_draw_target(None, target());
    spinner.set_message(what);
    spinner.enable_steady_tick(Duration::from_millis(120));
    interrupt::works_on(what, &spinner);
    spinner
}

fn target() -> ProgressDrawTarget {
    if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
}
