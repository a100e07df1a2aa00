//! Two files that are replaced together: each in one step, in an order that can be told later.
//!
//! ```text
//!   .RULES.hipac-new  written, on disk ┐
//!   .IMAGE.hipac-new  written, on disk ┴▶ RULES renamed, on disk ─▶ IMAGE renamed, on disk
//! ```
//!
//! The names of what is not finished are always the same, so a run that is killed leaves two
//! files at most, which the next one removes. The rules file is locked while they are at work.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::exit::Failure;
use crate::file;

/// An image and its rules, which nobody else updates meanwhile.
pub(super) struct Pair {
    pub(super) image: PathBuf,
    pub(super) rules: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl Pair {
    /// Waits until nobody else updates these files. Links are followed: what they lead to is
    /// replaced.
    pub(super) fn lock(image: &Path, rules: &Path) -> Result<Pair, Failure> {
        let real = |path: &Path| fs::canonicalize(path).map_err(|e| Failure::at(&file::name(path), e));
        let (image_path, rules_path) = (real(image)?, real(rules)?);
        if image_path == rules_path {
            return Err(Failure::at(&file::name(rules), "the image and its rules are two files"));
        }
        let failed = |e: io::Error| Failure::at(&file::name(rules), e);
        // The folder, and not the file: that one is another one as soon as it is replaced, while the
        // image still is to be.
        let lock = File::open(if cfg!(unix) { folder(&rules_path) } else { &rules_path }).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let pair = Pair { image: image_path, rules: rules_path, _lock: lock };
        pair.remove_leftovers();
        Ok(pair)
    }

    /// Removes what a killed run left.
    fn remove_leftovers(&self) {
        for path in [&self.image, &self.rules] {
            if let Some(leftover) = beside(path) {
                let _ = fs::remove_file(leftover);
            }
        }
    }

    /// Replaces both; an error leaves both as they were.
    pub(super) fn replace(&self, image: &[u8], rules: &[u8]) -> Result<(), Failure> {
        let old_rules = fs::read(&self.rules).map_err(|e| at(&self.rules, e))?;
        let new_rules = Unfinished::write(&self.rules, rules)?;
        let new_image = Unfinished::write(&self.image, image)?;
        new_rules.finish()?;
        if let Err(failure) = new_image.finish() {
            // The rules go back; when that fails too, the next update tells.
            let _ = Unfinished::write(&self.rules, &old_rules).and_then(Unfinished::finish);
            return Err(failure);
        }
        Ok(())
    }

    /// Replaces the image.
    pub(super) fn replace_image(&self, image: &[u8]) -> Result<(), Failure> {
        Unfinished::write(&self.image, image)?.finish()
    }
}

fn at(path: &Path, error: io::Error) -> Failure {
    Failure::at(&path.display().to_string(), error)
}

/// Where a file lies.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Where the new bytes of a file are until they are whole.
fn beside(path: &Path) -> Option<PathBuf> {
    let mut name = OsString::from(".");
    name.push(path.file_name()?);
    name.push(".hipac-new");
    Some(path.with_file_name(name))
}

/// New bytes of a file, on disk beside it. Dropped, they are removed.
struct Unfinished {
    path: PathBuf,
    target: PathBuf,
}

impl Unfinished {
    fn write(target: &Path, bytes: &[u8]) -> Result<Unfinished, Failure> {
        let path = beside(target).ok_or_else(|| Failure::at(&target.display().to_string(), "no file"))?;
        let failed = |e: io::Error| at(&path, e);
        // Never through a link that somebody put there.
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        let mut file = new_file(&path).map_err(failed)?;
        let unfinished = Unfinished { path: path.clone(), target: target.to_owned() };
        like(&file, target).map_err(failed)?;
        file.write_all(bytes).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        Ok(unfinished)
    }

    /// Puts the bytes in the place of the file. On disk, they are there before this returns.
    fn finish(self) -> Result<(), Failure> {
        fs::rename(&self.path, &self.target).map_err(|e| at(&self.target, e))?;
        // The name is safe once its folder is on disk too; not every file system can say so.
        if let Some(Ok(folder)) = self.target.parent().map(File::open) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After `finish` there is none of that name.
        let _ = fs::remove_file(&self.path);
    }
}

fn new_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        // Nobody else reads it before it has the rights of the file that it replaces.
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}

/// Gives a file the rights of another one, and its owner where that is allowed.
fn like(file: &File, other: &Path) -> io::Result<()> {
    let data = fs::metadata(other)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        let ours = file.metadata()?;
        if (ours.uid(), ours.gid()) != (data.uid(), data.gid()) {
            let _ = fchown(file, Some(data.uid()), Some(data.gid()));
        }
    }
    file.set_permissions(data.permissions())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn files_are_replaced_with_their_rights_through_links_and_leftovers_go() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let [image, rules, link] = ["a.himg", "a.rules", "link"].map(|name| folder.path().join(name));
        fs::write(&image, "old image").unwrap();
        fs::write(&rules, "old rules").unwrap();
        fs::set_permissions(&rules, fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(folder.path().join(".a.himg.hipac-new"), "half").unwrap();
        symlink(&rules, &link).unwrap();
        let pair = Pair::lock(&image, &link).unwrap_or_else(|_| panic!("nobody else holds it"));
        assert!(pair.replace(b"new image", b"new rules").is_ok());
        assert_eq!(
            (fs::read(&image).unwrap(), fs::read(&link).unwrap()),
            (b"new image".into(), b"new rules".into())
        );
        assert_eq!(fs::metadata(&rules).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn an_image_that_cannot_be_replaced_leaves_the_rules_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let [image, rules] = ["a.himg", "a.rules"].map(|name| folder.path().join(name));
        // A folder is not replaced by a file, not even by root.
        fs::create_dir(&image).unwrap();
        fs::write(&rules, "old rules").unwrap();
        let pair = Pair::lock(&image, &rules).unwrap_or_else(|_| panic!("nobody else holds it"));
        assert!(pair.replace(b"new image", b"new rules").is_err());
        assert_eq!(fs::read(&rules).unwrap(), b"old rules");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
