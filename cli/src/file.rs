//! Files: read within a limit, replaced in one step.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::exit::Failure;
use crate::interrupt;

/// Bytes of an input file, at most: a million rules take 150 MB.
const INPUT_BYTES_MAX: u64 = 4 << 30;

/// What the reader calls a file.
pub(crate) fn name(path: &Path) -> String {
    if is_stdin(path) { "<stdin>".to_owned() } else { path.display().to_string() }
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// All bytes of a file, or of standard input for `-`.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: io::Error| Failure::at(&name(path), error);
    let mut bytes = Vec::new();
    if is_stdin(path) {
        read_limited(io::stdin().lock(), &mut bytes).map_err(failed)?;
    } else {
        read_limited(fs::File::open(path).map_err(failed)?, &mut bytes).map_err(failed)?;
    }
    within_limit(path, bytes)
}

/// Reads up to one byte more than a file may have.
pub(crate) fn read_limited(from: impl Read, bytes: &mut Vec<u8>) -> io::Result<usize> {
    from.take(INPUT_BYTES_MAX + 1).read_to_end(bytes)
}

/// Refuses what is longer than any input.
pub(crate) fn within_limit(path: &Path, bytes: Vec<u8>) -> Result<Vec<u8>, Failure> {
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        return Err(Failure::at(&name(path), "more than 4 GiB: no ruleset, image or trace is so long"));
    }
    Ok(bytes)
}

/// Replaces a file: whoever looks sees the old bytes or the new ones, whatever happens meanwhile. Of a link
/// it is the file that it leads to; a device or a pipe, `/dev/null` say, is written to and stays what it is.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::at(&path.display().to_string(), error);
    let path = &followed(path).map_err(failed)?;
    if fs::metadata(path).is_ok_and(|is| !is.is_file() && !is.is_dir()) {
        let mut file = fs::OpenOptions::new().write(true).open(path).map_err(failed)?;
        return file.write_all(bytes).map_err(failed);
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".hipac-");
    #[cfg(unix)]
    {
        // Like any new file: the user's mask decides, not the temporary file's 0600.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder).map_err(failed)?;
    interrupt::unfinished(Some(file.path()));
    file.write_all(bytes).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    interrupt::unfinished(None);
    // The name is safe once its folder is on disk too; not every file system can say so.
    if let Ok(folder) = fs::File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// Links that lead to links, at most: as many as Linux follows.
const LINKS_MAX: usize = 40;

/// What a path leads to when it is a link, whether that is there or not.
fn followed(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            // No link, or nothing there.
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many links"))
}
