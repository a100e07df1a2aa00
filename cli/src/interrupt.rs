//! Ctrl-C: ends at once, says how far the work got, and leaves no half-written file behind.
//!
//! Results are printed when they are complete and files are replaced in one step, so that there is nothing to
//! undo but a temporary file. The exit code is 130, as shells expect of what the signal ends.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::ProgressBar;

/// What is being done, and how far it is.
static WORK: Mutex<Option<(&'static str, ProgressBar)>> = Mutex::new(None);

/// A file that is not in its place yet.
static UNFINISHED: Mutex<Option<PathBuf>> = Mutex::new(None);

const EXIT_CODE: i32 = 130;

fn lock<T>(of: &'static Mutex<T>) -> MutexGuard<'static, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From here on Ctrl-C ends the program so. (Where no handler can be set, it ends as programs do.)
pub(crate) fn install() {
    let _ = ctrlc::set_handler(|| {
        if let Some(file) = lock(&UNFINISHED).take() {
            let _ = std::fs::remove_file(file);
        }
        let done = match lock(&WORK).take().filter(|(_, bar)| !bar.is_finished()) {
            None => String::new(),
            Some((what, bar)) => {
                let (at, elapsed) = (bar.position(), bar.elapsed().as_secs());
                bar.finish_and_clear();
                match bar.length().filter(|&all| all > 0) {
                    Some(all) => format!(" while {what}, {} % done", 100 * at / all),
                    None => format!(" while {what}, after {elapsed} s"),
                }
            }
        };
        crate::input::diagnose(&format!("hipac: interrupted{done}; no result, and no file half written\n"));
        std::process::exit(EXIT_CODE);
    });
}

/// This is being done now.
pub(crate) fn works_on(what: &'static str, bar: &ProgressBar) {
    *lock(&WORK) = Some((what, bar.clone()));
}

/// This file is to be removed when the program is interrupted; `None` when it is in its place.
pub(crate) fn unfinished(file: Option<&Path>) {
    *lock(&UNFINISHED) = file.map(Path::to_owned);
}
